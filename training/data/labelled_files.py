"""Makes a data set of files whose labels are known: it scans each, leaves out what is no image, and splits the rest."""

import functools
import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import numpy as np
from PIL import Image

from classifier.preprocess import ImageError, Preprocess
from classifier.progress import Progress
from training.data import stratified
from training.data.file_scan import FileRecord, scan_files
from training.data.folder_names import Role, composed, shown
from training.data.raw_dataset import Archives, Member, RawDataset
from training.errors import TrainingError
from training.recipes.recipe import Recipe

_SHOWN = 5  # files that are named where many are meant
_THIN = 64  # how many times as long as high an image must be before a preprocess may refuse it


@dataclass(frozen=True, slots=True)
class Reading:
    """Says how files of a data set are read.

    Args:
        scratch: where the results of the scan are kept; no data, wherever it lies.
        measure: the split to measure on: "val", if it is there; "test", which must be there.
        threads: how many files are scanned at once.
        strict: a file that cannot be used is refused; otherwise it is left out, and the person is told.
        progress: is told what is found.
        cache_bytes: how much of what is elsewhere may be on this machine at a time; None: what the disk has room for.
        sharers: among so many processes that is shared out evenly.
        only_measured: nothing will be trained on.
    """

    scratch: Path
    measure: Role
    threads: int
    strict: bool
    progress: Progress
    cache_bytes: int | None = None
    sharers: int = 1
    only_measured: bool = False


@dataclass(frozen=True, slots=True)
class Place:
    """Is where the files of a class are.

    Args:
        words: what it is called in messages.
        folders: the folders that hold these files and no others; there may be none.
    """

    words: str
    folders: tuple[str, ...] = ()

    def holds(self, path: str) -> bool:
        """Tells whether a path is one of its folders, or below one."""
        return path in self.folders or path.startswith(tuple(f"{folder}/" for folder in self.folders))


@dataclass(frozen=True, slots=True)
class LabelledFiles:
    """Says which files there are, of which classes they are, and which are measured.

    Args:
        folder: where the files are.
        labels: by file; a file is a path in `folder`.
        classes: the labels in the order of their numbers, and where the files of each are that are trained on.
        train, measured: what is trained on and what is measured, in words; None: a part of `train` will be measured.
        measured_files: the files that are measured.
        odd: paths that are no files to look at, and why.
        members: by file, what is no file of its own, but lies in an archive; empty: all are files.
        told_by: what a file's label and split are known by beside its path, by file; empty if the path tells them.
        records: what a scan found, by file; None: the files are to be scanned.
        archives: brings the archives to this machine; None: they are here.
    """

    folder: Path
    labels: Mapping[str, str]
    classes: Mapping[str, Place]
    train: str
    measured: str | None
    measured_files: frozenset[str]
    odd: Mapping[str, str] = field(default_factory=dict)
    members: Mapping[str, Member] = field(default_factory=dict)
    told_by: Mapping[str, str] = field(default_factory=dict)
    records: Mapping[str, FileRecord] | None = None
    archives: Archives | None = None

    @classmethod
    def of_splits(
        cls,
        folder: Path,
        splits: Mapping[Role, Mapping[str, str]],
        measure: Role,
        *,
        name: str,
        train: str,
        measured: str,
        members: Mapping[str, Member] | None = None,
        records: Mapping[str, FileRecord] | None = None,
        archives: Archives | None = None,
    ) -> Self:
        """Returns the files of the splits that are used, where something beside their paths tells what they are.

        Args:
            splits: labels by file, in the order in which the files shall be.
            measure: the split to measure on. If it is empty, a part of the training set will be measured.
            name: what all of it is called in messages.
            train, measured: what these two are called.
            members: by file, what is no file of its own.
            records, archives: as this class has them.
        """
        used = {role: splits[role] for role in ("train", measure)}
        return cls(
            folder=folder,
            labels={path: label for labels in used.values() for path, label in labels.items()},
            classes={label: Place(f"the class {label} of {name}") for label in _in_order(splits["train"].values())},
            train=train,
            measured=measured if splits[measure] else None,
            measured_files=frozenset(splits[measure]),
            members=members or {},
            told_by={path: f"{label}\0{role}" for role, labels in used.items() for path, label in labels.items()},
            records=records,
            archives=archives,
        )

    def load(self, recipe: Recipe, reading: Reading, *, test_share: float) -> RawDataset:
        """Returns the files that can be used. Every file is scanned first.

        Args:
            test_share: the share of each class that becomes the test set, if none is measured.

        Raises:
            TrainingError: there are too few images.
            OSError: the results of the scan cannot be kept.
        """
        progress = reading.progress
        scan = functools.partial(self._scan, reading)
        records = scan()
        problems = {name: why for name in self.labels if (why := _problem(records[name], recipe.preprocess))}
        problems |= self.odd
        skipped = tuple(shown(f"{name}: {why}") for name, why in sorted(problems.items()))
        _say_skipped(skipped, strict=reading.strict, progress=progress)
        sound = [name for name in self.labels if name not in problems]
        self._check(sound, problems)
        self._say_repeated(sound, records, progress)
        labels = tuple(self.classes)
        numbers = {label: number for number, label in enumerate(labels)}
        targets = np.array([numbers[self.labels[name]] for name in sound], np.int64)
        rows = np.arange(len(sound))
        if self.measured is not None:
            tested = np.array([name in self.measured_files for name in sound])
            train, test = rows[~tested], rows[tested]
            for missing in sorted(set(range(len(labels))) - set(targets[test].tolist())):
                progress.say(f"{self.measured} has no {labels[missing]}: this class will not be tested")
        else:
            train, test = stratified.split(
                targets, rows, test_share, seed=recipe.seed, stream=1, what="for the test set"
            )
        fingerprint = self._fingerprint(sound, records)
        return RawDataset(
            labels=labels,
            pictures=[self.members[name] if self.members else self.folder / name for name in sound],
            targets=targets,
            train=train,
            test=test,
            fingerprint=fingerprint,
            skipped=skipped,
            unchanged=lambda: self._fingerprint(sound, scan()) == fingerprint,
            archives=self.archives,
        )

    def _scan(self, reading: Reading) -> Mapping[str, FileRecord]:
        if self.records is not None:
            return self.records
        return scan_files(
            self.folder,
            list(self.labels),
            members=self.members,
            scratch=reading.scratch,
            threads=reading.threads,
            progress=reading.progress,
        )

    def _check(self, sound: Sequence[str], problems: Mapping[str, str]) -> None:
        """Checks that there is something of each class to train on, and something to measure."""
        measured = self.measured_files
        if strange := sorted({self.labels[name] for name in measured} - set(self.classes)):
            raise TrainingError(
                f"{self.measured} has classes that {self.train} does not have: {', '.join(strange[:_SHOWN])}"
            )
        counts = Counter(self.labels[name] for name in sound if name not in measured)
        for label, place in self.classes.items():
            if not counts[label]:
                of_it = [name for name in problems if place.holds(name) or self.labels.get(name) == label]
                bad = [name for name in of_it if name not in measured]
                why = f"none of its {len(bad):,} files can be used" if bad else "it is empty"
                if bad and bad[0] in place.folders:
                    why = problems[bad[0]]
                raise TrainingError(f"{place.words} holds no image ({why}): put some in, or remove it")
        if self.measured is not None and not any(name in measured for name in sound):
            raise TrainingError(
                f"{self.measured} holds no image: put some in, or leave it out, and a part of {self.train} is taken "
                "instead"
            )

    def _say_repeated(self, sound: Sequence[str], records: Mapping[str, FileRecord], progress: Progress) -> None:
        """Tells the person about photos that are measured, and trained on as well."""
        trained = {records[name].sha256 for name in sound if name not in self.measured_files}
        repeated = [name for name in sound if name in self.measured_files and records[name].sha256 in trained]
        if repeated:
            progress.say(
                f"{len(repeated):,} photos of {self.measured} are in {self.train}, too, e.g. {shown(repeated[0])}: "
                "the measured figures will be too good"
            )

    def _fingerprint(self, sound: Sequence[str], records: Mapping[str, FileRecord]) -> str:
        """Returns the SHA-256 over names, in Unicode's composed form, and hashes of contents, sorted by name.

        What a label is known by beside the name is covered, too.
        """
        sha256 = hashlib.sha256()
        for name in sorted(sound, key=lambda name: (composed(name), name)):
            told = f"\0{self.told_by[name]}".encode() if name in self.told_by else b""
            sha256.update(os.fsencode(composed(name)) + told + b"\0" + records[name].sha256.encode() + b"\n")
        return sha256.hexdigest()


def _in_order(labels: Iterable[str]) -> list[str]:
    """Returns each label once, in order: as whole numbers if all are such, otherwise as texts."""
    different = set(labels)
    numbers = all(label.isdecimal() and label.isascii() for label in different)
    return sorted(different, key=lambda label: (int(label), label) if numbers else (0, label))


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
