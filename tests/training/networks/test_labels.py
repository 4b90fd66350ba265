"""Names of classes, as people and programs keep them: what is read, in which order, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from training.errors import TrainingError
from training.networks.labels import LabelError, labels_from, labels_of

LABELS = ("ants", "bees", "wasps")


def _read(tmp_path: Path, content: str | bytes, name: str = "labels.txt") -> tuple[str, ...]:
    (tmp_path / name).write_bytes(content.encode() if isinstance(content, str) else content)
    return labels_from(tmp_path / name)


@pytest.mark.parametrize(
    "text",
    ["ants\nbees\nwasps\n", "ants\nbees\nwasps", "ants\r\nbees\r\nwasps\r\n\r\n", "\ufeff ants \nbees\nwasps\n\n \n"],
)
def test_labels_are_the_lines_of_a_file(text: str, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes(text.encode())
    assert labels_from(tmp_path / "labels.txt") == LABELS


def test_labels_may_be_in_any_language(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("Ameisen, große\nпчёлы\n蜂\n", encoding="utf-8")
    assert labels_from(tmp_path / "labels.txt") == ("Ameisen, große", "пчёлы", "蜂")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"ants\n\nbees\n", "line 2 is empty"),
        (b"\nants\nbees\n", "line 1 is empty"),
        (b"ants\nbees\nwasps\nbees\n", "lines 2 and 4 are the same: 'bees'"),
        (b"ants\n", "has one label, 'ants': at least two are needed"),
        (b"", "line 1 is empty"),
        (b"ants\n" + b"b" * 257 + b"\n", "line 2 has 257 characters, 256 are the most"),
        (b"ants\nbe\xe9s\n", "is not a text in UTF-8: byte 8 is 0xe9"),
    ],
)
def test_labels_that_cannot_be_used_are_named_by_their_lines(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_bytes(content)
    with pytest.raises(TrainingError, match=message) as caught:
        labels_from(tmp_path / "labels.txt")
    assert "\n" not in str(caught.value)


def test_a_label_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"labels\.txt: No such file"):
        labels_from(tmp_path / "labels.txt")


def test_a_label_that_cannot_be_printed_is_refused(tmp_path: Path) -> None:
    (tmp_path / "labels.txt").write_text("ants\nb\x1b[31mees\n")
    with pytest.raises(TrainingError, match="line 2"):
        labels_from(tmp_path / "labels.txt")


@pytest.mark.parametrize(
    "content",
    [
        "ants\r\nbees\r\nwasps\r\n".encode("utf-16"),
        "\ufeffants\nbees\nwasps".encode("utf-16-be"),
        "ants\nbees\nwasps\n".encode("utf-32"),
        b"ants\rbees\rwasps\r",
        "\ufeffants\r\nbees\r\nwasps".encode(),
    ],
    ids=["utf-16", "utf-16-be", "utf-32", "cr", "bom"],
)
def test_labels_may_be_written_by_any_editor(tmp_path: Path, content: bytes) -> None:
    assert _read(tmp_path, content) == LABELS


@pytest.mark.parametrize("name", ["labels.txt", "labels.json"])
@pytest.mark.parametrize(
    "value",
    [
        ["ants", "bees", "wasps"],
        {"0": "ants", "1": "bees", "2": "wasps"},
        {"2": "wasps", "0": "ants", "1": "bees"},
        {"bees": 1, "ants": 0, "wasps": 2},
        {"class_to_idx": {"bees": 1, "ants": 0, "wasps": 2}, "epoch": 3},
    ],
    ids=["list", "by index", "in another order", "to indices", "nested"],
)
def test_labels_may_be_json(tmp_path: Path, value: Any, name: str) -> None:
    assert _read(tmp_path, json.dumps(value), name) == LABELS
    assert _read(tmp_path, json.dumps(value, indent=2), name) == LABELS


@pytest.mark.parametrize(
    "text",
    [
        "0 ants\n1 bees\n2 wasps\n",
        "2: wasps\n0: ants\n1: bees",
        "0,ants\n1,bees\n2,wasps",
        "0\tants\n1\tbees\n2\twasps",
        "0 - ants\n1 - bees\n2 - wasps",
    ],
)
def test_lines_that_are_numbered_by_their_class_are_put_in_that_order(tmp_path: Path, text: str) -> None:
    assert _read(tmp_path, text) == LABELS


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("0\n1\n2", ("0", "1", "2")),
        ("7 dwarfs\n101 dalmatians", ("7 dwarfs", "101 dalmatians")),
        ("1 ants\n2 bees", ("1 ants", "2 bees")),
        ("[UNK]\nants", ("[UNK]", "ants")),
        ("{ants\nbees", ("{ants", "bees")),
    ],
)
def test_what_only_looks_like_numbers_or_json_stays_as_it_is(
    tmp_path: Path, text: str, labels: tuple[str, ...]
) -> None:
    assert _read(tmp_path, text) == labels


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"0": "ants", "2": "bees"}', "not one label for each index from 0 to 1"),
        ('{"ants": 0, "bees": 0}', "not one label for each index"),
        ('{"ants": true, "bees": 0}', "not one label for each index"),
        ('{"1": "2", "2": "0", "0": "1"}', "cannot be told apart"),
        ('{"0": ["n01440764", "tench"], "1": ["n01443537", "goldfish"]}', "not one label for each index"),
        ('{"0": "ants", "0": "bees", "1": "wasps"}', "a key stands there twice"),
        ('["ants", "ants"]', "labels 0 and 1 are the same: 'ants'"),
        ('["ants", 3]', "neither a list of labels"),
        ('["ants"]', "one label, 'ants'"),
        ("[]", "no label"),
        ('["ants", ""]', "label 1 is empty"),
        ('["ants", "bees",]', "looks like JSON, and is not"),
        ("[" * 100_000 + "]", "looks like JSON, and is not"),
        ("0 ants\n1 ants", "numbers 0 and 1 are the same"),
    ],
)
def test_labels_of_which_no_reading_is_certain_are_refused_in_one_line(
    tmp_path: Path, content: str, message: str
) -> None:
    with pytest.raises(TrainingError, match=message) as caught:
        _read(tmp_path, content)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(tmp_path / "labels.txt"))


def test_a_json_file_is_never_read_as_lines(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="looks like JSON, and is not"):
        _read(tmp_path, "ants\nbees\n", "labels.json")


def test_a_file_that_is_too_large_for_labels_is_not_read_whole(tmp_path: Path) -> None:
    with (tmp_path / "labels.txt").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(TrainingError, match="more than 16,777,216 bytes"):
        labels_from(tmp_path / "labels.txt")


def test_labels_of_a_dictionary_may_be_in_any_order_and_of_any_kind_of_index() -> None:
    assert labels_of({"bees": 1, "ants": 0}) == ("ants", "bees")
    assert labels_of({1: "bees", 0: "ants"}) == ("ants", "bees")
    assert labels_of({"bees": torch.tensor(1), "ants": torch.tensor(0)}) == ("ants", "bees")
    with pytest.raises(LabelError, match="not one label for each index"):
        labels_of({"ants": 0, "bees": 2})
