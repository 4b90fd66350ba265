"""What folders are called: splits in many spellings, names that mean the same, and names that cannot be printed."""

import unicodedata

import pytest

from training.data.folder_names import (
    Role,
    composed,
    folded,
    is_neutral,
    is_utf8,
    listed,
    of_all,
    role_in,
    role_of,
    shown,
)


@pytest.mark.parametrize(
    ("role", "names"),
    [
        (
            "train",
            ["train", "Train", "TRAINING", "training_set", "train-images", "images_train", "trainset", "train2017"],
        ),
        (
            "val",
            ["val", "Valid", "validation", "VALIDATION_SET", "val_data", "dev", "eval", "Validation images", "val2017"],
        ),
        ("test", ["test", "Test", "testing", "test_set", "testset", "test-photos", "Test Data"]),
        (
            None,
            ["trains", "tests", "freight train", "trainval", "train_test", "best", "invalid", "device", "data", "set"],
        ),
        (None, ["images", "contest", "latest", "evaluate me", "values", "train 12", "", "dataset" * 30 + "x", "т"]),
    ],
)
def test_the_names_of_splits_are_known_in_any_case_and_spelling(role: Role | None, names: list[str]) -> None:
    assert [role_of(name) for name in names] == [role] * len(names)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("asl_alphabet_train", ("train", "asl alphabet")),
        ("Val-Ants", ("val", "ants")),
        ("antsTest", ("test", "ants")),
        ("01 train (1)", ("train", "")),
        ("ants train set", ("train", "ants")),
        *((name, None) for name in ("invalid", "latest ants", "my train car", "images", "", "2017")),
    ],
)
def test_the_word_of_a_split_is_found_at_either_end_of_a_name(name: str, expected: tuple[Role, str] | None) -> None:
    assert role_in(name) == expected


@pytest.mark.parametrize("name", ["images", "Image", "IMGS", "photos", "pictures", "data", "image_data", "dataset"])
def test_nobody_calls_a_class_like_a_folder_of_images(name: str) -> None:
    assert is_neutral(name)
    assert not is_neutral(f"{name} of ants")
    assert not is_neutral("--")


@pytest.mark.parametrize("name", ["café", "Ångström", "한국", "ﬁn"])
def test_both_forms_of_a_name_are_one_when_composed_and_no_others(name: str) -> None:
    one, other = (unicodedata.normalize(form, name) for form in ("NFC", "NFD"))
    assert composed(one) == composed(other) == one
    assert composed("ﬁn") != composed("fin")


def test_names_that_a_person_may_take_for_the_same_are_told_from_others() -> None:
    assert {folded(name) for name in ("two words", "Two  Words ", "ＴＷＯ words", "two\u00a0words")} == {"two words"}
    assert len({folded(name) for name in ("Masse", "Maße", "two words", "two_words", "a", "ä")}) == 6


def test_a_name_that_is_no_text_or_has_line_ends_in_it_is_shown_in_a_line() -> None:
    assert shown("a\nb\x7f\udcff é") == "a\\nb\\x7f\\udcff é"
    assert [is_utf8(name) for name in ("é", "?", "a\nb", "\udcff")] == [True, True, True, False]


def test_of_many_names_the_first_are_listed() -> None:
    assert listed(["a", "b"], "/") == "a/, b/"
    assert listed(["\n", *"abcdefg"]) == "\\n, a, b, c, d and 3 more"


def test_splits_are_splits_if_all_are_known() -> None:
    assert of_all(["train", "val", "test"]) == ["train", "val", "test"]
    assert of_all(["train", None, "test"]) == ["train"] * 3
    assert of_all([]) == []
