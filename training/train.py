"""A run from top to bottom: recipe -> data -> network -> epochs -> test -> checkpoint -> published version."""

import math
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from classifier.architectures import build, skeleton
from classifier.checkpoint import Checkpoint
from classifier.device import choose as choose_device
from classifier.manifest import MODEL_NAME, Manifest, Metrics, Provenance
from classifier.manifest import Dataset as DatasetSection
from classifier.normalize import normalizer
from training import data as datasets
from training.data import Dataset
from training.errors import Interrupted, TrainingError
from training.loop import Learner, evaluate, train_epoch
from training.progress import Progress
from training.provenance import Parent, code_revision, library_versions
from training.publish import publish
from training.recipes import Recipe
from training.reference import reference
from training.schedule import one_cycle
from training.state import Best, State, snapshot


def train(
    recipe: Recipe,
    *,
    store: Path,
    name: str | None = None,
    data: Path = Path("data"),
    runs: Path = Path("runs"),
    device: str = "auto",
    parent: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Path:
    """Trains as the recipe says, publishes the best epoch, and returns the new version's file.

    Args:
        store: the folder of models; the file becomes `<store>/<name>/<version>.safetensors`.
        name: the model's; None: the recipe's.
        data: where data sets that are not drawn are looked for.
        runs: scratch; the run's state is `<runs>/<name>/state.pt` until it is published.
        device: "cuda", "cuda:1", "mps", "cpu", or "auto".
        parent: a published checkpoint to start from.
        resume: go on after the last finished epoch of the same run.
        progress: None: say nothing.

    Raises:
        TrainingError: expected trouble; the message says what to do. Interrupted on Ctrl-C once training has begun.
        OSError: the disk is full, a folder cannot be written to.
    """
    progress = progress or Progress.silent()
    name = recipe.name if name is None else name
    if not re.fullmatch(MODEL_NAME, name):
        raise TrainingError(f"--name {name!r}: 1 to 64 of a-z, 0-9, '.', '_' and '-', the first a letter or digit")
    try:
        on = choose_device(device)
    except ValueError as error:
        raise TrainingError(str(error)) from error
    store.mkdir(parents=True, exist_ok=True)
    origin = None if parent is None else Parent.load(parent)
    dataset = datasets.load(recipe, folder=data, scratch=runs, progress=progress)
    if origin is not None:
        origin.check_fits(recipe, dataset.labels)
    run = _Run(recipe, name, dataset, origin, on, runs / name / "state.pt", progress)

    best = run.epochs(resume=resume)
    try:
        path = publish(run.checkpoint(best), store)
    except KeyboardInterrupt as interrupt:
        raise Interrupted(
            f"interrupted while publishing: all epochs are kept in {run.state_path}; "
            "the same command and --resume publishes them"
        ) from interrupt
    run.state_path.unlink(missing_ok=True)  # done: there is nothing to go on with
    progress.say(f"published {path}")
    return path


@dataclass(frozen=True, slots=True)
class _Run:
    recipe: Recipe
    name: str
    dataset: Dataset
    origin: Parent | None
    device: torch.device
    state_path: Path
    progress: Progress

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides the weights."""
        return self.recipe.model_dump(mode="json") | {
            "data": self.dataset.fingerprint,
            "parent": None if self.origin is None else self.origin.name,
        }

    def epochs(self, *, resume: bool) -> Best:
        """Trains, saves the state after each epoch, and returns the best one."""
        recipe, progress = self.recipe, self.progress
        state = State.load(self.state_path, self.identity) if resume else None
        progress.say(
            f"training {self.name} ({recipe.architecture}) on {self.device}: "
            f"{len(self.dataset.train):,} samples, {len(self.dataset.held_out):,} held out"
        )
        with torch.random.fork_rng(devices=[]):  # torch's own generator is the caller's again afterwards
            torch.manual_seed(recipe.seed)
            learner = self._learner()
            if state is not None:
                state.restore(learner)
                progress.say(f"resumed after epoch {state.epoch} of {recipe.epochs}")
            try:
                while state is None or state.epoch < recipe.epochs:
                    state = self._epoch(learner, state)
            except KeyboardInterrupt as interrupt:
                raise Interrupted(_what_stands(state, recipe, self.state_path)) from interrupt
        return state.best

    def _learner(self) -> Learner:
        network = build(self.recipe.architecture, len(self.dataset.labels))
        if self.origin is not None:
            network.load_state_dict(dict(self.origin.checkpoint.network))
        network.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        optimizer = torch.optim.SGD(
            network.parameters(),
            lr=self.recipe.lr,
            momentum=self.recipe.momentum,
            nesterov=self.recipe.momentum > 0,
            weight_decay=self.recipe.weight_decay,
        )
        return Learner(network, optimizer, torch.Generator().manual_seed(self.recipe.seed))

    def _epoch(self, learner: Learner, before: State | None) -> State:
        recipe = self.recipe
        epoch = 1 if before is None else before.epoch + 1
        train, held_out = self.dataset.train.to(self.device), self.dataset.held_out.to(self.device)
        peak = recipe.lr if self.origin is None else recipe.lr_continued or recipe.lr
        steps = math.ceil(len(train) / recipe.batch_size)
        normalize = normalizer(recipe.preprocess, device=self.device)
        with self.progress.step(f"epoch {epoch}/{recipe.epochs}", total=len(train), unit="images") as advance:
            score = train_epoch(
                learner,
                train,
                recipe=recipe,
                normalize=normalize,
                learning_rate=lambda step: one_cycle(
                    (epoch - 1) * steps + step, recipe.epochs * steps, peak=peak, warm_up=recipe.warm_up
                ),
                advance=advance,
            )
            held_out_score = evaluate(learner.network, held_out, normalize=normalize)
            advance(0, f"{score}, held out {held_out_score.accuracy:.2%}")
        best = Best(epoch, held_out_score, snapshot(learner.network))
        if before is not None:
            best = before.best.or_better(best)
        state = State.of(self.identity, epoch, learner, best)
        state.save(self.state_path)
        return state

    def checkpoint(self, best: Best) -> Checkpoint:
        """The best epoch's weights, measured on the test set."""
        recipe, dataset = self.recipe, self.dataset
        network = skeleton(recipe.architecture, len(dataset.labels))
        network.load_state_dict(best.weights, assign=True)
        network.eval()
        proof = reference(network, dataset.examples, recipe.preprocess)
        normalize = normalizer(recipe.preprocess, device=self.device)
        test = evaluate(network.to(self.device), dataset.test.to(self.device), normalize=normalize)
        self.progress.say(f"epoch {best.epoch} on {len(dataset.test):,} test samples: {test}")
        manifest = Manifest(
            model=self.name,
            architecture=recipe.architecture,
            labels=dataset.labels,
            preprocess=recipe.preprocess,
            metrics=Metrics(split="test", samples=len(dataset.test), accuracy=test.accuracy, loss=test.loss),
            provenance=Provenance(
                dataset=DatasetSection(
                    name=dataset.name,
                    samples=len(dataset.train) + len(dataset.held_out),
                    fingerprint=dataset.fingerprint,
                ),
                recipe=recipe.model_dump(mode="json"),
                seed=recipe.seed,
                epoch=best.epoch,
                code_revision=code_revision(),
                versions=library_versions(),
                created=datetime.now(UTC).replace(microsecond=0),
                parent=None if self.origin is None else self.origin.name,
            ),
        )
        return Checkpoint(manifest=manifest, network=best.weights, reference=proof)


def _what_stands(state: State | None, recipe: Recipe, path: Path) -> str:
    if state is None:
        return (
            "interrupted in the first epoch: nothing is kept, nothing was published; start again with the same command"
        )
    return (
        f"interrupted: {state.epoch} of {recipe.epochs} epochs are kept in {path}, nothing was published; "
        "go on with the same command and --resume"
    )
