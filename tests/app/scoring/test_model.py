"""Which version scores."""

import re
from pathlib import Path

import pytest

from app.lifecycle.stores import storage_of
from app.scoring.errors import ScoringError
from app.scoring.model import Chosen, choose
from app.settings import Settings
from tests.support.checkpoints import checkpoint, publish


@pytest.fixture
def store(tmp_path: Path) -> Path:
    for version in (1, 2, 10):
        publish(tmp_path, version, checkpoint(version))
    return tmp_path


def chosen(store: Path, wanted: str | None) -> Chosen:
    return choose(storage_of(Settings(store=store)), wanted)


def test_it_is_the_newest_unless_another_is_named(store: Path) -> None:
    assert (chosen(store, "digits").model, chosen(store, "digits").version) == ("digits", 10)
    assert chosen(store, "digits").file == store / "digits" / "10.safetensors"
    assert chosen(store, "digits@2").version == 2


def test_the_only_model_need_not_be_named(store: Path) -> None:
    assert chosen(store, None).version == 10
    assert chosen(store, "@1").version == 1
    publish(store, 1, checkpoint(model="letters"), model="letters")
    with pytest.raises(ScoringError, match=r"--model is needed: .* has digits, letters"):
        chosen(store, None)


@pytest.mark.parametrize(
    ("wanted", "why"),
    [
        ("letters", "has no model 'letters'; it has digits"),
        ("../digits", "has no model '../digits'"),
        ("digits@3", "digits has no version 3; it has 10, 2, 1"),
        ("digits@", "behind the @ a version is expected, such as digits@1"),
        ("digits@" + "9" * 5000, "behind the @ a version is expected"),
        ("digits@new", "behind the @ a version is expected, such as digits@1"),
    ],
)
def test_what_is_not_there_is_one_line_that_says_what_is(store: Path, wanted: str, why: str) -> None:
    with pytest.raises(ScoringError, match=re.escape(why)):
        chosen(store, wanted)


def test_the_newest_is_not_silently_replaced_by_an_older_one_if_it_is_damaged(store: Path) -> None:
    publish(store, 11, b"no checkpoint")
    with pytest.raises(ScoringError, match=r"digits@11 .*: name another version, as digits@<version>"):
        chosen(store, "digits")
