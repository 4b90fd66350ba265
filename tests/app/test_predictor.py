"""From pixels to predictions, on one device."""

import numpy as np
import pytest
import torch

from app.engine import ItemError
from app.predictor import Item, Predictor
from classifier.checkpoint import Checkpoint
from classifier.manifest import Calibration
from classifier.preprocess import Preprocess
from tests.checkpoints import DIGITS, PHOTOS, checkpoint, logits, png, to_pixels


def predictor(content: Checkpoint, *, device: str = "cpu", max_items: int = 16) -> Predictor:
    return Predictor(content.build(), content.manifest, device=torch.device(device), max_items=max_items)


@pytest.mark.parametrize(("architecture", "preprocess"), [("mnist_cnn", DIGITS), ("resnet18", PHOTOS)])
def test_the_logits_are_the_networks_own(architecture: str, preprocess: Preprocess) -> None:
    content = checkpoint(architecture=architecture, preprocess=preprocess)
    pixels = [to_pixels(png(i, preprocess.shape[1::-1], preprocess.mode), preprocess) for i in range(5)]
    expected = logits(content.build(), preprocess, torch.from_numpy(np.stack(pixels)))
    torch.testing.assert_close(predictor(content).logits(pixels), expected, rtol=1e-4, atol=1e-5)


def test_predictions_are_sorted_softmax_scores_of_the_logits() -> None:
    content = checkpoint()
    (prediction,) = predictor(content).predict([Item(to_pixels(png(3)), 10)])
    scores = torch.softmax(logits(content.build(), DIGITS, torch.from_numpy(to_pixels(png(3))[None])), dim=1)[0]
    assert not isinstance(prediction, ItemError)
    assert [each.probability for each in prediction] == pytest.approx(sorted(scores.tolist(), reverse=True), abs=1e-5)
    assert [each.class_index for each in prediction] == scores.argsort(descending=True).tolist()
    assert [each.label for each in prediction] == [str(each.class_index) for each in prediction]


def test_the_temperature_of_the_manifest_is_divided_by() -> None:
    plain = checkpoint()
    cooled = Checkpoint(
        plain.manifest.model_copy(update={"calibration": Calibration(temperature=0.01)}), plain.network, plain.reference
    )
    item = Item(to_pixels(png(3)), 1)
    (before,), (after,) = predictor(plain).predict([item]), predictor(cooled).predict([item])
    assert not isinstance(before, ItemError)
    assert not isinstance(after, ItemError)
    assert before[0].class_index == after[0].class_index
    assert after[0].probability > before[0].probability + 0.1


def test_each_item_gets_as_many_predictions_as_it_asked_for_up_to_the_classes() -> None:
    items = [Item(to_pixels(png(i)), top_k) for i, top_k in enumerate((1, 10, 3, 500))]
    assert [len(row) for row in predictor(checkpoint()).predict(items)] == [1, 10, 3, 10]


def test_an_item_gets_the_same_answer_in_any_company() -> None:
    model = predictor(checkpoint())
    items = [Item(to_pixels(png(i)), 10) for i in range(16)]
    together = model.predict(items)
    for item, row in zip(items, together, strict=True):
        (alone,) = model.predict([item])
        assert not isinstance(row, ItemError)
        assert not isinstance(alone, ItemError)
        assert [each.probability for each in row] == pytest.approx([each.probability for each in alone], abs=1e-5)


def test_scores_that_are_not_finite_are_the_items_own_error() -> None:
    content = checkpoint()
    network = content.build()
    (network.get_parameter("fc2.bias")).fill_(torch.nan)
    model = Predictor(network, content.manifest, device=torch.device("cpu"), max_items=2)
    (outcome,) = model.predict([Item(to_pixels(png()), 5)])
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
