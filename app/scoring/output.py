"""Keeps rows in parts that are whole or not there, and makes one file of them at the end.

Whoever is killed loses the rows of a few seconds. The file itself is there when all rows are in it, and not before.
"""

import csv
import fcntl
import json
import os
import re
import shutil
import time
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Self

from app.scoring.errors import ScoringError
from app.scoring.rows import COLUMNS, ScoredRow
from classifier import atomic_files

# The numbers of its first row and of the row after its last one, and the CRC-32 of its content.
_PART = re.compile(r"(\d{12})-(\d{12})-([0-9a-f]{8})\.jsonl")
_WHOLE = "whole.tmp"  # the file, while it is made
_ABOUT = "about.json"
_EVERY_SECONDS = 2.0
_MOST_ROWS = 20_000  # of a part

_Write = Callable[[Path, Iterable[ScoredRow]], None]


class Output:
    """Is what one scoring writes, and nobody else at the same time.

    Args:
        path: the file. Its name ends in .parquet, .csv or .jsonl.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folder = path.with_name(f"{path.name}.parts")
        self.rows = 0  # that are kept
        self._waiting: list[ScoredRow] = []
        self._kept_at = time.monotonic()
        self._write = _writer(path)

    @classmethod
    @contextmanager
    def opened(cls, path: Path, about: dict[str, Any], *, resume: bool) -> Iterator[Self]:
        """Gives an output that goes on after the rows that are there.

        Args:
            about: what decides the rows. Only what was begun with the same can be gone on with.
            resume: rows may be there.

        Raises: ScoringError, where something else is there, or somebody else is at it; OSError.
        """
        output = cls(path)
        if path.exists():
            raise ScoringError(f"{path} is there already: remove it, or name another file")
        output.folder.mkdir(parents=True, exist_ok=True)
        with (output.folder / ".lock").open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise ScoringError(f"somebody else is writing {path}: wait for it, or name another file") from error
            output.rows = output._kept_rows()
            if output.rows and not resume:
                raise ScoringError(f"{output.folder} holds rows of an earlier run: add --resume, or remove it")
            output._check(about)
            try:
                yield output
            finally:
                if not output.rows:  # nothing is lost with it
                    shutil.rmtree(output.folder, ignore_errors=True)

    @classmethod
    def is_complete(cls, path: Path) -> bool:
        """Tells whether the file is there. What a run left that was killed at its very end is removed."""
        if not path.is_file():
            return False
        shutil.rmtree(cls(path).folder, ignore_errors=True)
        return True

    def add(self, rows: Sequence[ScoredRow]) -> None:
        """Adds the rows that come next. Raises: OSError."""
        self._waiting += rows
        if time.monotonic() - self._kept_at > _EVERY_SECONDS or len(self._waiting) >= _MOST_ROWS:
            self.keep()

    def keep(self) -> None:
        """Writes down the rows that were added. Raises: OSError."""
        if self._waiting:
            end = self.rows + len(self._waiting)
            text = "".join(map(_line, self._waiting)).encode()
            name = f"{self.rows:012}-{end:012}-{zlib.crc32(text):08x}.jsonl"
            atomic_files.replace(self.folder / name, text)
            self.rows, self._waiting = end, []
        self._kept_at = time.monotonic()

    def finish(self) -> int:
        """Makes the file, removes the parts, and returns how many rows say what failed.

        Raises: ScoringError, if rows are missing; OSError.
        """
        self.keep()
        failed = count = 0

        def counted() -> Iterator[ScoredRow]:
            nonlocal failed, count
            for row in self._all_rows():
                failed += row["error"] is not None
                count += 1
                yield row

        whole = self.folder / _WHOLE
        self._write(whole, counted())
        if count != self.rows:
            raise ScoringError(f"{self.folder} has {count:,} of {self.rows:,} rows: remove it, and start again")
        with whole.open("rb+") as file:
            os.fsync(file.fileno())
        whole.replace(self.path)
        atomic_files.sync_folder(self.path.parent)
        shutil.rmtree(self.folder)
        return failed

    def _all_rows(self) -> Iterator[ScoredRow]:
        """Gives the rows that are kept, in their order."""
        for _, _, part in self._parts():
            with part.open(encoding="utf-8") as lines:
                yield from map(json.loads, lines)

    def _check(self, about: dict[str, Any]) -> None:
        path = self.folder / _ABOUT
        if not self.rows:
            atomic_files.replace(path, json.dumps(about).encode())
            return
        try:
            kept = json.loads(path.read_bytes())
            if not isinstance(kept, dict):
                raise TypeError(f"{path} holds something else")
        except (FileNotFoundError, ValueError, TypeError) as error:
            raise ScoringError(f"{path} is damaged: remove {self.folder}, and start again") from error
        for name in about:
            if kept.get(name) != about[name]:
                raise ScoringError(
                    f"{self.folder} was begun with another {name} ({kept.get(name)} there, {about[name]} here): "
                    "go on with the same, or remove it"
                )

    def _kept_rows(self) -> int:
        """Returns how many rows are kept without a gap. Parts that are damaged, or behind a gap, are removed."""
        rows = 0
        for first, end, part in self._parts():
            if first == rows and f"-{zlib.crc32(part.read_bytes()):08x}." in part.name:
                rows = end
            else:
                part.unlink()
        (self.folder / _WHOLE).unlink(missing_ok=True)
        return rows

    def _parts(self) -> list[tuple[int, int, Path]]:
        found = [(match, path) for path in self.folder.iterdir() if (match := _PART.fullmatch(path.name))]
        return sorted((int(match[1]), int(match[2]), path) for match, path in found)


def _writer(path: Path) -> _Write:
    """Returns what writes a file of this name. Raises: ScoringError."""
    match path.suffix.lower():
        case ".jsonl":
            return _write_jsonl
        case ".csv":
            return _write_csv
        case ".parquet":
            if find_spec("pyarrow") is None:
                raise ScoringError(f"{path} needs more than is installed: pip install 'flambeau[parquet]'")
            return _write_parquet
    raise ScoringError(f"{path}: its name must end in .parquet, .csv or .jsonl")


def _line(row: ScoredRow) -> str:
    """Returns a row as a line of JSON in ASCII, so that no character of a name ends the line anywhere."""
    return f"{json.dumps(row, allow_nan=False)}\n"


def _write_jsonl(path: Path, rows: Iterable[ScoredRow]) -> None:
    with path.open("w", encoding="utf-8") as file:
        file.writelines(map(_line, rows))


def _write_csv(path: Path, rows: Iterable[ScoredRow]) -> None:
    """Writes what is no single value as JSON."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, COLUMNS)
        writer.writeheader()
        for row in rows:
            top_k = None if row["top_k"] is None else json.dumps(row["top_k"])
            writer.writerow(row | {"top_k": top_k})


def _write_parquet(path: Path, rows: Iterable[ScoredRow]) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    top_k = pa.list_(pa.struct([("label", pa.string()), ("probability", pa.float32())]))
    types = {
        "path": pa.string(),
        "label": pa.string(),
        "probability": pa.float32(),
        "top_k": top_k,
        "score": pa.float32(),
        "in_distribution": pa.bool_(),
        "version": pa.int64(),
        "error": pa.string(),
    }
    schema = pa.schema([(name, types[name]) for name in COLUMNS])
    with pq.ParquetWriter(path, schema) as writer:
        group: list[ScoredRow] = []
        for row in rows:
            group.append(row)
            if len(group) == _MOST_ROWS:
                writer.write_table(pa.Table.from_pylist(group, schema=schema))
                group = []
        if group:
            writer.write_table(pa.Table.from_pylist(group, schema=schema))
