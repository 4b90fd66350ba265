"""Reads which samples lie in a shard, a tar file as WebDataset writes it, and where: its headers, and no image."""

import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from classifier.image_files.names import is_photo
from training.data.folder_names import composed, is_utf8, shown
from training.data.raw_dataset import Member
from training.errors import TrainingError, type_and_line

_MOST_LABEL = 256  # bytes


@dataclass(frozen=True, slots=True)
class Sample:
    """Is an image in a shard, and what its `.cls` file says."""

    image: Member
    label: str


def samples_in(path: Path, called: str) -> tuple[list[Sample], int]:
    """Returns the samples of a shard, by name, and how many files of a class have no image.

    Args:
        called: what the shard is called in messages.

    Raises: TrainingError, with the shard and the sample that is wrong.
    """
    images: dict[str, Member] = {}
    labels: dict[str, str] = {}
    for member in _members(path, called):
        folder, _, name = member.name.rpartition("/")
        key, _, ending = name.partition(".")
        if is_photo(name):
            if f"{folder}/{key}" in images:
                raise TrainingError(f"{called}: {shown(member.name)} is a second image of the same sample")
            images[f"{folder}/{key}"] = member
        elif ending == "cls":
            labels[f"{folder}/{key}"] = _label(member, called)
    if not images:
        raise TrainingError(f"{called} holds no image: leave the shard out")
    if missing := next((image for key, image in images.items() if key not in labels), None):
        name = shown(missing.name)
        raise TrainingError(f"{called}: {name} has no class: a file of the same name that ends in .cls is expected")
    samples = sorted((Sample(image, labels[key]) for key, image in images.items()), key=lambda each: each.image.name)
    return samples, len(labels.keys() - images.keys())


def _members(path: Path, called: str) -> list[Member]:
    """Returns the files in an archive. Raises: TrainingError if it is none, or not whole."""
    members: list[Member] = []
    try:
        size = path.stat().st_size
        with tarfile.open(path, "r:") as archive:  # not compressed: a place in it can be found again
            for info in archive:
                _check(info, called, size, members)
                if info.isreg():
                    members.append(Member(path, info.name, info.offset_data, info.size))
            end = archive.offset
        with path.open("rb") as file:
            file.seek(end)
            last = file.read(tarfile.BLOCKSIZE)
    except TrainingError:
        raise
    except OSError as error:
        raise TrainingError(f"{called}: {error.strerror or error}") from error
    except Exception as error:  # whatever tarfile raises on damaged or hostile headers
        raise TrainingError(f"{called} {_why_no_shard(path, error)}") from error
    if len(last) < tarfile.BLOCKSIZE:
        raise TrainingError(f"{called} was cut off: it has no end")
    if any(last):  # tarfile takes a damaged header for the end
        raise TrainingError(f"{called} is damaged at byte {end:,}")
    return members


def _check(info: tarfile.TarInfo, called: str, size: int, before: Sequence[Member]) -> None:
    """Checks that an entry of an archive is one that can be read from its place. Raises: TrainingError."""
    name = f"{called}: {shown(info.name)}"
    # A negative size leads back: tarfile would go round for ever.
    if info.size < 0 or (before and info.offset_data <= before[-1].offset):
        raise TrainingError(f"{name} has a header that is damaged")
    if info.issparse():
        raise TrainingError(f"{name} is stored with its holes left out: write the shard without --sparse")
    if info.isreg() and info.offset_data + info.size > size:
        raise TrainingError(f"{called} was cut off: its last file is not whole")
    if (info.islnk() or info.issym()) and (is_photo(info.name) or info.name.endswith(".cls")):
        raise TrainingError(
            f"{name} is a link: write the shard with the files themselves, e.g. tar --dereference --hard-dereference"
        )


def _label(member: Member, called: str) -> str:
    if member.size > _MOST_LABEL:
        raise TrainingError(f"{called}: {shown(member.name)} has {member.size:,} bytes, which is no class")
    text = member.read_bytes().decode("utf-8", "surrogateescape").strip()
    if not text or not is_utf8(text) or not text.isprintable():
        raise TrainingError(f"{called}: {shown(member.name)} holds no class: a number or a word is expected")
    return composed(text)


def _why_no_shard(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        start = file.read(6)
    if start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        return "is compressed: unpack it first, e.g. by gunzip; images do not become smaller by it"
    if "unexpected end" in str(error):
        return "was cut off: its last file is not whole"
    return f"is no tar file, or is damaged: {type_and_line(error)}"
