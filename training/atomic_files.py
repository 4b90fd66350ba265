"""Files that are there whole or not at all: written beside, forced to the disk, then renamed."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch


@contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """A temporary path in `path`'s folder (made if need be); whatever is left there at the end is removed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.parent / f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    try:
        yield beside
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """`path` holds what was written afterwards; until then, and if this is cut off, what it held before."""
    with temporary(path) as beside:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)


def replace(path: Path, data: bytes) -> None:
    """`path` holds `data` afterwards."""
    with atomic_write(path) as file:
        file.write(data)


def save(path: Path, content: dict[str, Any]) -> None:
    """`path` holds afterwards what `torch.load(weights_only=True)` reads as `content`."""
    with atomic_write(path) as file:
        try:
            torch.save(content, file)
        except RuntimeError as error:  # torch's words for a file that cannot be written to
            raise error.__context__ if isinstance(error.__context__, OSError) else error from None


def sync_folder(folder: Path) -> None:
    """Waits until the folder's entries are on the disk: a file's own fsync does not cover its name."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
