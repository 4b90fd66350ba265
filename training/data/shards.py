"""Reads photos that lie in tar files, as WebDataset writes them.

A sample is an image and a file of its class, side by side: `00123.jpg` and `00123.cls`. The headers of an archive are
read once, and tell where its files lie. Then each image is read from its place, as a file of its own would be. So the
samples come in any order, and a data set may be larger than memory.
"""

import glob
import itertools
import os
import re
import tarfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from training.data.folder_names import Role, composed, is_utf8, of_all, role_in, role_of, shown
from training.data.folder_tree import is_photo
from training.data.labelled_files import LabelledFiles, Reading
from training.data.raw_dataset import Member, RawDataset
from training.errors import TrainingError, type_and_line
from training.recipes.recipe import Recipe, ShardsSource

_MOST_SHARDS = 1_000_000
_MOST_LABEL = 256  # bytes
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


@dataclass(frozen=True, slots=True)
class _Sample:
    image: Member
    label: str


def load(source: ShardsSource, recipe: Recipe, pattern: Path, reading: Reading) -> RawDataset:
    """Returns the photos of shards that can be used. Every image is scanned first.

    Args:
        pattern: the tar files, as `paths_of` reads it. They are splits, if all are called so.

    Raises:
        TrainingError: a file is no sound shard, a sample has no class, or there are too few photos.
        OSError: the results of the scan cannot be kept.
    """
    paths = paths_of(pattern)
    folder = Path(os.path.commonpath([path.parent for path in paths]))
    splits: dict[Role, dict[str, str]] = {"train": {}, "val": {}, "test": {}}
    members: dict[str, Member] = {}
    lonely, measure, progress = 0, reading.measure, reading.progress
    with progress.step(f"reading {len(paths):,} shards", total=len(paths), unit="shards") as advance:
        # By path, for what is held out is chosen by place: the order of a pattern must not matter.
        for path, role in sorted(zip(paths, _roles(paths), strict=True)):
            where = path.relative_to(folder).as_posix()
            samples, without_image = _samples(path)
            for sample in samples:
                name = f"{where}/{sample.image.name}"
                splits[role][name], members[name] = sample.label, sample.image
            lonely += without_image
            advance(1)
    if lonely:
        progress.say(f"left out: {lonely:,} files of a class without an image")
    if not splits["train"] or (measure == "test" and not splits["test"]):
        missing = "test" if splits["train"] else "train"
        raise TrainingError(f"{pattern} has no shards that are called like {missing}")
    if measure == "test":
        progress.say("measured on: the shards that are called like test")
    elif splits["test"]:
        progress.say(f"left out: {len(splits['test']):,} samples in shards that are called like test")
    files = LabelledFiles.of_splits(
        folder,
        splits,
        measure,
        name="the shards",
        train="the shards for training",
        measured=f"the shards for {measure}",
        members=members,
    )
    return files.load(recipe, reading, test_share=source.test_share)


def paths_of(pattern: Path) -> list[Path]:
    """Returns the files that a pattern means, in its order.

    `{000..099}` stands for each number, with as many digits; `{train,val}` for each word; `*`, `?` and `[...]` for what
    is there.

    Raises: TrainingError if one of them is not there.
    """
    paths: list[Path] = []
    for text in itertools.islice(_expanded(str(pattern)), _MOST_SHARDS + 1):
        found = sorted(glob.glob(text)) if glob.has_magic(text) else [text]  # noqa: PTH207  it may begin at any folder
        if not found or not Path(found[0]).is_file():
            raise TrainingError(f"{text}: there is no such shard (of {pattern}); put the pattern into quotes")
        paths += map(Path, found)
    if len(paths) > _MOST_SHARDS:
        raise TrainingError(f"{pattern} means more than {_MOST_SHARDS:,} shards")
    if not paths:
        raise TrainingError(f"{pattern} means no shard: is the first number larger than the last?")
    return list(dict.fromkeys(path.absolute() for path in paths))


def _expanded(text: str) -> Iterator[str]:
    braces = _BRACES.search(text)
    if braces is None:
        yield text
        return
    before, after = text[: braces.start()], text[braces.end() :]
    numbers = _RANGE.fullmatch(braces[1])
    if numbers:
        first, last = int(numbers[1]), int(numbers[2])
        words: Iterator[str] = (str(each).zfill(len(numbers[1])) for each in range(first, last + 1))
    else:
        words = iter(braces[1].split(","))
    for word in words:
        yield from _expanded(f"{before}{word}{after}")


def _roles(paths: Sequence[Path]) -> list[Role]:
    """Returns the splits that the files or their folders are called like, if all are; otherwise all are to train on."""
    named = [(role_in(path.stem), path.parent.name) for path in paths]
    return of_all([role_of(folder) if found is None else found[0] for found, folder in named])


def _samples(path: Path) -> tuple[list[_Sample], int]:
    """Returns the samples of a shard, by name, and how many files of a class have no image.

    Raises: TrainingError, with the file and the sample that is wrong.
    """
    images: dict[str, Member] = {}
    labels: dict[str, str] = {}
    for member in _members(path):
        folder, _, name = member.name.rpartition("/")
        key, _, ending = name.partition(".")
        if is_photo(name):
            if f"{folder}/{key}" in images:
                raise TrainingError(f"{path}: {shown(member.name)} is a second image of the same sample")
            images[f"{folder}/{key}"] = member
        elif ending == "cls":
            labels[f"{folder}/{key}"] = _label(member)
    if not images:
        raise TrainingError(f"{path} holds no image: leave the shard out")
    if missing := next((key for key in images if key not in labels), None):
        raise TrainingError(
            f"{path}: {shown(images[missing].name)} has no class: a file of the same name that ends in .cls is expected"
        )
    samples = sorted((_Sample(image, labels[key]) for key, image in images.items()), key=lambda each: each.image.name)
    return samples, len(labels.keys() - images.keys())


def _members(path: Path) -> list[Member]:
    """Returns the files in an archive. Raises: TrainingError if it is none, or not whole."""
    members: list[Member] = []
    try:
        size = path.stat().st_size
        with tarfile.open(path, "r:") as archive:  # not compressed: a place in it can be found again
            for info in archive:
                _check(info, path, size, members)
                if info.isreg():
                    members.append(Member(path, info.name, info.offset_data, info.size))
            end = archive.offset
        with path.open("rb") as file:
            file.seek(end)
            last = file.read(tarfile.BLOCKSIZE)
    except TrainingError:
        raise
    except OSError as error:
        raise TrainingError(f"{path}: {error.strerror or error}") from error
    except Exception as error:  # whatever tarfile raises on damaged or hostile headers
        raise TrainingError(f"{path} {_why_no_shard(path, error)}") from error
    if len(last) < tarfile.BLOCKSIZE:
        raise TrainingError(f"{path} was cut off: it has no end")
    if any(last):  # tarfile takes a damaged header for the end
        raise TrainingError(f"{path} is damaged at byte {end:,}")
    return members


def _check(info: tarfile.TarInfo, path: Path, size: int, before: Sequence[Member]) -> None:
    """Checks that an entry of an archive is one that can be read from its place. Raises: TrainingError."""
    name = f"{path}: {shown(info.name)}"
    # A negative size leads back: tarfile would go round for ever.
    if info.size < 0 or (before and info.offset_data <= before[-1].offset):
        raise TrainingError(f"{name} has a header that is damaged")
    if info.issparse():
        raise TrainingError(f"{name} is stored with its holes left out: write the shard without --sparse")
    if info.isreg() and info.offset_data + info.size > size:
        raise TrainingError(f"{path} was cut off: its last file is not whole")
    if (info.islnk() or info.issym()) and (is_photo(info.name) or info.name.endswith(".cls")):
        raise TrainingError(
            f"{name} is a link: write the shard with the files themselves, e.g. tar --dereference --hard-dereference"
        )


def _label(member: Member) -> str:
    if member.size > _MOST_LABEL:
        raise TrainingError(f"{member} has {member.size:,} bytes, which is no class")
    text = member.read_bytes().decode("utf-8", "surrogateescape").strip()
    if not text or not is_utf8(text) or not text.isprintable():
        raise TrainingError(f"{shown(str(member))} holds no class: a number or a word is expected")
    return composed(text)


def _why_no_shard(path: Path, error: Exception) -> str:
    with path.open("rb") as file:
        start = file.read(6)
    if start.startswith((b"\x1f\x8b", b"BZh", b"\xfd7zXZ", b"\x28\xb5\x2f\xfd")):
        return "is compressed: unpack it first, e.g. by gunzip; images do not become smaller by it"
    if "unexpected end" in str(error):
        return "was cut off: its last file is not whole"
    return f"is no tar file, or is damaged: {type_and_line(error)}"
