"""StageData: what a stage goes over. The images, or what a frozen part makes of them where that is always the same."""

from dataclasses import dataclass
from pathlib import Path

import torch

from classifier.normalize import normalizer
from training.data.batches import Split
from training.data.dataset import Dataset
from training.evaluation.logits import Forward, logits_of
from training.evaluation.score import Score
from training.networks import heads
from training.progress import Progress
from training.recipes.recipe import Augment, Recipe, Stage
from training.runs import features
from training.runs.learner import Learner


@dataclass(frozen=True, slots=True)
class StageData:
    """Args:
    forward: what batches of these splits become logits by, in training.
    measuring: the same, in eval mode.
    """

    train: Split
    held_out: Split
    forward: Forward
    measuring: Forward

    def held_out_score(self, learner: Learner) -> Score:
        logits = logits_of(learner.network, self.held_out, forward=self.measuring, device=learner.device)
        return Score.of(logits, self.held_out.targets)


def stage_data(
    stage: Stage, learner: Learner, recipe: Recipe, dataset: Dataset, scratch: Path, progress: Progress
) -> StageData:
    """Features where the network can be cut in two at what is frozen, nothing is done to the images at random, and
    there is more than one epoch to gain from it."""
    network, parts = learner.network, learner.parts
    normalize = normalizer(recipe.preprocess, device=learner.device)
    worth_it = parts != heads.WHOLE and recipe.augment == Augment() and stage.epochs > 1
    if not worth_it or not heads.separable(network, parts, normalize(first_two(dataset.train, learner.device))):
        trained = torch.compile(network) if recipe.compiled else network
        return StageData(
            dataset.train,
            dataset.held_out,
            forward=lambda images: trained(normalize(images)),
            measuring=lambda images: network(normalize(images)),
        )
    key = features.key(_cause(recipe, dataset, learner), network, parts)
    folder = scratch / "features"
    paths = {title: folder / f"{key}-{title}.npy" for title in ("training", "held-out")}
    train, held_out = (
        features.computed(
            split,
            learner,
            normalize=normalize,
            path=paths[title],
            progress=progress,
            title=f"features of {title} images",
        )
        for title, split in {"training": dataset.train, "held-out": dataset.held_out}.items()
    )
    features.remove_old(folder, keep=paths.values())
    tail = heads.tail(network, parts)
    return StageData(train, held_out, forward=torch.compile(tail) if recipe.compiled else tail, measuring=tail)


def first_two(split: Split, device: torch.device) -> torch.Tensor:
    """Two real images to try something out with, or one where there are no more."""
    ((images, _),) = split.batches([torch.arange(min(2, len(split)))], device=device)
    return images


def _cause(recipe: Recipe, dataset: Dataset, learner: Learner) -> dict[str, object]:
    """All that decides the features but the frozen weights."""
    return {
        "data": dataset.fingerprint,
        "split": [recipe.seed, recipe.held_out, recipe.source.model_dump(mode="json")],
        "preprocess": recipe.preprocess.model_dump(mode="json"),
        "architecture": [recipe.architecture, *learner.parts],
        "on": [learner.device.type, torch.__version__],
    }
