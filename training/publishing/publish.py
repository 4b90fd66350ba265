"""Does the last step of training: gives a Checkpoint the next free version in the store, whole or not at all."""

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
    """Writes the checkpoint as the next version of the model that its manifest names, and returns the version's path.

    The file is written under a hidden name, forced to the disk, and linked to the next free number. If somebody else
    took that number meanwhile, the link fails and the next number is tried. Where links are not supported, a number is
    first claimed: `.<version>.claimed` is created exclusively, and the file is renamed under that claim.

    A publisher that ends early leaves no version, only a hidden file that no reader looks at. A claim that is left
    behind costs its number, and nothing else.

    Raises:
        CheckpointError: nobody could load the checkpoint.
        OSError: the store cannot be written to.
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
    """Checks that a model may have this name. Raises: TrainingError if not."""
    if not re.fullmatch(MODEL_NAME, model):
        raise TrainingError(f"--name {model!r}: 1 to 64 of a-z, 0-9, '.', '_' and '-', the first a letter or digit")


def versions(folder: Path) -> list[int]:
    """Returns the versions in a model's folder, the highest first, whether they are sound or not. Raises: OSError."""
    matches = (re.fullmatch(VERSION_FILE, path.name) for path in folder.iterdir())
    return sorted((int(match[1]) for match in matches if match), reverse=True)


def path_of(folder: Path, version: int) -> Path:
    """Returns the path of a version in its model's folder."""
    return folder / f"{version}.safetensors"


def _place(temporary: Path, folder: Path, version: int) -> bool:
    """Puts the file at its version. Returns False if the version is taken."""
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
