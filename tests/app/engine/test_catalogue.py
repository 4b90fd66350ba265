"""Which version a request means, by the catalogue alone."""

from dataclasses import replace

import pytest

from app.engine.catalogue import Catalogue, Entry, Route, StoredVersions
from app.engine.errors import Ambiguous, NotFound, NotReady
from app.engine.model_info import PassedOver
from app.engine.rows import RowDecoder
from tests.support.checkpoints import DIGITS

WHY = "no version of 'broken' can be served: version 1: junk"


def entry(number: int, model: str, version: int) -> Entry:
    return Entry(number, model, version, DIGITS, DIGITS.digest, RowDecoder(("a", "b"), None))


ONE = Catalogue(
    entries={5: entry(5, "digits", 2)},
    routes={"digits": Route(5, {2: 5})},
    stored={"digits": StoredVersions(frozenset({1, 2}), ""), "broken": StoredVersions(frozenset({1}), WHY)},
    complete=True,
    why_not_ready=None,
)
SEVERAL = replace(
    ONE, entries={**ONE.entries, 6: entry(6, "letters", 1)}, routes={**ONE.routes, "letters": Route(6, {1: 6})}
)


@pytest.mark.parametrize(("model", "version"), [(None, None), ("digits", None), ("digits", 2), (None, 2), ("", None)])
def test_what_is_served_can_be_asked_for_by_name_by_version_or_by_neither(
    model: str | None, version: int | None
) -> None:
    resolved = ONE.resolve(model, version)
    assert resolved.entry is ONE.entries[5]
    assert resolved.asked == version
    assert ONE.served == {"digits": 2}


def test_of_several_loaded_versions_the_default_answers_and_each_may_be_named() -> None:
    both = replace(
        ONE,
        entries={**ONE.entries, 7: entry(7, "digits", 1)},
        routes={"digits": Route(5, {2: 5, 1: 7})},
    )
    assert both.resolve("digits", None).entry.version == 2
    assert both.resolve("digits", 2).entry.version == 2
    assert both.resolve("digits", 1).entry.version == 1
    assert both.served == {"digits": 2}


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
        ONE.resolve(model, version)
    assert caught.value.code == code


def test_a_model_none_of_whose_versions_is_served_says_why() -> None:
    with pytest.raises(NotReady, match="version 1: junk"):
        ONE.resolve("broken", None)


def test_several_models_and_none_named_is_ambiguous_unless_one_is_the_default() -> None:
    with pytest.raises(Ambiguous, match="digits, letters"):
        SEVERAL.resolve(None, None)
    assert replace(SEVERAL, default_model="letters").resolve(None, None).entry.model == "letters"


def test_a_default_model_that_is_not_served_is_not_replaced_by_another() -> None:
    with pytest.raises(NotReady, match="junk"):
        replace(ONE, default_model="broken").resolve(None, None)
    with pytest.raises(NotFound):
        replace(ONE, default_model="birds").resolve(None, None)


def test_before_all_was_looked_at_nothing_is_said_to_be_missing_and_what_is_named_and_served_answers() -> None:
    early = replace(ONE, complete=False, why_not_ready="the first look is not over")
    assert early.resolve("digits", None).entry.model == "digits"
    for model, version in (("birds", None), ("digits", 3), ("broken", None), (None, None)):
        with pytest.raises(NotReady, match="first look"):
            early.resolve(model, version)


def test_a_model_whose_folder_is_passed_over_is_not_found_with_the_reason() -> None:
    passed_over = (PassedOver("ResNet50", "the names of models are lower-case: call it resnet50"),)
    with pytest.raises(
        NotFound, match="no model 'ResNet50': the names of models are lower-case: call it resnet50; GET"
    ):
        replace(ONE, passed_over=passed_over).resolve("ResNet50", None)


def test_a_catalogue_of_nothing_is_not_ready() -> None:
    with pytest.raises(NotReady):
        Catalogue().resolve(None, None)
    with pytest.raises(NotReady, match="the store is empty"):
        Catalogue(complete=True, why_not_ready="the store is empty").resolve(None, None)
