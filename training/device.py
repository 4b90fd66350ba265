"""Finds the device that a person names, and says in one line when it is not there."""

import torch

from classifier.device import select_device
from training.errors import TrainingError
from training.process_group import ALONE, ProcessGroup


def device_named(name: str, group: ProcessGroup = ALONE) -> torch.device:
    """Returns what `classifier.device.select_device` returns, which is a GPU of its own for each process of a machine.

    Raises: TrainingError if there is no such device.
    """
    try:
        device = select_device(name)
        if group.local_size > 1 and device.index is not None:
            raise TrainingError(f"--device {name} is one for {group.local_size} processes: say --device {device.type}")
        if group.local_size > 1 and device.type == "cuda" and device.index is None:
            device = select_device(f"cuda:{group.local_rank}")
            torch.cuda.set_device(device)  # NCCL goes by it
        return device
    except ValueError as error:
        raise TrainingError(str(error)) from error
