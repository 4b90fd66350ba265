"""From pixels to predictions, on one device."""

import math
from typing import Any

import numpy as np
import pytest
import torch

from app.engine.predictions import ItemAnswer, ItemError
from app.engine.rows import Item
from app.inference.predictor import Predictor
from classifier.checkpoint import Checkpoint
from classifier.manifest import Calibration, OutOfDistribution
from classifier.preprocess import Preprocess
from classifier.scores import SCORES
from tests.support.checkpoints import DIGITS, PHOTOS, checkpoint, logits, png, saying, to_pixels


def predictor(content: Checkpoint, *, device: str = "cpu", max_items: int = 16) -> Predictor:
    return Predictor(content.build(), content.manifest, device=torch.device(device), max_items=max_items)


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "preprocess"), [("mnist_cnn", DIGITS), ("resnet18", PHOTOS)])
def test_the_logits_are_the_networks_own(architecture: str, preprocess: Preprocess) -> None:
    content = checkpoint(architecture=architecture, preprocess=preprocess)
    pixels = [to_pixels(png(i, preprocess.shape[1::-1], preprocess.mode), preprocess) for i in range(5)]
    expected = logits(content.build(), preprocess, torch.from_numpy(np.stack(pixels)))
    torch.testing.assert_close(predictor(content).logits(pixels), expected, rtol=1e-4, atol=1e-5)


def answers(model: Predictor, *items: Item) -> list[ItemAnswer]:
    """None of them may have failed."""
    outcomes = [
        model.row_decoder.decode(row.tolist(), item.top_k)
        for row, item in zip(model.predict(items), items, strict=True)
    ]
    assert all(isinstance(outcome, ItemAnswer) for outcome in outcomes), outcomes
    return [outcome for outcome in outcomes if isinstance(outcome, ItemAnswer)]


def with_logits(logits: list[float], **sections: Any) -> Predictor:
    """A network that gives every image these logits."""
    content = saying(checkpoint(), **sections)
    network = content.build()
    network.get_parameter("fc2.weight").zero_()
    network.get_parameter("fc2.bias").copy_(torch.tensor(logits))
    return Predictor(network, content.manifest, device=torch.device("cpu"), max_items=2)


def test_predictions_are_sorted_softmax_scores_of_the_logits() -> None:
    content = checkpoint()
    (answer,) = answers(predictor(content), Item(to_pixels(png(3)), 10))
    scores = torch.softmax(logits(content.build(), DIGITS, torch.from_numpy(to_pixels(png(3))[None])), dim=1)[0]
    predictions = answer.predictions
    assert [each.probability for each in predictions] == pytest.approx(sorted(scores.tolist(), reverse=True), abs=1e-5)
    assert [each.class_index for each in predictions] == scores.argsort(descending=True).tolist()
    assert [each.label for each in predictions] == [str(each.class_index) for each in predictions]


def test_the_temperature_of_the_manifest_is_divided_by() -> None:
    plain = checkpoint()
    cooled = saying(plain, calibration=Calibration(temperature=0.01))
    item = Item(to_pixels(png(3)), 1)
    (before,), (after,) = answers(predictor(plain), item), answers(predictor(cooled), item)
    assert before.predictions[0].class_index == after.predictions[0].class_index
    assert after.predictions[0].probability > before.predictions[0].probability + 0.1


@pytest.mark.parametrize(
    ("method", "score"), [("energy", math.log(math.exp(3) + math.e + 8)), ("max_logit", 3.0), ("max_probability", None)]
)
def test_the_score_is_of_the_logits_as_the_network_gives_them(method: Any, score: float | None) -> None:
    expected = math.exp(3) / (math.exp(3) + math.e + 8) if score is None else score
    for threshold, reached in ((expected - 1e-4, True), (expected + 1e-4, False)):
        model = with_logits(
            [0, 0, 3, 0, 1, 0, 0, 0, 0, 0],
            out_of_distribution=OutOfDistribution(method=method, threshold=threshold),
            calibration=Calibration(temperature=2.5),
        )
        (answer,) = answers(model, Item(to_pixels(png()), 2))
        assert answer.score == pytest.approx(expected, abs=1e-5)
        assert answer.in_distribution is reached
        assert [each.class_index for each in answer.predictions] == [2, 4]


def test_a_score_that_is_the_threshold_reaches_it() -> None:
    section = OutOfDistribution(method="max_logit", threshold=3)
    (answer,) = answers(with_logits([3.0, *[0.0] * 9], out_of_distribution=section), Item(to_pixels(png()), 1))
    assert answer.in_distribution is True


@pytest.mark.parametrize("method", SCORES)
@pytest.mark.parametrize("logits", [[3.4e38] * 10, [-3.4e38] * 10, [3.4e38] + [-3.4e38] * 9, [0.0] * 10])
@pytest.mark.parametrize("temperature", [1e-30, 1, 1e30])
def test_where_there_are_predictions_the_score_is_finite(method: Any, logits: list[float], temperature: float) -> None:
    """An answer in JSON could not carry it otherwise."""
    section = OutOfDistribution(method=method, threshold=0)
    model = with_logits(logits, out_of_distribution=section, calibration=Calibration(temperature=temperature))
    (row,) = model.predict([Item(to_pixels(png()), 1)])
    outcome = model.row_decoder.decode(row.tolist(), 1)
    if isinstance(outcome, ItemAnswer):
        assert outcome.score is not None
        assert math.isfinite(outcome.score)


def test_a_score_is_the_same_whatever_its_neighbours_ask_for() -> None:
    content = saying(checkpoint(), out_of_distribution=OutOfDistribution(method="energy", threshold=0))
    model = predictor(content)
    items = [Item(to_pixels(png(i)), top_k) for i, top_k in enumerate((1, 10, 3, 500))]
    alone = [answers(model, item)[0].score for item in items]
    assert [answer.score for answer in answers(model, *items)] == pytest.approx(alone, abs=1e-5)
    assert len(set(alone)) == len(items)


def test_each_item_gets_as_many_predictions_as_it_asked_for_up_to_the_classes() -> None:
    items = [Item(to_pixels(png(i)), top_k) for i, top_k in enumerate((1, 10, 3, 500))]
    assert [len(answer.predictions) for answer in answers(predictor(checkpoint()), *items)] == [1, 10, 3, 10]


def test_an_item_gets_the_same_answer_in_any_company() -> None:
    model = predictor(checkpoint())
    items = [Item(to_pixels(png(i)), 10) for i in range(16)]
    for item, answer in zip(items, answers(model, *items), strict=True):
        (alone,) = answers(model, item)
        assert [each.probability for each in answer.predictions] == pytest.approx(
            [each.probability for each in alone.predictions], abs=1e-5
        )


def test_scores_that_are_not_finite_are_the_items_own_error() -> None:
    content = checkpoint()
    network = content.build()
    (network.get_parameter("fc2.bias")).fill_(torch.nan)
    model = Predictor(network, content.manifest, device=torch.device("cpu"), max_items=2)
    (row,) = model.predict([Item(to_pixels(png()), 5)])
    outcome = model.row_decoder.decode(row.tolist(), 5)
    assert isinstance(outcome, ItemError)
    assert outcome.code == "prediction_failed"


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
@pytest.mark.parametrize(("architecture", "preprocess"), [("mnist_cnn", DIGITS), ("resnet18", PHOTOS)])
def test_a_gpu_agrees_with_the_cpu(architecture: str, preprocess: Preprocess) -> None:
    content = checkpoint(architecture=architecture, preprocess=preprocess)
    pixels = [to_pixels(png(i, preprocess.shape[1::-1], preprocess.mode), preprocess) for i in range(9)]
    on_cpu, on_gpu = (predictor(content, device=device).logits(pixels).cpu() for device in ("cpu", "cuda"))
    torch.testing.assert_close(on_gpu, on_cpu, rtol=1e-3, atol=1e-3)
