"""Imports parts of torchvision when they are needed: that takes a second, and may fail. Imports no torch itself."""

from importlib import import_module
from typing import Any


class TorchvisionError(ImportError):
    """The installed torchvision cannot be imported; the message says in one line what to install."""


def torchvision_part(name: str) -> Any:
    """Returns the module `torchvision.<name>`, such as "models".

    Raises: TorchvisionError if torchvision is not there or does not fit the installed torch.
    """
    try:
        return import_module(f"torchvision.{name}")
    except (RuntimeError, ImportError) as error:  # torch raises RuntimeError for operators that it does not know
        raise TorchvisionError(
            f"torchvision does not fit the installed torch ({error}). "
            "Each torchvision needs the torch it was built for; a pair that works: "
            "pip install torch==2.15.0 torchvision==0.29.2"
        ) from error
