"""Does the last step of training: gives a Checkpoint the next free version in the store, whole or not at all."""

import errno
import os
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from classifier import atomic_files
from classifier.checkpoint import Checkpoint
from classifier.manifest import MODEL_NAME, VERSION_FILE
from classifier.store.remote import RemoteStore
from training.errors import TrainingError
from training.publishing.fetched import fetched
from training.publishing.open_checkpoint import header_of

# A store, or a version in it: a path of a folder, or a URL.
Address = TypeVar("Address", Path, str)

_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK}


def publish(checkpoint: Checkpoint, store: Address) -> Address:
    """Writes the checkpoint as the next version of the model that its manifest names.

    Returns the version's path, or its URL if the store is one.

    In a folder, the file is written under a hidden name, forced to the disk, and linked to the next free number. If
    somebody else took that number meanwhile, the link fails and the next number is tried. Where links are not
    supported, a number is first claimed: `.<version>.claimed` is created exclusively, and the file is renamed under
    that claim.

    A publisher that ends early leaves no version, only a hidden file that no reader looks at. A claim that is left
    behind costs its number, and nothing else.

    Behind a URL, the object is made by a conditional put, which fails if there is one of that number.

    Raises:
        CheckpointError: nobody could load the checkpoint.
        OSError: the store cannot be written to.
    """
    if isinstance(store, str):
        return _publish_remotely(checkpoint, RemoteStore(store))
    folder = store / checkpoint.manifest.model
    with atomic_files.temporary(folder / "publishing") as temporary:
        checkpoint.save(temporary)
        version = max(versions(folder), default=0) + 1
        while not _place(temporary, folder, version):
            version += 1
    atomic_files.sync_folder(folder)
    return path_of(folder, version)


def published_already(checkpoint: Checkpoint, store: Address) -> Address | None:
    """Returns the newest version of the model, if it is this checkpoint but for when and on what it was made.

    Raises: OSError if the store cannot be read.
    """
    manifest = checkpoint.manifest
    try:
        address = _newest(store, manifest.model)
        with fetched(address) as path:
            found = header_of(path).manifest
    except (FileNotFoundError, TrainingError):  # there is none yet, or it is damaged
        return None
    if found.provenance is None or manifest.provenance is None:
        return None
    # Processes that come back may be others, and on another device.
    theirs = {"created": found.provenance.created, "device": found.provenance.device}
    made = manifest.provenance.model_copy(update=theirs)
    if found != manifest.model_copy(update={"provenance": made}):
        return None
    return address


def _newest(store: Address, model: str) -> Address:
    """Returns the newest version of a model. Raises: FileNotFoundError if there is none; OSError."""
    if isinstance(store, str):
        remote = RemoteStore(store)
        return remote.url_of(model, file_name(_highest(remote_versions(remote, model))))
    return path_of(store / model, _highest(versions(store / model)))


def _highest(numbers: list[int]) -> int:
    if not numbers:
        raise FileNotFoundError
    return max(numbers)


def check_name(model: str) -> None:
    """Checks that a model may have this name. Raises: TrainingError if not."""
    if not re.fullmatch(MODEL_NAME, model):
        raise TrainingError(f"--name {model!r}: 1 to 64 of a-z, 0-9, '.', '_' and '-', the first a letter or digit")


def check_reachable(store: Path | str, model: str) -> None:
    """Checks that the model can be published there, before it is trained. Raises: OSError."""
    if isinstance(store, Path):
        store.mkdir(parents=True, exist_ok=True)
        return
    remote = RemoteStore(store)
    try:
        remote_versions(remote, model)
    except FileNotFoundError:
        remote.check_bucket()


def versions(folder: Path) -> list[int]:
    """Returns the versions in a model's folder, the highest first, whether they are sound or not. Raises: OSError."""
    return _numbers(path.name for path in folder.iterdir())


def remote_versions(store: RemoteStore, model: str) -> list[int]:
    """Returns the versions of a model behind a URL, as `versions` does. Raises: FileNotFoundError; StoreError."""
    return _numbers(entry.name for entry in store.entries(model) if not entry.is_folder)


def path_of(folder: Path, version: int) -> Path:
    """Returns the path of a version in its model's folder."""
    return folder / file_name(version)


def file_name(version: int) -> str:
    """Returns the name of a version's file."""
    return f"{version}.safetensors"


def _numbers(names: Iterable[str]) -> list[int]:
    matches = (re.fullmatch(VERSION_FILE, name) for name in names)
    return sorted((int(match[1]) for match in matches if match), reverse=True)


def _publish_remotely(checkpoint: Checkpoint, store: RemoteStore) -> str:
    model = checkpoint.manifest.model
    with tempfile.TemporaryDirectory(prefix="flambeau-") as folder:
        file = Path(folder) / "checkpoint.safetensors"
        checkpoint.save(file)
        try:
            version = max(remote_versions(store, model), default=0) + 1
        except FileNotFoundError:
            version = 1
        while True:
            try:
                store.create(model, file_name(version), content=file)
            except FileExistsError:
                version += 1
            else:
                return store.url_of(model, file_name(version))


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
