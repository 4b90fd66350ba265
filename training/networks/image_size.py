"""Says that a network cannot take the images that a preprocess makes."""

from classifier.preprocess import Preprocess
from training.errors import TrainingError

# Whatever a layer raises for images of a wrong size or mode.
SIZE_ERRORS = (RuntimeError, ValueError, AssertionError)


def cannot_take(architecture: str, preprocess: Preprocess, error: Exception) -> TrainingError:
    """Returns the error for the person, made of what a layer raised."""
    size = "x".join(map(str, preprocess.shape))
    reason = " ".join(str(error).split())[:200]
    return TrainingError(
        f"{architecture} cannot take images of {size} ({reason}); change the preprocess or the architecture"
    )
