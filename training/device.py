"""Finds the device that a person names, and says in one line when it is not there."""

import torch

from classifier.device import select_device
from training.errors import TrainingError


def device_named(name: str) -> torch.device:
    """Returns what `classifier.device.select_device` returns. Raises: TrainingError if there is no such device."""
    try:
        return select_device(name)
    except ValueError as error:
        raise TrainingError(str(error)) from error
