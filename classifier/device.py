"""Finds the device to compute on by its name, for both sides."""

import torch


def select_device(name: str) -> torch.device:
    """Returns the device of that name, such as "cuda", "cuda:1", "mps" or "cpu".

    Args:
        name: "auto" means the first that this machine has of cuda, mps and cpu.

    Raises: ValueError if there is no such device; the message says which ones there are.
    """
    present = _present()
    if name == "auto":
        return torch.device(present[0])
    try:
        device = torch.device(name)
        known = device.type in present and (device.index or 0) < _count(device.type)
    except RuntimeError:
        known = False
    if not known:
        raise ValueError(f"no device {name!r}; here are {', '.join(present)} (or auto, the first of them)")
    return device


def _present() -> list[str]:
    cuda = ["cuda"] if torch.cuda.is_available() else []
    mps = ["mps"] if torch.backends.mps.is_available() else []
    return [*cuda, *mps, "cpu"]


def _count(kind: str) -> int:
    return torch.cuda.device_count() if kind == "cuda" else 1
