"""Makes networks of a person's own code: `my_net.py:Net`, or `package.module:factory`.

The constructor is called with those of these keywords that its signature has: `num_classes`, `in_channels`,
`image_size` (an int if the images are square, else (height, width)); and with the options that were set.
"""

import importlib
import importlib.util
import inspect
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

from torch import nn

from training.errors import TrainingError


def build(architecture: str, num_classes: int, shape: tuple[int, int, int], options: dict[str, Any]) -> nn.Module:
    """Returns the network with fresh weights.

    Args:
        architecture: a file or a module, a colon, and the name of a class or function in it.
        shape: (channels, height, width).
        options: more keywords, with their values.

    Raises: TrainingError, which says what is wrong with the code, and where.
    """
    factory = _factory(architecture)
    channels, height, width = shape
    known = {
        "num_classes": num_classes,
        "in_channels": channels,
        "image_size": height if height == width else (height, width),
    }
    takes = inspect.signature(factory).parameters
    network = factory(**{name: value for name, value in known.items() if name in takes}, **options)
    if not isinstance(network, nn.Module):
        raise TrainingError(f"{architecture} makes a {type(network).__name__}, where a torch.nn.Module is expected")
    return network


@cache
def _factory(architecture: str) -> Callable[..., Any]:
    where, _, name = architecture.rpartition(":")
    module = _module_in(Path(where)) if where.endswith(".py") else importlib.import_module(where)
    factory = getattr(module, name, None)
    if not callable(factory):
        raise TrainingError(f"{where} has no class or function {name!r}")
    found: Callable[..., Any] = factory
    return found


def _module_in(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None or not path.is_file():
        raise TrainingError(f"{path}: no such file")
    module = importlib.util.module_from_spec(spec)
    sys.path.insert(0, str(path.parent))
    try:
        spec.loader.exec_module(module)
    finally:
        sys.path.remove(str(path.parent))
    return module
