"""The promise of the project: what was trained is what is served, to the last image."""

import asyncio
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest
import torch
from PIL import Image

from classifier.checkpoint import Checkpoint
from classifier.progress import Progress
from tests.support.images import encoded
from tests.support.server import serving
from training.commands.train import train
from training.data.batches import Split
from training.data.dataset import load_dataset
from training.evaluation.measure import measured
from training.recipes.builtin import builtin
from training.recipes.recipe import StrokesSource

pytestmark = pytest.mark.anyio

CLIENTS = 32
# What summing in another order may change of a probability in fp32.
SAME = 1e-4


@dataclass(frozen=True, slots=True)
class Answer:
    version: int
    labels: tuple[str, ...]
    probabilities: tuple[float, ...]
    score: float
    in_distribution: bool


@pytest.mark.slow
async def test_over_http_the_accuracy_is_the_manifests_and_each_answer_is_the_one_given_alone(tmp_path: Path) -> None:
    recipe = builtin("strokes").replace(source=StrokesSource(samples=3000, test_samples=400), held_out=200, epochs=1)
    path = train(recipe, store=tmp_path / "store", runs=tmp_path / "runs", device="cpu")
    metrics = Checkpoint.load(path).manifest.metrics
    assert metrics is not None
    test = load_dataset(recipe, folder=tmp_path, scratch=tmp_path / "runs", progress=Progress.silent()).test
    ((images, _),) = test.batches([torch.arange(len(test))], device=torch.device("cpu"))
    files = [encoded(Image.fromarray(image.squeeze())) for image in images.numpy()]
    truth = [str(target) for target in test.targets.tolist()]

    with serving(tmp_path / "store", "--device", "cpu") as server:
        async with httpx2.AsyncClient(base_url=server.url, timeout=60) as client:
            together = await posted_at_once(client, files)
            alone = [await post(client, file) for file in files]

    right = sum(answer.labels[0] == label for answer, label in zip(together, truth, strict=True))
    assert right / len(files) == pytest.approx(metrics.accuracy, abs=1e-12)
    assert metrics.samples == len(files)
    for crowd, single in zip(together, alone, strict=True):
        assert crowd.version == single.version == 1
        assert by_label(crowd) == pytest.approx(by_label(single), abs=SAME)
        assert crowd.score == pytest.approx(single.score, abs=10 * SAME)
        if single.probabilities[0] - single.probabilities[1] > SAME:
            assert crowd.labels[0] == single.labels[0]
    trusted_as_in_training(alone, Checkpoint.load(path), test)


def trusted_as_in_training(answers: list[Answer], checkpoint: Checkpoint, test: Split) -> None:
    """Probabilities are calibrated, and what is strange is flagged, just as training measures it."""
    manifest = checkpoint.manifest
    assert manifest.out_of_distribution is not None
    logits = measured(
        checkpoint.build(), test, manifest.preprocess, torch.device("cpu"), name="test", temperature=1
    ).logits
    calibrated = torch.softmax(logits / manifest.temperature, dim=1)
    energies = torch.logsumexp(logits, dim=1)
    for answer, probabilities, energy in zip(answers, calibrated.tolist(), energies.tolist(), strict=True):
        assert by_label(answer) == pytest.approx(dict(zip(manifest.labels, probabilities, strict=True)), abs=SAME)
        assert answer.score == pytest.approx(energy, abs=10 * SAME)
        assert answer.in_distribution == (answer.score >= manifest.out_of_distribution.threshold)
    assert {answer.in_distribution for answer in answers} == {True, False}


async def posted_at_once(client: httpx2.AsyncClient, files: list[bytes]) -> list[Answer]:
    """All of them, by many clients that each post one after the other."""
    answers: dict[int, Answer] = {}
    waiting = iter(enumerate(files))

    async def work() -> None:
        for index, file in waiting:
            answers[index] = await post(client, file)

    await asyncio.gather(*(work() for _ in range(CLIENTS)))
    return [answers[index] for index in range(len(files))]


async def post(client: httpx2.AsyncClient, file: bytes) -> Answer:
    response = await client.post("/predict?top_k=10", files={"file": ("digit.png", file, "image/png")})
    assert response.status_code == 200, response.text
    body = response.json()
    return Answer(
        body["version"],
        tuple(each["label"] for each in body["predictions"]),
        tuple(each["probability"] for each in body["predictions"]),
        body["score"],
        body["in_distribution"],
    )


def by_label(answer: Answer) -> dict[str, float]:
    return dict(zip(answer.labels, answer.probabilities, strict=True))
