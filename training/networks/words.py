"""Puts names and values of foreign files into messages: short, printable, and on one line."""

import reprlib
from collections.abc import Iterable
from typing import Any

import torch


class _Short(reprlib.Repr):
    """Never follows a value deep, however large it is, and asks only plain values for their text."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel, self.maxstring = 2, 60

    def repr_instance(self, x: Any, level: int) -> str:
        return super().repr_instance(x, level) if isinstance(x, _PLAIN) else f"<{type(x).__name__}>"


_PLAIN = (bool, float, complex, type(None))
_REPR = _Short()


def in_words(value: Any) -> str:
    """Returns the type of a value, and the beginning of what it holds."""
    if isinstance(value, torch.Tensor):
        return f"a tensor of {list(value.shape)}, {value.layout} on {value.device}"
    return f"{type(value).__name__} {' '.join(_REPR.repr(value).split())[:60]}"


def listed(names: Iterable[Any], *, most: int = 5) -> str:
    """Returns the first names in quotes, and three dots if there are more."""
    every = list(names)
    return ", ".join(map(_REPR.repr, every[:most])) + (", …" if len(every) > most else "")
