"""Writes files of tensors for `torch.load(weights_only=True)`, whole or not at all."""

from pathlib import Path
from typing import Any, BinaryIO

import torch

from classifier.atomic_files import atomic_write


def save(path: Path, content: dict[str, Any]) -> None:
    """Writes `content` to `path`, for `torch.load(weights_only=True)` to read. Raises: OSError."""
    with atomic_write(path) as file:
        save_to(file, content)


def save_to(file: BinaryIO, content: dict[str, Any]) -> None:
    """Writes `content` to an open file, as `save` does, and leaves nothing in its buffer. Raises: OSError."""
    try:
        torch.save(content, file)
    except RuntimeError as error:  # torch's words for what came up while it wrote: a full disk, or Ctrl-C
        raise error.__context__ if isinstance(error.__context__, OSError | KeyboardInterrupt) else error from None
    file.flush()
