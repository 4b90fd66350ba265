"""Which version a request means, by the catalogue alone."""

from dataclasses import replace

import pytest

from app.engine.catalogue import Catalogue, Entry, OnDisk
from app.engine.errors import Ambiguous, NotFound, NotReady, Stale
from app.engine.rows import Reader
from classifier.preprocess import Preprocess
from tests.support.checkpoints import DIGITS

READER = Reader(("a", "b"), None)
WHY = "no version of 'broken' can be served: version 1: junk"


def entry(number: int, model: str, version: int, preprocess: Preprocess = DIGITS) -> Entry:
    return Entry(number, model, version, preprocess, preprocess.digest, READER)


def digits(**changes: object) -> Preprocess:
    return Preprocess.model_validate({**DIGITS.model_dump(), **changes})


ONE = Catalogue(
    served={"digits": entry(0, "digits", 2)},
    on_disk={"digits": OnDisk(frozenset({1, 2}), ""), "broken": OnDisk(frozenset({1}), WHY)},
    complete=True,
    why_not_ready=None,
)
SEVERAL = replace(ONE, served={**ONE.served, "letters": entry(1, "letters", 1)})


@pytest.mark.parametrize(("model", "version"), [(None, None), ("digits", None), ("digits", 2), (None, 2), ("", None)])
def test_what_is_served_can_be_asked_for_by_name_by_version_or_by_neither(
    model: str | None, version: int | None
) -> None:
    target = ONE.target(model, version)
    assert (target.model, target.version, target.digest) == ("digits", version, DIGITS.digest)
    assert ONE.bound(target).version == 2


@pytest.mark.parametrize(
    ("model", "version", "code"),
    [
        ("birds", None, "model_not_found"),
        ("birds", 1, "model_not_found"),
        ("digits", 1, "version_not_loaded"),
        ("digits", 3, "version_not_found"),
        ("broken", 1, "version_not_loaded"),
        ("broken", 2, "version_not_found"),
        (None, 3, "version_not_found"),
    ],
)
def test_what_is_not_there_is_not_found_and_the_code_says_what(
    model: str | None, version: int | None, code: str
) -> None:
    with pytest.raises(NotFound) as caught:
        ONE.target(model, version)
    assert caught.value.code == code


def test_a_model_none_of_whose_versions_is_served_says_why() -> None:
    with pytest.raises(NotReady, match="version 1: junk"):
        ONE.target("broken", None)


def test_several_models_and_none_named_is_ambiguous_unless_one_is_the_default() -> None:
    with pytest.raises(Ambiguous, match="digits, letters"):
        SEVERAL.target(None, None)
    assert replace(SEVERAL, default="letters").target(None, None).model == "letters"


def test_a_default_model_that_is_not_served_is_not_replaced_by_another() -> None:
    with pytest.raises(NotReady, match="junk"):
        replace(ONE, default="broken").target(None, None)
    with pytest.raises(NotFound):
        replace(ONE, default="birds").target(None, None)


def test_before_all_was_looked_at_nothing_is_said_to_be_missing_and_what_is_named_and_served_answers() -> None:
    early = replace(ONE, complete=False, why_not_ready="the first look is not over")
    assert early.target("digits", None).model == "digits"
    for model, version in (("birds", None), ("digits", 3), ("broken", None), (None, None)):
        with pytest.raises(NotReady, match="first look"):
            early.target(model, version)


def test_a_catalogue_of_nothing_is_not_ready() -> None:
    with pytest.raises(NotReady):
        Catalogue().target(None, None)
    with pytest.raises(NotReady, match="the store is empty"):
        Catalogue(complete=True, why_not_ready="the store is empty").target(None, None)


def test_a_target_is_bound_to_what_replaced_its_version_if_that_wants_the_same_pixels() -> None:
    target = ONE.target("digits", None)
    same = replace(ONE, served={"digits": entry(3, "digits", 3, digits(mean=(0.5,)))})
    assert same.bound(target).version == 3
    other = replace(ONE, served={"digits": entry(4, "digits", 4, digits(background=9))})
    with pytest.raises(Stale, match="version 4"):
        other.bound(target)


def test_a_target_of_a_version_that_was_replaced_is_not_found_and_one_whose_model_left_is_not_ready() -> None:
    target = ONE.target("digits", 2)
    with pytest.raises(NotFound) as caught:
        replace(ONE, served={"digits": entry(3, "digits", 3)}).bound(target)
    assert caught.value.code == "version_not_loaded"
    with pytest.raises(NotReady):
        Catalogue().bound(target)
