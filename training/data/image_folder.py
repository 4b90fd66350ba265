"""Reads a folder of photos in ImageFolder layout: a folder for each class, or train/ and val/ with these in both."""

import hashlib
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image

from classifier.preprocess import ImageError, Preprocess
from training.data import stratified
from training.data.file_scan import FileRecord, scan_files
from training.data.raw_dataset import RawDataset
from training.errors import TrainingError
from training.progress import Progress
from training.recipes.recipe import PhotosSource, Recipe

_SUFFIXES = {".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif"}
_LAYOUT = "put the photos of each class into a folder of its own, which has the class's name"
_SHOWN = 5  # files that are named where many are meant
_THIN = 64  # how many times as long as high an image must be before a preprocess may refuse it


def load(
    source: PhotosSource,
    recipe: Recipe,
    folder: Path,
    *,
    scratch: Path,
    threads: int,
    strict: bool,
    progress: Progress,
) -> RawDataset:
    """Returns the photos that can be used. Every file is scanned first.

    Args:
        scratch: where the results of the scan are kept.
        threads: how many files are scanned at once.
        strict: a file that cannot be used is refused; otherwise it is left out, and the person is told.

    Raises:
        TrainingError: the folder has another layout, or there are too few photos.
        OSError: `scratch` cannot be written to.
    """
    found = _find(folder)
    records = scan_files(folder, found.names, scratch=scratch, threads=threads, progress=progress)
    problems = found.odd | {name: why for name in found.names if (why := _problem(records[name], recipe.preprocess))}
    skipped = tuple(_shown(f"{name}: {why}") for name, why in sorted(problems.items()))
    _say_skipped(skipped, strict=strict, progress=progress)
    sound = [name for name in found.names if name not in problems]
    labels = _labels(found, sound, problems)
    _say_repeated(found, sound, records, progress)
    numbers = {label: number for number, label in enumerate(labels)}
    targets = np.array([numbers[found.label_of(name)] for name in sound], np.int64)
    rows = np.arange(len(sound))
    if found.has_val:
        tested = np.array([found.is_test(name) for name in sound])
        train, test = rows[~tested], rows[tested]
        for missing in sorted(set(range(len(labels))) - set(targets[test].tolist())):
            progress.say(f"val/ has no {labels[missing]}: this class will not be tested")
    else:
        train, test = stratified.split(
            targets, rows, source.test_share, seed=recipe.seed, stream=1, what="for the test set"
        )
    return RawDataset(
        labels=labels,
        pictures=[folder / name for name in sound],
        targets=targets,
        train=train,
        test=test,
        fingerprint=_fingerprint(sound, records),
        skipped=skipped,
    )


@dataclass(frozen=True, slots=True)
class _Found:
    """Holds what the folder contains.

    Args:
        folders: the class folders of each part; the parts are "", or "train" and "val".
        names: the files, as paths in the folder with "/": <class>/... or train/<class>/... and val/<class>/...
        odd: what stands where a file would, but is none, and why.
    """

    folders: dict[str, list[str]]
    names: list[str] = field(default_factory=list)
    odd: dict[str, str] = field(default_factory=dict)

    @property
    def has_val(self) -> bool:
        return "val" in self.folders

    def label_of(self, name: str) -> str:
        return name.split("/")[1 if self.has_val else 0]

    def is_test(self, name: str) -> bool:
        return self.has_val and name.startswith("val/")


def _find(folder: Path) -> _Found:
    if not folder.is_dir():
        what = "is a file" if folder.exists() else "is not there"
        raise TrainingError(f"the folder of photos {folder} {what}")
    parts = ["train", "val"] if all((folder / part).is_dir() for part in ("train", "val")) else [""]
    found = _Found({part: _class_folders(folder / part) for part in parts})
    if parts == [""] and found.folders[""] in (["train"], ["val"]):
        (only,) = found.folders[""]
        other = "val" if only == "train" else "train"
        raise TrainingError(
            f"{folder} has {only}/ but no {other}/: add it, or name {folder / only} for one to be split"
        )
    for part, classes in found.folders.items():
        for label in classes:
            _walk(folder, "/".join(filter(None, (part, label))), found, set())
    return found


def _class_folders(folder: Path) -> list[str]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise TrainingError(f"{folder} cannot be read: {error.strerror}") from error
    classes = [entry.name for entry in entries if entry.is_dir() and not entry.name.startswith(".")]
    if not classes:
        images = any(entry.suffix.lower() in _SUFFIXES for entry in entries)
        what = "holds images, but no class folders" if images else "holds no class folders"
        raise TrainingError(f"{folder} {what}: {_LAYOUT}")
    for label in classes:
        if _shown(label) != label:
            raise TrainingError(f"{folder / _shown(label)}: a class needs a name in UTF-8")
    return classes


def _walk(folder: Path, below: str, found: _Found, above: set[tuple[int, int]]) -> None:
    """Finds the files in a folder and below, sorted by name in each. It follows links, but not in circles."""
    try:
        status = (folder / below).stat()
        entries = sorted(entry.name for entry in (folder / below).iterdir())
    except OSError as error:
        found.odd[below] = f"it cannot be read: {error.strerror}"
        return
    here = above | {(status.st_dev, status.st_ino)}
    if len(here) == len(above):
        found.odd[below] = "it is a link to a folder above itself"
        return
    inner: list[str] = []
    for entry in entries:
        name = f"{below}/{entry}"
        if entry.startswith("."):
            continue
        if not (folder / name).is_dir():
            found.names.append(name)
        elif Path(entry).suffix.lower() in _SUFFIXES:
            found.odd[name] = "it is a folder"
        else:
            inner.append(name)
    for name in inner:
        _walk(folder, name, found, here)


def _problem(record: FileRecord, preprocess: Preprocess) -> str | None:
    if record.problem is None and max(record.size) > _THIN * min(record.size):
        try:
            preprocess.to_pixels(Image.new("L", record.size))
        except ImageError as error:
            return str(error)
    return record.problem


def _say_skipped(skipped: Sequence[str], *, strict: bool, progress: Progress) -> None:
    if strict and skipped:
        more = f" (and {len(skipped) - 1:,} more)" if len(skipped) > 1 else ""
        raise TrainingError(f"--strict, and there is a file that cannot be used: {skipped[0]}{more}")
    for line in skipped[:_SHOWN]:
        progress.say(f"skipped {line}")
    if len(skipped) > _SHOWN:
        progress.say(f"skipped {len(skipped) - _SHOWN:,} more")


def _labels(found: _Found, sound: Sequence[str], problems: Mapping[str, str]) -> tuple[str, ...]:
    train, *val = found.folders.values()
    if len(train) == 1:
        raise TrainingError(f"there is only one class, {train[0]}: at least two are needed; {_LAYOUT}")
    if val and (strange := sorted(set(val[0]) - set(train))):
        raise TrainingError(f"val/ has classes that train/ does not have: {', '.join(strange[:_SHOWN])}")
    counts = Counter(found.label_of(name) for name in sound if not found.is_test(name))
    for label in train:
        if not counts[label]:
            where = f"train/{label}" if found.has_val else label
            bad = sum(name.startswith(f"{where}/") for name in problems)
            why = f"none of its {bad:,} files can be used" if bad else "it is empty"
            raise TrainingError(f"the class folder {where} holds no image ({why}): put some in, or remove it")
    if found.has_val and not any(map(found.is_test, sound)):
        raise TrainingError("val/ holds no image: put some in, or leave it out, and a part of train/ is taken instead")
    return tuple(train)


def _say_repeated(found: _Found, sound: Sequence[str], records: Mapping[str, FileRecord], progress: Progress) -> None:
    """Tells the person about photos that are in the test set and in the training set."""
    trained = {records[name].sha256 for name in sound if not found.is_test(name)}
    repeated = [name for name in sound if found.is_test(name) and records[name].sha256 in trained]
    if repeated:
        progress.say(
            f"{len(repeated):,} photos of val/ are in train/, too, e.g. {_shown(repeated[0])}: "
            "the measured figures will be too good"
        )


def _fingerprint(sound: Sequence[str], records: Mapping[str, FileRecord]) -> str:
    """Returns the SHA-256 over the names and the hashes of the contents, sorted by name."""
    sha256 = hashlib.sha256()
    for name in sorted(sound):
        sha256.update(os.fsencode(name) + b"\0" + records[name].sha256.encode() + b"\n")
    return sha256.hexdigest()


def _shown(name: str) -> str:
    """Returns a name that can be printed, even of one that is not UTF-8."""
    return name.encode("utf-8", "backslashreplace").decode()
