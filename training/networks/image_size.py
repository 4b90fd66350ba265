"""Says that a network cannot take the images that a preprocess makes."""

from classifier.preprocess import Preprocess
from training.errors import TrainingError, one_line

# Whatever a layer raises for images of a wrong size or mode.
SIZE_ERRORS = (RuntimeError, ValueError, AssertionError)


def cannot_take(architecture: str, preprocess: Preprocess, error: Exception) -> TrainingError:
    """Returns the error for the person, made of what a layer raised."""
    size = "x".join(map(str, preprocess.shape))
    return TrainingError(
        f"{architecture} cannot take images of {size} ({one_line(error)}); change the preprocess or the architecture"
    )
