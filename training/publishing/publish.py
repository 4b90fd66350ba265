"""The last step of training: a Checkpoint gets the next free version in the store, whole or not at all."""

import errno
import os
import re
from pathlib import Path

from classifier.checkpoint import Checkpoint
from classifier.manifest import MODEL_NAME, VERSION_FILE
from training import atomic_files
from training.errors import TrainingError

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def publish(checkpoint: Checkpoint, store: Path) -> Path:
    """Writes it as the next version of the model its manifest names, and returns where.

    The file is written beside, forced to the disk and linked to the next free number, which fails if somebody else took
    that number meanwhile: then the next is tried. Where links are not supported, a number is first claimed by creating
    `.<version>.claimed` exclusively, and the file renamed under that claim. Whatever ends it early leaves no version,
    only a hidden file that no reader looks at (a claim left behind only costs its number).

    Raises: CheckpointError if nobody could load it; OSError.
    """
    folder = store / checkpoint.manifest.model
    with atomic_files.temporary(folder / "publishing") as temporary:
        checkpoint.save(temporary)
        version = max(versions(folder), default=0) + 1
        while not _place(temporary, folder, version):
            version += 1
    atomic_files.sync_folder(folder)
    return path_of(folder, version)


def check_name(model: str) -> None:
    """Raises: TrainingError if no model can be called so."""
    if not re.fullmatch(MODEL_NAME, model):
        raise TrainingError(f"--name {model!r}: 1 to 64 of a-z, 0-9, '.', '_' and '-', the first a letter or digit")


def versions(folder: Path) -> list[int]:
    """The versions in a model's folder, highest first, sound or not."""
    matches = (re.fullmatch(VERSION_FILE, path.name) for path in folder.iterdir())
    return sorted((int(match[1]) for match in matches if match), reverse=True)


def path_of(folder: Path, version: int) -> Path:
    return folder / f"{version}.safetensors"


def _place(temporary: Path, folder: Path, version: int) -> bool:
    """False if the version is taken."""
    try:
        os.link(temporary, path_of(folder, version))
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _place_without_links(temporary, folder, version)
    return True


def _place_without_links(temporary: Path, folder: Path, version: int) -> bool:
    claim = folder / f".{version}.claimed"
    try:
        claim.touch(exist_ok=False)
    except FileExistsError:
        return False
    try:
        final = path_of(folder, version)
        if final.exists():
            return False
        temporary.rename(final)
        return True
    finally:
        claim.unlink(missing_ok=True)
