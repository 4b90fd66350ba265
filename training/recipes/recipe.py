"""Says what to train and how, as data. All that decides the weights stands in a recipe, and so in the manifest."""

from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal, Self

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    JsonValue,
    ValidationError,
    model_validator,
)
from pydantic_core import ErrorDetails

from classifier.preprocess import Preprocess
from training.errors import TrainingError
from training.recipes.dataset_table import TORCHVISION_DATASETS

if TYPE_CHECKING:
    from training.networks.spec import NetworkSpec


class _Data(BaseModel):
    """Never changes, and takes neither unknown keys nor infinite numbers."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    LATER: ClassVar[tuple[str, ...]] = ()  # values that there were not from the beginning

    def _without_later(self, values: dict[str, Any]) -> dict[str, Any]:
        """Returns `values`, without what came later, where that is as it is if nobody says anything."""
        silent = {name for name in self.LATER if getattr(self, name) == type(self).model_fields[name].default}
        return {name: value for name, value in values.items() if name not in silent}


_MOMENTUM = 0.9
_BETAS = (0.9, 0.999)

if TYPE_CHECKING:
    TorchvisionKind = str
else:
    TorchvisionKind = Literal[tuple(TORCHVISION_DATASETS)]  # for pydantic, which knows a source by its kind


class StrokesSource(_Data):
    """Means digits that the project draws itself."""

    kind: Literal["strokes"] = "strokes"
    samples: int = Field(default=40_000, description="drawn for training, held-out ones included", ge=2)
    test_samples: int = Field(default=5_000, description="drawn from another random stream", ge=1)


class TorchvisionSource(_Data):
    """Means a data set that torchvision knows, or a part of it.

    Args:
        kind: a name in `TORCHVISION_DATASETS`.
        classes: only these classes, with new numbers in this order; None: all.
        per_class: only so many training samples of each class, chosen by the recipe's seed; None: all.
    """

    kind: TorchvisionKind
    classes: tuple[Annotated[int, Field(ge=0)], ...] | None = Field(default=None, min_length=2)
    per_class: int | None = Field(default=None, ge=1)


class PhotosSource(_Data):
    """Means a folder in ImageFolder layout: a folder per class, or splits with a folder per class in each.

    Args:
        test_share: the share of each class that becomes the test set, if there is no `val/`.
        splits: folders that are called like splits (`train`, `valid`, `Test`) are splits. Otherwise every folder is a
            class, whatever it is called and whatever folders are in it.
    """

    kind: Literal["photos"] = "photos"
    test_share: float = Field(default=0.2, gt=0, lt=1)
    splits: bool = True


class TableSource(_Data):
    """Means photos that a CSV or TSV file lists, with their labels.

    Args:
        test_share: the share of each class that becomes the test set, if no row is of the split val.
        path, label, split: the names of the columns; None: they are called as is usual.
    """

    LATER: ClassVar = ("path", "label", "split")

    kind: Literal["table"] = "table"
    test_share: float = Field(default=0.2, gt=0, lt=1)
    path: str | None = None
    label: str | None = None
    split: str | None = None


class ShardsSource(_Data):
    """Means photos in tar files, as WebDataset writes them: an image and a `.cls` file of the same name.

    Args:
        test_share: the share of each class that becomes the test set, if the files are not called like splits.
        mixed: so many shards, chosen at random, are mixed at a time. None: all are.
    """

    LATER: ClassVar = ("mixed",)

    kind: Literal["shards"] = "shards"
    test_share: float = Field(default=0.2, gt=0, lt=1)
    mixed: int | None = Field(default=None, ge=1)


# Photos as files, which a person names by a path.
FileSource = PhotosSource | TableSource | ShardsSource
Source = Annotated[StrokesSource | TorchvisionSource | FileSource, Field(discriminator="kind")]


class Augment(_Data):
    """Says what is done at random to the images, in training only.

    Args:
        crop: a random part of the image takes the place of the preprocess's resize and crop. It has this share (least,
            most) of the image's area and a ratio of 3/4 to 4/3, and is resized to the network's input. Each image gets
            a part of its own, while it is decoded.
        trivial: TrivialAugment (Müller and Hutter 2021), for each image by itself, while it is decoded.
        rand: RandAugment (Cubuk et al. 2020) in its place: (how many operations, their magnitude from 0 to 30).
        erase: the probability that a random part of an image is painted over with the mean colour of the preprocess
            (Zhong et al. 2020), while it is decoded.
        flip: an image is mirrored left-right with probability 1/2.
        shift: an image is moved by up to this many whole pixels in each direction.
        degrees, scale, shear, translate: an affine map turns and slants by up to so many degrees, enlarges or shrinks
            by up to that share, and moves by up to so many pixels.
        elastic: a smooth random displacement of up to so many pixels (Simard et al. 2003).
        mixup: each image of a batch is mixed with another one, and so are their classes. The share of the first is
            drawn from Beta(`mixup`, `mixup`) for the whole batch (Zhang et al. 2018).
        cutmix: a part of another image takes the place of a part of each image. What stays is drawn from
            Beta(`cutmix`, `cutmix`) for the whole batch (Yun et al. 2019). With `mixup`, chance chooses one of both for
            each batch.
    """

    LATER: ClassVar = ("rand", "erase", "mixup", "cutmix")

    crop: tuple[Annotated[float, Field(gt=0, le=1)], Annotated[float, Field(gt=0, le=1)]] | None = None
    trivial: bool = False
    rand: tuple[Annotated[int, Field(ge=1, le=14)], Annotated[int, Field(ge=0, le=30)]] | None = None
    erase: float = Field(default=0.0, ge=0, le=1)
    flip: bool = False
    shift: int = Field(default=0, ge=0)
    degrees: float = Field(default=0.0, ge=0, le=180)
    scale: float = Field(default=0.0, ge=0, lt=1)
    shear: float = Field(default=0.0, ge=0, lt=90)
    translate: float = Field(default=0.0, ge=0)
    elastic: float = Field(default=0.0, ge=0)
    mixup: float = Field(default=0.0, ge=0)
    cutmix: float = Field(default=0.0, ge=0)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.crop is not None and self.crop[0] > self.crop[1]:
            raise ValueError("crop is (least, most) of an image's area")
        if self.trivial and self.rand is not None:
            raise ValueError("trivial and rand are two ways to the same: choose one")
        return self

    @property
    def one_by_one(self) -> bool:
        """Whether something is done to each image by itself, while it is decoded."""
        return self.crop is not None or self.trivial or self.rand is not None or self.erase > 0


class Unfreeze(_Data):
    """Asks for a second stage, in which the whole network is trained."""

    epochs: int = Field(ge=1)
    lr: float = Field(gt=0)


class Stage(_Data):
    """Is a number of epochs in which the same parts are trained, on one schedule.

    Args:
        first: the number of its first epoch; the run's first is 1.
        lr: the peak of the learning rate.
    """

    first: int
    epochs: int
    lr: float
    trainable: str

    @property
    def last(self) -> int:
        """The number of its last epoch."""
        return self.first + self.epochs - 1


class Recipe(_Data):
    """Describes a run with cross-entropy and an optimizer.

    Args:
        name: the built-in recipe that it is, or that it was made from.
        network: more keywords for the constructor of a network that is not built in, with their values.
        start: "fresh" weights, or the "backbone": then all but the head comes from a published checkpoint. If none is
            named, it comes from torchvision's own weights.
        trainable: "all", "head", or the names of the network's parts that are trained, e.g. "layer4,fc".
        held_out: how many samples are taken out of the training set, or which share if below 1. By them the epoch is
            chosen and the temperature fitted.
        lr: the peak of the learning rate.
        lr_continued: the peak if training goes on with a published checkpoint and its head, because a high rate would
            spoil good weights. None: `lr`.
        unfreeze: a second stage; None: there is none.
        schedule: "one_cycle" rises by half a cosine and falls by half a cosine. "cosine" rises in a straight line, and
            falls alike. "constant" rises in a straight line, and stays.
        warm_up: the share of a stage's steps in which the learning rate rises.
        optimizer: "sgd", with Nesterov momentum; "adam" (Kingma and Ba 2015); or "adamw" (Loshchilov and Hutter 2019).
        momentum: of SGD.
        betas: of Adam and AdamW, the decays of the running means of gradients and of their squares.
        weight_decay: applies to the weights of convolutions and linear layers, not to norms and biases. With AdamW it
            is a share of each weight, otherwise a part of the gradient.
        layer_decay: the learning rate of each layer is that of the layer after it, times this (Clark et al. 2020,
            "ELECTRA"). So the first layers, which see what all images have, change least. 1: all layers learn alike.
        drop_path: in training, a block is left out for an image with a probability that rises from 0 in the first block
            to this in the last (Huang et al. 2016, "Stochastic Depth"). None: as the network has it.
        clip: the most that the norm of the gradients may be; None: any.
        ema: the decay of a running mean of the weights, which is then measured and published; 0: there is none.
        patience: the last stage ends if the held-out loss has not fallen for so many epochs. None: it runs to its end.
        publish: the epoch that is "best" on the held-out samples, or the "last".
        balanced: classes are drawn equally often, however uneven they are.
        virtual_ranks: each batch is done in so many shares, which any number of processes up to this may divide among
            them: the weights are the same to the last bit (on a CPU). A norm over a batch then sees a share. With more
            than 1, a process computes in one thread.
        all_reduce: each process does one share of a batch, and sums are taken in whatever order is fast. The weights
            then depend on the number of processes.
        precision: of the forward pass. "auto" is what the device has units for: bf16 or fp16 on a GPU, bf16 on a CPU
            with AMX, else fp32. A manifest says which it was.
        compiled: torch.compile is used.
        seed: of the drawn digits, the first weights, the order of the samples, what is done to them at random, and the
            choice of held-out samples.
    """

    LATER: ClassVar = (
        *("network", "optimizer", "betas", "layer_decay", "drop_path", "patience", "publish"),
        *("virtual_ranks", "all_reduce"),
    )

    name: str = Field(min_length=1)
    source: Source
    architecture: str = Field(min_length=1)
    network: dict[str, JsonValue] = {}
    start: Literal["fresh", "backbone"] = "fresh"
    trainable: str = Field(default="all", min_length=1)
    preprocess: Preprocess
    held_out: Annotated[int, Field(ge=1)] | Annotated[float, Field(gt=0, lt=1)] = 0.05
    epochs: int = Field(ge=1, le=1_000_000)
    batch_size: int = Field(ge=1, le=1_000_000)
    lr: float = Field(gt=0)
    lr_continued: float | None = Field(default=None, gt=0)
    unfreeze: Unfreeze | None = None
    schedule: Literal["one_cycle", "cosine", "constant"] = "one_cycle"
    warm_up: float = Field(default=0.25, ge=0, lt=1)
    optimizer: Literal["sgd", "adam", "adamw"] = "sgd"
    momentum: float = Field(default=_MOMENTUM, ge=0, lt=1)
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = _BETAS
    weight_decay: float = Field(default=5e-4, ge=0, le=1e6)
    layer_decay: float = Field(default=1.0, gt=0, le=1)
    label_smoothing: float = Field(default=0.0, ge=0, lt=1)
    drop_path: float | None = Field(default=None, ge=0, lt=1)
    clip: float | None = Field(default=None, gt=0)
    ema: float = Field(default=0.0, ge=0, lt=1)
    patience: int | None = Field(default=None, ge=1)
    publish: Literal["best", "last"] = "best"
    balanced: bool = False
    virtual_ranks: int = Field(default=1, ge=1)
    all_reduce: bool = False
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    compiled: bool = False
    augment: Augment = Augment()
    seed: int = Field(default=0, ge=0, lt=2**32)

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if isinstance(self.source, StrokesSource) and self.held_out >= self.source.samples:
            raise ValueError(f"held_out ({self.held_out}) leaves nothing of {self.source.samples} samples to train on")
        if self.optimizer == "sgd" and self.betas != _BETAS:
            raise ValueError("betas are of optimizer=adam and adamw; sgd has momentum")
        if self.optimizer != "sgd" and self.momentum != _MOMENTUM:
            raise ValueError(f"momentum is of optimizer=sgd; {self.optimizer} has betas: leave it at {_MOMENTUM}")
        if self.balanced and isinstance(self.source, ShardsSource) and self.source.mixed is not None:
            raise ValueError("balanced draws from all shards at once: leave out source.mixed")
        if self.virtual_ranks > 1:
            self._check_virtual_ranks()
        if self.drop_path is not None and "drop_path_rate" in self.network:
            raise ValueError("drop_path and network.drop_path_rate are the same: set one of them")
        return self

    def _check_virtual_ranks(self) -> None:
        if self.all_reduce:
            raise ValueError("all_reduce has a share for each process: leave out virtual_ranks")
        if 2 * self.virtual_ranks > self.batch_size:
            raise ValueError(
                f"virtual_ranks: {self.virtual_ranks} shares need 2 images each of a batch, and batch_size is "
                f"{self.batch_size}"
            )
        if self.compiled:
            raise ValueError(
                "what torch.compile makes depends on the shapes that it met first: leave out virtual_ranks"
            )

    # No serializer of pydantic's: that would make of Ctrl-C an error of its own.
    def model_dump(self, **options: Any) -> dict[str, Any]:
        """Returns the values, without those of the other optimizers.

        Values that came later are left out where they are as they were before there were any. So recipes and states
        from before are equal to those of now.
        """
        values = self._without_later(super().model_dump(**options))
        values["source"] = self.source._without_later(values["source"])
        values["augment"] = self.augment._without_later(values["augment"])
        if self.optimizer != "sgd":
            del values["momentum"]
        return values

    @property
    def every_value(self) -> dict[str, Any]:
        """All its values as JSON has them, also those that are left out where it is stored."""
        return super().model_dump(mode="json")

    @property
    def stages(self) -> tuple[Stage, ...]:
        """The stages in their order, one or two."""
        first = Stage(first=1, epochs=self.epochs, lr=self.lr, trainable=self.trainable)
        if self.unfreeze is None:
            return (first,)
        second = Stage(first=self.epochs + 1, epochs=self.unfreeze.epochs, lr=self.unfreeze.lr, trainable="all")
        return first, second

    @property
    def spec(self) -> "NetworkSpec":
        """The network that it trains."""
        # Here, not above: it imports torch, and a list of names does without it.
        from training.networks.spec import NetworkSpec

        spec = NetworkSpec.of(self.architecture, self.preprocess, self.network)
        if not spec.is_timm or self.drop_path is None:
            return spec
        # timm makes networks without what leaves out blocks, unless it is told so.
        options = self.network | {"drop_path_rate": self.drop_path}
        return NetworkSpec.of(self.architecture, self.preprocess, options)

    @property
    def all_epochs(self) -> int:
        """How many epochs all stages have together."""
        return self.stages[-1].last

    def replace(self, **changes: Any) -> Self:
        """Returns this recipe with some fields replaced, and checked again.

        Raises: TrainingError, which names the field that is out of range.
        """
        return self.checked(self.model_dump() | changes)

    @classmethod
    def checked(cls, values: dict[str, Any]) -> Self:
        """Makes a recipe of these values. Raises: TrainingError, which names the field that is out of range."""
        try:
            return cls.model_validate(values)
        except ValidationError as error:
            raise TrainingError(in_words(error.errors()[0])) from error


def in_words(problem: ErrorDetails) -> str:
    """Says which field is wrong, and why, in one line."""
    field = ".".join(str(part) for part in problem["loc"] if "constrained" not in str(part) and "[" not in str(part))
    if problem["type"] == "extra_forbidden":
        return f"{field or 'recipe'}: a recipe has no such value"
    if isinstance(problem["input"], dict):  # what is wrong is that its values do not go together
        return f"{field or 'recipe'}: {problem['msg']}"
    return f"{field or 'recipe'}: {problem['msg']}, not {problem['input']!r}"
