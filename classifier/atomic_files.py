"""Writes files that are there whole or not at all: under another name first, forced to the disk, then renamed.

Imports no torch.
"""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO


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


def sync_folder(folder: Path) -> None:
    """Waits until the folder's entries are on the disk: an fsync of a file does not cover its name. Raises: OSError."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
