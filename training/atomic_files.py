"""Writes files that are there whole or not at all: under another name first, forced to the disk, then renamed."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

import torch


@contextmanager
def temporary(path: Path) -> Iterator[Path]:
    """Gives a temporary path beside `path`, whose folder is made if it is missing.

    What still lies at the temporary path at the end is removed.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.parent / f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp"
    try:
        yield beside
    finally:
        beside.unlink(missing_ok=True)


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """Gives a file to write to, whose content `path` holds afterwards.

    Until the end, and if the writing is cut off, `path` holds what it held before.

    Raises: OSError.
    """
    with temporary(path) as beside:
        with beside.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
        sync_folder(path.parent)


def replace(path: Path, data: bytes) -> None:
    """Makes `data` the content of `path`. Raises: OSError."""
    with atomic_write(path) as file:
        file.write(data)


def save(path: Path, content: dict[str, Any]) -> None:
    """Writes `content` to `path`, for `torch.load(weights_only=True)` to read. Raises: OSError."""
    with atomic_write(path) as file:
        save_to(file, content)


def save_to(file: BinaryIO, content: dict[str, Any]) -> None:
    """Writes `content` to an open file, as `save` does, and leaves nothing in its buffer. Raises: OSError."""
    try:
        torch.save(content, file)
    except RuntimeError as error:  # torch's words for a file that cannot be written to
        raise error.__context__ if isinstance(error.__context__, OSError) else error from None
    file.flush()


def sync_folder(folder: Path) -> None:
    """Waits until the folder's entries are on the disk: an fsync of a file does not cover its name. Raises: OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
