"""Reads the names of classes as people and programs keep them: lines, JSON, or a dictionary in a checkpoint."""

import codecs
import json
import operator
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from training.errors import TrainingError

_MAX_LABEL = 256  # characters
_MAX_BYTES = 1 << 24  # of a file
_NUMBERED = re.compile(r"(\d{1,7})(?:\s*[:.,;)=-]\s*|\s+)(\S.*)")
_KEYS = ("class_to_idx", "label2id", "idx_to_class", "id2label", "classes", "labels")


class LabelError(ValueError):
    """These cannot be the labels of a network's classes; the message says why."""


def labels_from(path: Path) -> tuple[str, ...]:
    """Reads labels from a file: a text with one on each line, or JSON as `labels_of` takes it.

    Lines that are all numbered by their class, from 0, are put into that order, without their numbers. Blank lines at
    the end do not count. The text is in UTF-8, or begins with the mark of another Unicode.

    Raises: TrainingError, which names a line that is empty, too long, not printable, or there twice.
    """
    text = _text(path).strip("\ufeff").rstrip()
    try:
        if path.suffix.lower() == ".json" or text[:1] + text[-1:] in ("{}", "[]"):
            return labels_of(_json(text))
        lines = [line.strip() for line in re.split(r"\r\n|\r|\n", text)]
        in_order = _in_order(lines)
        if in_order is None:
            _check(lines, "line", first=1)
        return in_order or tuple(lines)
    except LabelError as error:
        raise TrainingError(f"{path}: {error}") from error


def labels_of(value: Any) -> tuple[str, ...]:
    """Returns the labels by class index.

    Args:
        value: a list of them, or a dictionary from each to its index, or from each index to its label.

    Raises: LabelError if it is none of these, or if an index from 0 is missing.
    """
    if isinstance(value, Mapping):
        value = _by_index(value)
    if not isinstance(value, list | tuple) or not all(isinstance(label, str) for label in value):
        raise LabelError("neither a list of labels, nor an object of labels and indices from 0")
    _check(value, "label", first=0)
    return tuple(value)


def _by_index(value: Mapping[Any, Any]) -> list[Any]:
    index_first = {_index(key): label for key, label in value.items()}
    label_first = {_index(index): label for label, index in value.items()}
    every = set(range(len(value)))
    readings = [by for by in (index_first, label_first) if by.keys() == every and len(by) == len(value)]
    readings = [by for by in readings if all(isinstance(label, str) for label in by.values())]
    if not readings:
        raise LabelError(f"its {len(value)} entries are not one label for each index from 0 to {len(value) - 1}")
    if len(readings) == 2 and readings[0] != readings[1]:
        raise LabelError("labels and indices cannot be told apart, for both are numbers: give a list of labels")
    return [readings[0][i] for i in range(len(value))]


def _index(value: Any) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 8:
        return int(value)
    try:
        return None if isinstance(value, bool) else operator.index(value)  # also an integer of torch
    except (TypeError, ValueError):
        return None


def _check(labels: Sequence[str], what: str, *, first: int) -> None:
    seen: dict[str, int] = {}
    for i, label in enumerate(labels, start=first):
        if not label:
            raise LabelError(f"{what} {i} is empty")
        if not label.isprintable():
            raise LabelError(f"{what} {i} holds characters that cannot be printed: {label[:60]!r}")
        if len(label) > _MAX_LABEL:
            raise LabelError(f"{what} {i} has {len(label)} characters, {_MAX_LABEL} are the most")
        if label in seen:
            raise LabelError(f"{what}s {seen[label]} and {i} are the same: {label!r}")
        seen[label] = i
    if len(labels) < 2:
        there = f"one label, {labels[0]!r}" if labels else "no label"
        raise LabelError(f"it has {there}: at least two are needed, one for each class")


def _in_order(lines: list[str]) -> tuple[str, ...] | None:
    """Returns the labels of numbered lines in the order of their numbers; None if not all lines are numbered."""
    matches = [_NUMBERED.fullmatch(line) for line in lines]
    by_number = {int(match[1]): match[2] for match in matches if match}
    if by_number.keys() != set(range(len(lines))):
        return None
    labels = [by_number[i] for i in range(len(lines))]
    _check(labels, "number", first=0)
    return tuple(labels)


def _text(path: Path) -> str:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_BYTES + 1)
    except OSError as error:
        raise TrainingError(f"{path}: {error.strerror or error}") from error
    if len(data) > _MAX_BYTES:
        raise TrainingError(f"{path} has more than {_MAX_BYTES:,} bytes: that is no list of labels")
    marked = {codecs.BOM_UTF32_LE: "UTF-32", codecs.BOM_UTF16_LE: "UTF-16", codecs.BOM_UTF16_BE: "UTF-16"}
    encoding = next((name for mark, name in marked.items() if data.startswith(mark)), "UTF-8")
    try:
        return data.decode(encoding)
    except UnicodeDecodeError as error:
        raise TrainingError(
            f"{path} is not a text in {encoding}: byte {error.start + 1} is {error.object[error.start]:#x}"
        ) from error


def _json(text: str) -> Any:
    try:
        value = json.loads(text, object_pairs_hook=_without_repetition)
    except (ValueError, RecursionError) as error:
        raise LabelError(f"it looks like JSON, and is not: {error}") from error
    if isinstance(value, dict):
        value = next((value[key] for key in _KEYS if isinstance(value.get(key), dict | list)), value)
    return value


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key stands there twice")
    return value
