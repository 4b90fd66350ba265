"""Digits as people really have them are read over HTTP: scans, pencil, blackboards, coloured ink, transparent files."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

import httpx2
import numpy as np
import pytest
import torch
from PIL import Image

from classifier.checkpoint import Checkpoint
from classifier.normalize import normalizer
from tests.support.digits import write_mnist
from tests.support.images import Array, encoded
from tests.support.runs import same_weights
from tests.support.server import serving
from training.commands.train import train
from training.data import torchvision_datasets
from training.data.strokes.draw import draw_digits
from training.recipes.builtin import builtin
from training.recipes.recipe import Recipe, TorchvisionSource

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("one_thread")]

WITHOUT = {"ink_on_paper": False, "background": 0}
COUNT = 60


class Answer(NamedTuple):
    label: str
    familiar: bool
    score: float


def _grey(digit: Array, paper: int, ink: int) -> Image.Image:
    return Image.fromarray((paper + (ink - paper) * (digit / 255)).round().astype(np.uint8))


def _coloured(digit: Array, paper: tuple[int, ...], ink: tuple[int, ...]) -> Image.Image:
    share = digit[..., None] / 255
    return Image.fromarray((np.array(paper) * (1 - share) + np.array(ink) * share).round().astype(np.uint8))


def _transparent(digit: Array, ink: int) -> Image.Image:
    grey = Image.new("L", digit.shape[::-1], ink)
    return Image.merge("LA", (grey, Image.fromarray(digit)))


def _large(digit: Array, paper: int, ink: int) -> bytes:
    return encoded(_grey(digit, paper, ink).resize((280, 280), Image.Resampling.BICUBIC), "JPEG", quality=85)


# Files of the same digit. White on black is the first: the others are to be answered as it is.
FILES: dict[str, Callable[[Array], bytes]] = {
    "white on black": lambda digit: encoded(Image.fromarray(digit)),
    "black on white": lambda digit: encoded(Image.fromarray(255 - digit)),
    "grey paper": lambda digit: encoded(_grey(digit, 150, 20)),
    "grey on black": lambda digit: encoded(_grey(digit, 0, 128)),
    "pencil": lambda digit: encoded(_grey(digit, 230, 180)),
    "blackboard": lambda digit: encoded(_grey(digit, 70, 230)),
    "blue ink on yellow paper": lambda digit: encoded(_coloured(digit, (250, 240, 170), (20, 30, 120))),
    "black ink on nothing": lambda digit: encoded(_transparent(digit, 0)),
    "white ink on nothing": lambda digit: encoded(_transparent(digit, 255)),
}


def _recipe(kind: str, *, samples: int = 3000, epochs: int = 3) -> Recipe:
    source = {"kind": "strokes", "samples": samples, "test_samples": 200} if kind == "strokes" else {"kind": kind}
    return builtin(kind).replace(source=source, held_out=300, epochs=epochs)


@pytest.fixture(scope="module", params=["strokes", "mnist"])
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of drawn digits, by the recipe for them or by the one for MNIST."""
    folder = tmp_path_factory.mktemp(request.param)
    data = write_mnist(folder / "data", train=3000, test=200)
    train(
        _recipe(request.param),
        store=folder / "store",
        runs=folder / "runs",
        data=data,
        device="cpu",
        pictures=False,
    )
    return folder / "store"


@pytest.fixture(scope="module")
def client(store: Path) -> Iterator[httpx2.Client]:
    with serving(store, "--device", "cpu") as server, httpx2.Client(base_url=server.url, timeout=60) as client:
        yield client


@pytest.fixture(scope="module")
def digits() -> Array:
    images: Array = draw_digits(COUNT, seed=11)[0]
    return images


def _answers(client: httpx2.Client, files: list[bytes]) -> list[Answer]:
    answers = []
    for file in files:
        response = client.post("/predict", content=file, headers={"Content-Type": "application/octet-stream"})
        assert response.status_code == 200, response.text
        body = response.json()
        answers.append(Answer(body["predictions"][0]["label"], body["in_distribution"], body["score"]))
    return answers


def test_a_negative_is_answered_just_as_white_on_black(client: httpx2.Client, digits: Array) -> None:
    usual, negative = (_answers(client, [FILES[kind](d) for d in digits]) for kind in list(FILES)[:2])
    assert usual == negative


@pytest.mark.parametrize("kind", list(FILES)[2:])
def test_a_digit_is_read_as_white_on_black_whatever_it_is_written_with(
    client: httpx2.Client, digits: Array, kind: str
) -> None:
    usual = _answers(client, [FILES["white on black"](digit) for digit in digits])
    _nearly_all_alike(usual, _answers(client, [FILES[kind](digit) for digit in digits]))


def test_a_scan_of_many_pixels_is_read_as_its_negative(client: httpx2.Client, digits: Array) -> None:
    usual = _answers(client, [_large(digit, 10, 225) for digit in digits])
    _nearly_all_alike(usual, _answers(client, [_large(digit, 245, 30) for digit in digits]))


def _nearly_all_alike(usual: list[Answer], others: list[Answer]) -> None:
    assert sum(one.label == other.label for one, other in zip(usual, others, strict=True)) >= COUNT - 2
    assert sum(each.familiar for each in others) >= sum(each.familiar for each in usual) - 3


@pytest.mark.parametrize("level", [0, 90, 128, 255])
def test_an_empty_page_is_flagged(client: httpx2.Client, level: int) -> None:
    page = encoded(Image.new("L", (28, 28), level))
    assert [each.familiar for each in _answers(client, [page])] == [False]


@pytest.mark.parametrize("kind", ["strokes", "mnist"])
def test_digits_in_the_usual_polarity_are_learnt_and_scored_as_without_it_to_the_last_bit(
    tmp_path: Path, kind: str
) -> None:
    recipe = _recipe(kind, samples=900, epochs=1)
    plain = recipe.replace(preprocess=recipe.preprocess.model_copy(update=WITHOUT))
    data = write_mnist(tmp_path / "data", train=900, test=200)
    with_ink, without = (
        train(each, name=name, store=tmp_path, runs=tmp_path / "runs", data=data, device="cpu", pictures=False)
        for each, name in ((recipe, "ink"), (plain, "plain"))
    )
    assert same_weights(with_ink, without)
    one, other = Checkpoint.load(with_ink).manifest, Checkpoint.load(without).manifest
    assert one.metrics == other.metrics
    assert one.out_of_distribution == other.out_of_distribution
    assert one.preprocess.ink_on_paper
    assert not other.preprocess.ink_on_paper


def test_real_digits_are_called_in_distribution_and_read_alike_in_both_polarities(
    store: Path, shared_data: Path
) -> None:
    (path,) = store.glob("*/1.safetensors")
    checkpoint = Checkpoint.load(path)
    mnist = torchvision_datasets.load(TorchvisionSource(kind="mnist"), shared_data / "mnist", seed=0)
    some = mnist.test[:2000]
    pixels, targets = (
        torch.from_numpy(np.asarray(mnist.pictures)[some])[..., None],
        torch.from_numpy(mnist.targets[some]),
    )
    preprocess = checkpoint.manifest.preprocess
    network = checkpoint.build()
    without, usual, negative = (
        network(normalizer(each, device=torch.device("cpu"))(images)).detach()
        for each, images in (
            (preprocess.model_copy(update=WITHOUT), pixels),
            (preprocess, pixels),
            (preprocess, 255 - pixels),
        )
    )
    assert torch.equal(usual, without)  # and so the scores, by which images are flagged
    assert torch.equal(negative, usual)
    assert (negative.argmax(1) == targets).float().mean() > 0.8  # after so short a training
