"""Reads a table of photos and their labels: a CSV or TSV file beside the photos, or in a folder above them.

Hugging Face's image folders have such tables, too. There they are called metadata.csv, and each split may have its own.
"""

import csv
import io
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from training.data.folder_names import Role, composed, is_utf8, listed, of_all, role_of, shown
from training.data.labelled_files import LabelledFiles, Reading
from training.data.raw_dataset import RawDataset
from training.errors import TrainingError
from training.recipes.recipe import PhotosSource, Recipe, TableSource

METADATA = "metadata.csv"  # what Hugging Face's datasets call the table in an image folder

# What the columns are called as a rule, in any case: the first one of a list that is there is the one of paths.
_PATHS = "path file filename file_name filepath file_path image image_path img img_path image_file photo picture"
_LABELS = "label class category target labels class_name label_name category_name species breed"
_SPLITS = "split set subset partition"
_DELIMITERS = ",;\t|"
_MOST_BYTES = 1 << 30
_LONGEST_LABEL = 256  # characters, as in a manifest


@dataclass(frozen=True, slots=True)
class _Row:
    """Is one line of a table.

    Args:
        line: its number, from 1, which is the header's.
        path: of the photo, in the folder of the data set.
        role: the split that it is said to be of; None: nothing is said.
    """

    line: int
    path: str
    label: str
    role: Role | None


def tables_in(folder: Path) -> list[Path]:
    """Returns the tables that say the labels of an image folder as Hugging Face lays it out; or none.

    It is `metadata.csv` in the folder itself, or one in each folder that is called like a split. A table without the
    column `file_name`, or without one for labels, is none, and neither is a file that cannot be read.
    """
    splits = sorted(path.parent for path in folder.glob(f"*/{METADATA}") if role_of(path.parent.name) is not None)
    for folders in ([folder], splits):
        tables = [each / METADATA for each in folders if (each / METADATA).is_file()]
        if tables and all(map(_says_labels, tables)):
            return tables
    return []


def _says_labels(path: Path) -> bool:
    try:
        return _Table.read(path, TableSource()).is_metadata
    except TrainingError:
        return False


def load(source: TableSource, recipe: Recipe, tables: Sequence[Path], folder: Path, reading: Reading) -> RawDataset:
    """Returns the photos of tables that can be used. Every file is scanned first.

    A row's split is what the column says. Without such a column it is the folder of the table, or the first folder of
    the path, if all are called like splits. Otherwise all rows are for training.

    Args:
        tables: with paths that are relative to the folder of each.
        folder: where the tables are, or the folders of the tables.

    Raises:
        TrainingError: a table cannot be read, has other columns, or there are too few photos.
        OSError: the results of the scan cannot be kept.
    """
    name = " and ".join(shown(os.path.relpath(table, folder)) for table in tables)
    seen: dict[str, str] = {}
    rows = [
        row
        for table in tables
        for row in _Table.read(table, source, found=isinstance(recipe.source, PhotosSource)).rows(folder, seen)
    ]
    if not rows:
        raise TrainingError(f"{name} has no rows: a header and a line for each photo are expected")
    splits: dict[Role, dict[str, str]] = {"train": {}, "val": {}, "test": {}}
    # By path, for what is held out is chosen by place: the order of lines must not matter.
    for row, role in sorted(zip(rows, _roles(rows), strict=True), key=lambda pair: pair[0].path):
        splits[role][row.path] = row.label
    if not splits["train"]:
        raise TrainingError(f"{name} has no rows of the split train: nothing is there to train on")
    measure = reading.measure
    if measure == "test" and not splits["test"]:
        raise TrainingError(f"{name} has no rows of the split test to measure on")
    if measure == "test":
        reading.progress.say(f"measured on: the split test of {name}")
    elif splits["test"]:
        data = tables[0] if tables[0].parent == folder and isinstance(recipe.source, TableSource) else folder
        reading.progress.say(
            f"left out: the split test of {name} ({len(splits['test']):,} rows); to measure it: "
            f"python -m training evaluate CHECKPOINT --data {shlex.quote(str(data))} --test"
        )
    files = LabelledFiles.of_splits(
        folder,
        splits,
        measure,
        name=name,
        train=f"the split train of {name}" if splits[measure] else name,
        measured=f"the split {measure} of {name}",
    )
    return files.load(recipe, reading, test_share=source.test_share)


def _roles(rows: Sequence[_Row]) -> list[Role]:
    roles = [row.role for row in rows]
    if None in roles:
        roles = [role_of(row.path.partition("/")[0]) if "/" in row.path else None for row in rows]
    return of_all(roles)


class _Lines(Protocol):
    """Is what `csv.reader` returns."""

    line_num: int

    def __iter__(self) -> Iterator[list[str]]: ...

    def __next__(self) -> list[str]: ...


class _Table:
    """Is a file whose header was read."""

    def __init__(self, path: Path, lines: _Lines, header: Sequence[str], source: TableSource, *, found: bool) -> None:
        # A person who named the folder has no value for the table's columns.
        self._command = f"python -m training table {shlex.quote(str(path))} " if found else ""
        self._name = shown(path.name)
        self._folder = path.parent
        self._lines = lines
        self._header = [name.strip() for name in header]
        self._source = source

    @classmethod
    def read(cls, path: Path, source: TableSource, *, found: bool = False) -> "_Table":
        """Reads a file.

        Args:
            found: it was found in a folder of photos, which a person named.

        Raises: TrainingError if it is no table.
        """
        try:
            if path.is_dir():
                raise TrainingError(f"{path} is a folder: for a folder of photos, python -m training photos {path}")
            if path.stat().st_size > _MOST_BYTES:
                raise TrainingError(f"{path} is larger than {_MOST_BYTES:,} bytes: it is no table of labels")
            with path.open(encoding="utf-8-sig", newline="") as file:
                text = file.read()
        except UnicodeDecodeError as error:
            raise TrainingError(f"{path} is no UTF-8 text: save the table as CSV in UTF-8") from error
        except OSError as error:
            raise TrainingError(f"{path}: {error.strerror}") from error
        if "\0" in text:
            raise TrainingError(f"{path} is no CSV or TSV file")
        first = text.partition("\n")[0]
        delimiter = max(_DELIMITERS, key=first.count)
        lines = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        try:
            header = next(lines, [])
        except csv.Error:
            header = []
        if not header:
            raise TrainingError(
                f"{shown(path.name)} has no header: its first line must name the columns, e.g. path,label"
            )
        return cls(path, lines, header, source, found=found)

    @property
    def is_metadata(self) -> bool:
        """Whether there are the columns of Hugging Face's: `file_name`, and one for labels."""
        return "file_name" in self._header and bool(self._named(_LABELS))

    def rows(self, folder: Path, seen: dict[str, str]) -> Iterator[_Row]:
        """Gives the rows.

        Args:
            folder: the paths of the rows are those in it.
            seen: where each path stands that was given before; these are added.

        Raises: TrainingError, with the line that is wrong.
        """
        source = self._source
        columns = {
            "path": self._column(source.path, _PATHS, "path", "paths of the photos", first=True),
            "label": self._column(source.label, _LABELS, "label", "labels"),
        }
        if source.split is not None or self._named(_SPLITS):
            columns["split"] = self._column(source.split, _SPLITS, "split", "splits")
        try:
            for cells in self._lines:
                if any(cell.strip() for cell in cells):
                    row = self._row(self._line, cells, columns, folder)
                    if row.path in seen:
                        raise self._wrong(row.line, f"{shown(row.path)} stands in {seen[row.path]} already")
                    seen[row.path] = f"{self._name}, line {row.line},"
                    yield row
        except csv.Error as error:
            raise self._wrong(self._line, str(error)) from error

    @property
    def _line(self) -> int:
        return self._lines.line_num

    def _row(self, line: int, cells: Sequence[str], columns: Mapping[str, int], folder: Path) -> _Row:
        if len(cells) != len(self._header):
            raise self._wrong(line, f"it has {len(cells)} columns, and the header has {len(self._header)}")
        path, label = (cells[columns[key]].strip() for key in ("path", "label"))
        if not label:
            raise self._wrong(line, "it has no label")
        if not is_utf8(label) or not label.isprintable() or len(label) > _LONGEST_LABEL:
            raise self._wrong(line, f"its label {shown(label[:_LONGEST_LABEL])} cannot be printed, or is too long")
        role = None
        if "split" in columns:
            said = cells[columns["split"]]
            role = role_of(said)
            if role is None:
                raise self._wrong(line, f"its split {shown(said)!r} is none of train, val and test")
        return _Row(line, self._inside(line, path, folder), composed(label), role)

    def _inside(self, line: int, path: str, folder: Path) -> str:
        """Returns the path, which must be in the table's folder, as a path in `folder` in its simplest form."""
        if not path:
            raise self._wrong(line, "it has no path")
        written = path if "/" in path else path.replace("\\", "/")  # on Windows
        inside = os.path.relpath(self._folder / written, self._folder)
        if inside == ".." or inside.startswith(f"..{os.sep}") or "\0" in inside:
            raise self._wrong(
                line, f"{shown(path)} is outside of the table's folder: put the table into a folder above the photos"
            )
        return os.path.relpath(self._folder / inside, folder)

    def _wrong(self, line: int, why: str) -> TrainingError:
        return TrainingError(f"{self._name}, line {line}: {why}")

    def _column(self, named: str | None, usual: str, key: str, what: str, *, first: bool = False) -> int:
        """Returns the position of a column.

        Args:
            named: how a person calls it; None: as it is called as a rule.
            first: of several that are called so, the first in the list of usual names is meant.
        """
        there = listed([name or "(no name)" for name in self._header])
        if named is not None:
            if self._header.count(named) != 1:
                raise TrainingError(f"{self._name} has no column {shown(named)}, or several: its columns are {there}")
            return self._header.index(named)
        found = self._named(usual)
        if not found:
            names = ", ".join(usual.split()[:4])
            raise TrainingError(
                f"{self._name} has no column for the {what} ({names}, …): its columns are {there}; name one by "
                f"{self._command}--set source.{key}=COLUMN"
            )
        if len(found) > 1 and not first:
            several = ", ".join(shown(self._header[at]) for at in found)
            raise TrainingError(
                f"{self._name} has several columns that may be the {what}: {several}; a photo has one {key} here: "
                f"name the column by {self._command}--set source.{key}={self._header[found[0]]}"
            )
        return found[0]

    def _named(self, usual: str) -> list[int]:
        """Returns the positions of the columns that are called as usual, in the order of the usual names."""
        header = [name.lower().replace(" ", "_").replace("-", "_") for name in self._header]
        return [at for name in usual.split() for at, there in enumerate(header) if there == name]
