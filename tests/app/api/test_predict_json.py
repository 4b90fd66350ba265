"""The documents written by hand are sound JSON, and labels are quoted once for each version."""

import json

import pytest

from app.api.predict_json import PredictJson
from app.api.prediction import Item
from app.engine.predictions import ItemAnswer, ItemError, Prediction
from app.http.problems import Problem

LABELS = ['a "b"', "back\\slash", "two\nlines", "nul \x00", "sieben β 七", "</script>", "\u2028"]
ANSWER = ItemAnswer(tuple(Prediction(label, i, i / 8) for i, label in enumerate(LABELS)), 16.69147300720215, True)
PREDICTIONS = [{"label": label, "index": i, "probability": i / 8} for i, label in enumerate(LABELS)]


def test_one_image_has_its_predictions_and_its_score_to_the_last_digit() -> None:
    assert json.loads(PredictJson().one("digits", 3, ANSWER)) == {
        "model": "digits",
        "version": 3,
        "predictions": PREDICTIONS,
        "in_distribution": True,
        "score": 16.69147300720215,
    }


def test_a_model_without_a_threshold_says_nothing_of_it() -> None:
    answer = ItemAnswer(ANSWER.predictions)
    assert list(json.loads(PredictJson().one("digits", 3, answer))) == ["model", "version", "predictions"]


def test_the_error_of_the_only_image_is_a_problem() -> None:
    with pytest.raises(Problem) as raised:
        PredictJson().one("digits", None, ItemError("bad_image", "damaged"))
    assert (raised.value.code, raised.value.detail) == ("bad_image", "damaged")


def test_several_images_have_each_its_name_and_its_predictions_or_its_error() -> None:
    names = ['"a".png', None, "七.png"]
    items: list[Item] = [ANSWER, ItemError("bad_image", 'no "image"'), ItemAnswer(ANSWER.predictions[:1])]
    assert json.loads(PredictJson().several("digits", 3, names, items)) == {
        "model": "digits",
        "version": 3,
        "results": [
            {"filename": '"a".png', "predictions": PREDICTIONS, "in_distribution": True, "score": 16.69147300720215},
            {"filename": None, "error": {"code": "bad_image", "detail": 'no "image"'}},
            {"filename": "七.png", "predictions": PREDICTIONS[:1]},
        ],
    }


def test_the_version_is_null_where_none_answered() -> None:
    assert json.loads(PredictJson().several("digits", None, [], []))["version"] is None


def test_many_models_with_many_labels_keep_each_label_as_it_was_made_first() -> None:
    as_json = PredictJson()
    labels = [f"label {i}" for i in range(1000)]
    first = [as_json.labels(f"model {m}", 1)[label] for m in range(20) for label in labels]
    again = [as_json.labels(f"model {m}", 1)[label] for m in range(20) for label in labels]
    assert all(a is b for a, b in zip(first, again, strict=True))


def test_a_version_makes_room_once_there_are_very_many() -> None:
    as_json = PredictJson()
    oldest, newest = as_json.labels("digits", 1), None
    for version in range(1, 1000):
        newest = as_json.labels("digits", version)
    assert as_json.labels("digits", 999) is newest
    assert as_json.labels("digits", 1) is not oldest
