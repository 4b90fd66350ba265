"""Recipe: what to train and how, as data. Everything that decides the weights stands in one, and in the manifest."""

from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from classifier.preprocess import Preprocess
from training.errors import TrainingError


class _Data(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class StrokesSource(_Data):
    """Digits that the project draws itself."""

    kind: Literal["strokes"] = "strokes"
    samples: int = Field(description="drawn for training, held-out ones included", ge=2)
    test_samples: int = Field(description="drawn from another random stream", ge=1)


class MnistSource(_Data):
    """The 60,000 + 10,000 real digits of MNIST."""

    kind: Literal["mnist"] = "mnist"


Source = Annotated[StrokesSource | MnistSource, Field(discriminator="kind")]


class Recipe(_Data):
    """SGD with Nesterov momentum and cross-entropy on a one-cycle schedule.

    Args:
        held_out: samples taken out of the training set, by which the epoch is chosen.
        lr: the peak of the learning rate, which rises to it and then falls to 0.
        lr_continued: the peak where training starts from a published checkpoint: good weights are not shaken up.
        warm_up: the share of all steps in which the learning rate rises.
        shift: images are moved at random by up to this many pixels each way, in training only.
        seed: of the drawn digits, the first weights, the order of samples, the shifts, and the choice of the held-out.
    """

    name: str = Field(min_length=1)
    source: Source
    architecture: str
    preprocess: Preprocess
    held_out: int = Field(ge=1)
    epochs: int = Field(ge=1)
    batch_size: int = Field(ge=1)
    lr: float = Field(gt=0)
    lr_continued: float = Field(gt=0)
    warm_up: float = Field(default=0.25, ge=0, lt=1)
    momentum: float = Field(default=0.9, ge=0, lt=1)
    weight_decay: float = Field(default=5e-4, ge=0)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    shift: int = Field(default=0, ge=0)
    seed: int = Field(default=0, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _leaves_samples_to_train_on(self) -> Self:
        if isinstance(self.source, StrokesSource) and self.held_out >= self.source.samples:
            raise ValueError(f"held_out ({self.held_out}) leaves nothing of {self.source.samples} samples to train on")
        return self

    def but(self, **changes: Any) -> Self:
        """This recipe with some fields changed, and checked again.

        Raises: TrainingError naming the field that is out of range.
        """
        try:
            return self.model_validate(self.model_dump() | changes)
        except ValidationError as error:
            problem = error.errors()[0]
            field = ".".join(map(str, problem["loc"])) or "recipe"
            raise TrainingError(f"{field}: {problem['msg']}, not {problem['input']!r}") from error


_DIGIT = Preprocess(mode="L", resize=(28, 28), crop=None, mean=(0.1307,), std=(0.3081,), background=0)

STROKES = Recipe(
    name="strokes",
    source=StrokesSource(samples=40_000, test_samples=5_000),
    architecture="mnist_cnn",
    preprocess=_DIGIT,
    held_out=2_000,
    epochs=3,
    batch_size=128,
    lr=0.05,
    lr_continued=0.003,
    shift=1,  # real digits are centred to whole pixels at best
)

MNIST = Recipe(
    name="mnist",
    source=MnistSource(),
    architecture="mnist_cnn",
    preprocess=_DIGIT,
    held_out=3_000,
    epochs=3,
    batch_size=128,
    lr=0.05,
    lr_continued=0.01,
    shift=1,
)

# What the command line knows.
RECIPES = {recipe.name: recipe for recipe in (STROKES, MNIST)}
