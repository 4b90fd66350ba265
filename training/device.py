"""The device that a person names, in words for people where it is not there."""

import torch

from classifier.device import choose
from training.errors import TrainingError


def device_named(name: str) -> torch.device:
    """`classifier.device.choose`, for people. Raises: TrainingError if there is no such device."""
    try:
        return choose(name)
    except ValueError as error:
        raise TrainingError(str(error)) from error
