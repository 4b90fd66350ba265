"""Reads a folder of photos in ImageFolder layout: a folder for each class, or splits with these in each."""

import functools
import hashlib
import os
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from classifier.preprocess import ImageError, Preprocess
from training.data import stratified
from training.data.file_scan import FileRecord, scan_files
from training.data.folder_layout import ClassFolders, FolderLayout, layout_of
from training.data.folder_names import Role, composed, shown
from training.data.folder_tree import FolderTree, walk
from training.data.raw_dataset import RawDataset
from training.errors import TrainingError
from training.progress import Progress
from training.recipes.recipe import PhotosSource, Recipe

_SHOWN = 5  # files that are named where many are meant
_THIN = 64  # how many times as long as high an image must be before a preprocess may refuse it


def load(
    source: PhotosSource,
    recipe: Recipe,
    folder: Path,
    *,
    scratch: Path,
    outputs: Collection[Path] = (),
    measure: Role = "val",
    threads: int,
    strict: bool,
    progress: Progress,
) -> RawDataset:
    """Returns the photos that can be used. Every file is scanned first.

    Args:
        scratch: where the results of the scan are kept; no data, even if it lies in the folder.
        outputs: other folders that training writes to, which are no data either.
        measure: the split to measure on, if it is there; "test" must be there.
        threads: how many files are scanned at once.
        strict: a file that cannot be used is refused; otherwise it is left out, and the person is told.

    Raises:
        TrainingError: the folder has another layout, or there are too few photos.
        OSError: `scratch` cannot be written to.
    """
    tree = walk(folder, (*outputs, scratch))
    layout = layout_of(tree, shown(str(folder)), splits=source.splits, measure=measure)
    for line in layout.said:
        progress.say(line)
    files = _Files.of(tree, layout)
    scan = functools.partial(
        scan_files, folder, list(files.labels), scratch=scratch, threads=threads, progress=progress
    )
    records = scan()
    problems = {name: why for name in files.labels if (why := _problem(records[name], recipe.preprocess))}
    problems |= {name: why for name, why in tree.odd.items() if layout.covers(name)}
    skipped = tuple(shown(f"{name}: {why}") for name, why in sorted(problems.items()))
    _say_skipped(skipped, strict=strict, progress=progress)
    sound = [name for name in files.labels if name not in problems]
    labels = _labels(layout, files, sound, problems)
    _say_repeated(layout, files, sound, records, progress)
    numbers = {label: number for number, label in enumerate(labels)}
    targets = np.array([numbers[files.labels[name]] for name in sound], np.int64)
    rows = np.arange(len(sound))
    if layout.measured is not None:
        tested = np.array([name in files.measured for name in sound])
        train, test = rows[~tested], rows[tested]
        for missing in sorted(set(range(len(labels))) - set(targets[test].tolist())):
            progress.say(f"{layout.measured} has no {labels[missing]}: this class will not be tested")
    else:
        train, test = stratified.split(
            targets, rows, source.test_share, seed=recipe.seed, stream=1, what="for the test set"
        )
    fingerprint = _fingerprint(sound, records)
    return RawDataset(
        labels=labels,
        pictures=[folder / name for name in sound],
        targets=targets,
        train=train,
        test=test,
        fingerprint=fingerprint,
        skipped=skipped,
        unchanged=lambda: _fingerprint(sound, scan()) == fingerprint,
    )


@dataclass(frozen=True, slots=True)
class _Files:
    """Holds the files of the splits.

    Args:
        labels: by file; a file is a path in the folder of photos.
        measured: the files of the split that is measured, if there is one.
    """

    labels: dict[str, str]
    measured: frozenset[str]

    @classmethod
    def of(cls, tree: FolderTree, layout: FolderLayout) -> "_Files":
        train, measured = ({} if split is None else _labelled(tree, split) for split in (layout.train, layout.measured))
        return cls(train | measured, frozenset(measured))


def _labelled(tree: FolderTree, split: ClassFolders) -> dict[str, str]:
    return {
        name: label for label, folders in split.folders.items() for folder in folders for name in tree.below(folder)
    }


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


def _labels(layout: FolderLayout, files: _Files, sound: Sequence[str], problems: Mapping[str, str]) -> tuple[str, ...]:
    train, measured = layout.train, layout.measured
    if measured is not None and (strange := sorted(set(measured.folders) - set(train.folders))):
        raise TrainingError(f"{measured} has classes that {train} does not have: {', '.join(strange[:_SHOWN])}")
    counts = Counter(files.labels[name] for name in sound if name not in files.measured)
    for label, folders in train.folders.items():
        if not counts[label]:
            bad = sum(name.startswith(tuple(f"{folder}/" for folder in folders)) for name in problems)
            why = problems.get(folders[0]) or (f"none of its {bad:,} files can be used" if bad else "it is empty")
            raise TrainingError(f"the class folder {folders[0]} holds no image ({why}): put some in, or remove it")
    if measured is not None and not any(name in files.measured for name in sound):
        raise TrainingError(
            f"{measured} holds no image: put some in, or leave it out, and a part of {train} is taken instead"
        )
    return tuple(train.folders)


def _say_repeated(
    layout: FolderLayout, files: _Files, sound: Sequence[str], records: Mapping[str, FileRecord], progress: Progress
) -> None:
    """Tells the person about photos that are in the measured split and in the training set."""
    trained = {records[name].sha256 for name in sound if name not in files.measured}
    repeated = [name for name in sound if name in files.measured and records[name].sha256 in trained]
    if repeated:
        progress.say(
            f"{len(repeated):,} photos of {layout.measured} are in {layout.train}, too, e.g. {shown(repeated[0])}: "
            "the measured figures will be too good"
        )


def _fingerprint(sound: Sequence[str], records: Mapping[str, FileRecord]) -> str:
    """Returns the SHA-256 over the names, in Unicode's composed form, and the hashes of contents, sorted by name."""
    sha256 = hashlib.sha256()
    for name in sorted(sound, key=lambda name: (composed(name), name)):
        sha256.update(os.fsencode(composed(name)) + b"\0" + records[name].sha256.encode() + b"\n")
    return sha256.hexdigest()
