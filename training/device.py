"""The device that a person names, in words for people where it is not there."""

import torch

from classifier.device import select_device
from training.errors import TrainingError


def device_named(name: str) -> torch.device:
    """`classifier.device.select_device`, for people. Raises: TrainingError if there is no such device."""
    try:
        return select_device(name)
    except ValueError as error:
        raise TrainingError(str(error)) from error
