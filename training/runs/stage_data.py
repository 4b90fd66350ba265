"""Chooses what a stage trains on: the images or, if a frozen part always makes the same of them, its features."""

from dataclasses import dataclass
from pathlib import Path

import torch

from classifier.normalize import normalizer
from classifier.progress import Progress
from training.data.batches import Split
from training.data.dataset import Dataset
from training.evaluation.logits import Forward, logits_of
from training.evaluation.score import Score
from training.networks import heads
from training.process_group import ALONE, ProcessGroup
from training.recipes.recipe import Augment, Recipe, Stage
from training.runs import features
from training.runs.learner import Learner


@dataclass(frozen=True, slots=True)
class StageData:
    """Holds what a stage trains on.

    Args:
        forward: makes logits of a batch of these splits, in training.
        measuring: does the same in eval mode.
        group: the processes that share the work.
    """

    train: Split
    held_out: Split
    forward: Forward
    measuring: Forward
    group: ProcessGroup

    def held_out_score(self, learner: Learner) -> Score:
        """Returns the score of the learner's weights on the held-out samples."""
        logits = logits_of(
            learner.network, self.held_out, forward=self.measuring, device=learner.device, group=self.group
        )
        return Score.of(logits, self.held_out.targets)


def stage_data(
    stage: Stage,
    learner: Learner,
    recipe: Recipe,
    dataset: Dataset,
    scratch: Path,
    progress: Progress,
    group: ProcessGroup = ALONE,
) -> StageData:
    """Returns what a stage trains on.

    It is features if the network can be cut in two above what is frozen, if nothing is done to the images at random,
    and if there is more than one epoch to gain from it. Otherwise it is images.

    Args:
        scratch: features are kept in `<scratch>/features`. Those of this stage stay; of the others the oldest are
            removed when all together have more than `features.MOST_BYTES`.
        group: the processes that share the work.

    Raises: TrainingError if an image cannot be read; OSError if features cannot be written.
    """
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
            group=group,
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
            unchanged=dataset.unchanged,
            progress=progress,
            title=f"features of {title} images",
            group=group,
        )
        for title, split in {"training": dataset.train, "held-out": dataset.held_out}.items()
    )
    if group.is_first:
        features.remove_old(folder, keep=paths.values())
    tail = heads.tail(network, parts)
    return StageData(
        train, held_out, forward=torch.compile(tail) if recipe.compiled else tail, measuring=tail, group=group
    )


def first_two(split: Split, device: torch.device) -> torch.Tensor:
    """Returns two real images to try something with, or one if there are no more."""
    ((images, _),) = split.batches([torch.arange(min(2, len(split)))], device=device)
    return images


def _cause(recipe: Recipe, dataset: Dataset, learner: Learner) -> dict[str, object]:
    """Returns all that decides the features, except the frozen weights."""
    return {
        "data": dataset.fingerprint,
        "split": [recipe.seed, recipe.held_out, recipe.source.model_dump(mode="json")],
        "preprocess": recipe.preprocess.model_dump(mode="json"),
        "architecture": [recipe.architecture, *learner.parts],
        "on": [learner.device.type, torch.__version__],
    }
