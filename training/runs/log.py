"""Writes `log.jsonl`: one line of JSON for each epoch of a run."""

import json
from collections.abc import Mapping
from pathlib import Path

from classifier import atomic_files

LOG = "log.jsonl"


def append(folder: Path, record: Mapping[str, object]) -> None:
    """Adds the record of an epoch, and removes those that a run which was cut off or started again left behind.

    Args:
        record: "epoch" holds the epoch's number, from 1.

    Raises: OSError if the file cannot be written.
    """
    path = folder / LOG
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    kept = [line for line in lines if 0 < _epoch(line) < int(str(record["epoch"]))]
    atomic_files.replace(path, "".join(f"{line}\n" for line in [*kept, json.dumps(record)]).encode())


def _epoch(line: str) -> int:
    try:
        return int(json.loads(line)["epoch"])
    except (ValueError, KeyError, TypeError):  # a line that was cut off, or somebody else's
        return 0
