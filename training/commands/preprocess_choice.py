"""Chooses how the images of imported weights are prepared, and says what of it had to be guessed."""

from collections.abc import Callable, Sequence

from classifier.preprocess import Preprocess
from training.errors import TrainingError
from training.recipes.builtin import usual_preprocess
from training.recipes.overrides import preprocess_with

_GUESSED = ("mode", "resize", "crop", "mean", "std", "interpolation", "background")


def chosen_preprocess(
    architecture: str,
    *,
    named: Preprocess | None,
    said: Preprocess | None,
    settings: Sequence[str],
    note: Callable[[str], None],
    usual: Preprocess | None = None,
) -> Preprocess:
    """Returns the preprocess that a person named, else the one that the file says, else a guess; with the settings.

    Args:
        architecture: its name, or what else the guess goes by.
        named: what the person named as a whole.
        said: what the file, or what lies beside it, says.
        settings: changes of the form `preprocess.key=value`.
        note: is told what was guessed.
        usual: the guess; None: what is usual for the architecture.

    Raises: TrainingError if a setting makes no sense, or if images would be smaller than what is cut out of them.
    """
    base = named or said or usual or usual_preprocess(architecture)
    preprocess = preprocess_with(base, settings)
    crop, resize = preprocess.crop, preprocess.resize
    told = {setting.partition("=")[0].strip().removeprefix("preprocess.") for setting in settings}
    if "resize" in told and "crop" not in told and crop is not None and isinstance(resize, int) and resize < max(crop):
        raise TrainingError(
            f"--set preprocess.resize={resize}: the crop of {crop[0]}x{crop[1]} would put a black frame around each "
            f"image: name it too, e.g. --set preprocess.crop=[{resize},{resize}]"
        )
    if base not in (named, said):
        guessed = {name: value for name, value in preprocess.model_dump(mode="json").items() if name not in told}
        values = ", ".join(f"{name}={guessed[name]}" for name in _GUESSED if guessed.get(name) is not None)
        if values:
            note(
                f"does not say how its images were prepared. Guessed, as is usual for {architecture}: {values}. "
                "--set preprocess.KEY=VALUE or --preprocess-from CHECKPOINT says it"
            )
    return preprocess
