"""What a manifest takes and refuses: a reader of format 1 never silently ignores what a writer thought important."""

import hashlib
import json
from typing import Any

import pytest
from pydantic import ValidationError

from classifier.manifest import Manifest


def _document() -> dict[str, Any]:
    """A whole one, as JSON reads it."""
    return {
        "format": 1,
        "model": "digits",
        "architecture": "mnist_cnn",
        "labels": ["0", "1"],
        "preprocess": {"mode": "L", "resize": [28, 28], "crop": None, "mean": [0.1307], "std": [0.3081]},
        "metrics": {
            "split": "test",
            "samples": 10000,
            "accuracy": 0.99,
            "loss": 0.03,
            "calibration_error": 0.01,
            "uncalibrated_error": 0.02,
        },
        "per_class": [
            {"precision": 0.98, "recall": 1.0, "samples": 9999},
            {"precision": None, "recall": 0.0, "samples": 1},
        ],
        "curve": [{"epoch": 1, "loss": 0.4, "accuracy": 0.9, "held_out_loss": 0.3, "held_out_accuracy": 0.91}],
        "provenance": {
            "dataset": {"name": "strokes", "samples": 40000, "fingerprint": "ab" * 32},
            "recipe": {"lr": 0.05, "layers": [1, None, {"deep": True}]},
            "seed": 0,
            "epoch": 3,
            "code_revision": None,
            "versions": {"torch": "2.15.0"},
            "created": "2026-11-23T12:00:00Z",
            "parent": None,
            "device": "cpu",
            "threads": 2,
        },
        "imported": {
            "source": "model_best.pth.tar",
            "sha256": "cd" * 32,
            "versions": {"torch": "2.15.0"},
            "created": "2026-11-23T12:00:00Z",
        },
        "calibration": {"temperature": 1.5},
        "out_of_distribution": {"method": "energy", "threshold": -3.5},
    }


def _read(document: object) -> Manifest:
    return Manifest.model_validate_json(json.dumps(document))


def _changed(place: str, value: object) -> dict[str, Any]:
    document = _document()
    *path, last = place.split(".")
    section: Any = document
    for key in path:
        section = section[key]
    section[last] = value
    return document


def test_a_manifest_without_a_program_is_written_as_before_there_were_programs() -> None:
    """The hash was made by the last version that knew no programs."""
    sha256 = hashlib.sha256(_read(_document()).to_json().encode()).hexdigest()
    assert sha256 == "9ad5ed43dbc7075724fd5f7bb0e8131fe82ec5a8878f9a51e595844d23a47929"


def test_a_manifest_survives_the_way_through_json() -> None:
    manifest = _read(_document())
    assert Manifest.model_validate_json(manifest.model_dump_json()) == manifest
    assert manifest.preprocess.resize == (28, 28)
    assert manifest.temperature == 1.5


@pytest.mark.parametrize(
    "section", ["metrics", "per_class", "curve", "provenance", "imported", "calibration", "out_of_distribution"]
)
def test_an_optional_section_may_be_null_or_left_out(section: str) -> None:
    absent = _document()
    del absent[section]
    assert _read(absent) == _read(_changed(section, None))
    assert getattr(_read(absent), section) is None


@pytest.mark.parametrize("ink", [False, True])
def test_its_text_names_a_later_field_of_the_preprocess_only_where_that_says_something(ink: bool) -> None:
    """Servers from before the field refuse what they do not know."""
    document = _document()
    document["preprocess"] |= {"mode": "L", "mean": [0.5], "std": [0.5], "ink_on_paper": ink}
    manifest = _read(document)
    assert Manifest.model_validate_json(manifest.to_json()) == manifest
    assert ("ink_on_paper" in json.loads(manifest.to_json())["preprocess"]) == ink


def test_without_a_calibration_the_temperature_is_one() -> None:
    assert _read(_changed("calibration", None)).temperature == 1.0


@pytest.mark.parametrize(
    "place",
    [
        "surprise",
        "preprocess.surprise",
        "metrics.surprise",
        "provenance.surprise",
        "provenance.dataset.surprise",
        "imported.surprise",
        "calibration.surprise",
        "out_of_distribution.surprise",
    ],
)
def test_an_unknown_key_is_refused_wherever_it_stands(place: str) -> None:
    with pytest.raises(ValidationError, match="surprise"):
        _read(_changed(place, 1))


@pytest.mark.parametrize(
    "place",
    ["model", "architecture", "labels", "preprocess", "metrics.split", "provenance.seed", "calibration.temperature"],
)
def test_what_is_not_optional_must_be_there(place: str) -> None:
    with pytest.raises(ValidationError):
        _read(_changed(place, None))


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("format", 2),
        ("format", "1"),
        ("format", None),
        ("labels", ["same", "same"]),
        ("labels", ["one"]),
        ("labels", ["a", ""]),
        ("labels", ["a", "b" * 257]),
        ("labels", "01"),
        ("architecture", ""),
        ("preprocess.mode", "CMYK"),
        ("preprocess.mean", [0.5, 0.5]),
        ("preprocess.std", [0.0]),
        ("metrics.accuracy", 1.01),
        ("metrics.samples", 0),
        ("metrics.loss", -0.1),
        ("metrics.calibration_error", -0.1),
        ("per_class", [{"precision": 1.0, "recall": 1.0, "samples": 1}]),
        ("curve", [{"epoch": 0, "loss": 0.4, "accuracy": 0.9, "held_out_loss": 0.3, "held_out_accuracy": 0.9}]),
        ("provenance.epoch", 0),
        ("provenance.threads", 0),
        ("imported.sha256", "unknown"),
        ("provenance.created", "yesterday"),
        ("provenance.dataset.fingerprint", "AB" * 32),
        ("provenance.dataset.fingerprint", "ab" * 31),
        ("calibration.temperature", 0),
        ("out_of_distribution.method", "guess"),
    ],
)
def test_a_value_that_makes_no_sense_is_refused(place: str, value: object) -> None:
    with pytest.raises(ValidationError, match=place.split(".")[0]):
        _read(_changed(place, value))


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "place",
    [
        "preprocess.mean",
        "preprocess.std",
        "metrics.accuracy",
        "metrics.loss",
        "provenance.recipe.lr",
        "provenance.recipe.layers",
        "calibration.temperature",
        "out_of_distribution.threshold",
    ],
)
def test_numbers_that_are_not_finite_are_refused(place: str, number: float) -> None:
    wanted = [number] if place.endswith(("mean", "std", "layers")) else number
    with pytest.raises(ValidationError):
        _read(_changed(place, wanted))  # JSON as Python writes it has NaN and Infinity
    with pytest.raises(ValidationError):
        Manifest.model_validate(_changed(place, wanted))


@pytest.mark.parametrize(("levels", "fits"), [(30, True), (40, False), (190, False)])
@pytest.mark.parametrize("kind", ["list", "dict"])
def test_a_recipe_may_be_nested_but_not_without_end(levels: int, kind: str, fits: bool) -> None:
    """Every reader must be able to carry it, inside whatever it is sent in."""
    value: Any = 1
    for _ in range(levels):
        value = [value] if kind == "list" else {"in": value}
    changed = _changed("provenance.recipe.layers", value)
    if fits:
        assert _read(changed).provenance is not None
    else:
        with pytest.raises(ValidationError, match="nested deeper"):
            _read(changed)


@pytest.mark.parametrize("name", ["a", "0", "digits", "resnet18-v1.5_b", "a" * 64])
def test_a_models_name_may_be_a_folder_of_the_store(name: str) -> None:
    assert _read(_changed("model", name)).model == name


@pytest.mark.parametrize(
    "name", ["", "A", "-a", ".a", "_a", "a b", "a/b", "../a", "a\n", "a\x00", "é", "a" * 65, "a\\b", "٣"]
)
def test_any_other_name_is_refused(name: str) -> None:
    with pytest.raises(ValidationError, match="model"):
        _read(_changed("model", name))


def test_a_manifest_cannot_be_changed() -> None:
    with pytest.raises(ValidationError, match="frozen"):
        _read(_document()).model = "other"  # type: ignore[misc]


def test_the_operators_of_a_program_are_no_more_than_a_list_of_models_can_show() -> None:
    document = {**_document(), "format": 2, "program": {"torch": "2.15.0", "operators": ["relu"] * 1000}}
    assert _read(document).program is not None
    document["program"]["operators"] *= 2
    with pytest.raises(ValidationError, match="at most 1000 items"):
        _read(document)
