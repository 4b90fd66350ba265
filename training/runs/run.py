"""Runs a recipe's stages and epochs. Each epoch ends in a state that the next, or a later process, goes on from."""

import json
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from classifier.manifest import EpochPoint
from classifier.progress import Progress
from training.data.dataset import Dataset
from training.errors import Interrupted
from training.evaluation.score import Score
from training.networks import heads
from training.process_group import ALONE, ProcessGroup
from training.recipes.recipe import Recipe, Stage
from training.reports.advice import samples_of_classes
from training.reports.event_files import EventFiles
from training.runs import log
from training.runs import state as states
from training.runs.initial_weights import InitialWeights
from training.runs.learner import Learner
from training.runs.learner_state import LearnerState, snapshot
from training.runs.loop import Begun, check_finite, train_epoch
from training.runs.random_state import unchanged_random_state
from training.runs.schedule import learning_rate, rate_too_high
from training.runs.stage_data import StageData, stage_data
from training.runs.state import Best, PartialEpoch, State
from training.runs.try_out import try_out
from training.runs.try_program import try_program
from training.runs.virtual_ranks import VirtualRanks


@dataclass(frozen=True, slots=True)
class Run:
    """Holds what a run is made of.

    Args:
        name: the model's name.
        folder: where the run's state and log are kept.
        save_seconds: the state is also kept amid an epoch, when so many seconds have passed.
        save_steps: or when so many batches are done; None: by time alone.
        group: the processes that share the work. All of them see `folder`, and the first one writes there.
    """

    recipe: Recipe
    name: str
    dataset: Dataset
    initial_weights: InitialWeights
    device: torch.device
    folder: Path
    progress: Progress
    save_seconds: float
    save_steps: int | None = None
    group: ProcessGroup = ALONE

    def epochs(self, *, resume: bool) -> State:
        """Trains stage after stage, saves the state after each epoch and amid long ones, and returns the last state.

        Torch's own random generators are afterwards as they were.

        Args:
            resume: go on from the state in the folder; otherwise that state is removed. Where the processes may be
                started again by the same command, they begin if there is no state yet.

        Raises:
            TrainingError: there is nothing to resume, the network cannot take the images, or the loss is not finite.
            Interrupted: Ctrl-C was pressed; the message says what is kept.
            OSError: the state cannot be written.
        """
        recipe, ranks = self.recipe, VirtualRanks.of(self.recipe, self.group)
        state, partial = self._kept() if resume else (None, None)
        if state is None and partial is None and self.group.is_first:
            states.forget(self.folder)
        self.progress.say(
            f"training {self.name} ({recipe.architecture}) on {self.device}: "
            f"{len(self.dataset.train):,} samples, {len(self.dataset.held_out):,} held out"
        )
        self.progress.say(samples_of_classes(self.dataset.train.targets, self.dataset.labels, recipe))
        if state is not None or partial is not None:
            self.progress.say(_where(state, partial, recipe))
        after = 0 if state is None else state.epoch
        with EventFiles(self.folder, self.progress, after=after) as events, unchanged_random_state(self.device):
            torch.manual_seed(recipe.seed)
            network = self.initial_weights.network(recipe, len(self.dataset.labels))
            self.group.share(network.state_dict().values())
            fixed = [name for name, parameter in network.named_parameters() if not parameter.requires_grad]
            if not recipe.spec.is_built_in:
                try_program(network, self.dataset.train, recipe, len(self.dataset.labels), self.progress)
            try_out(network, self.dataset.train, recipe, ranks)
            try:
                for stage in recipe.stages:
                    if state is None or state.epoch < stage.last:
                        learner = self._learner(stage, network, state, partial, fixed)
                        data = stage_data(
                            stage, learner, recipe, self.dataset, self.folder.parent, self.progress, self.group
                        )
                        for epoch in range(1 if state is None else state.epoch + 1, stage.last + 1):
                            if state is not None and has_stalled(recipe, stage, state.curve):
                                self.progress.say(f"the held-out loss has not fallen for {recipe.patience} epochs")
                                break
                            state = self._epoch(epoch, stage, learner, data, ranks, state, partial, events)
                            partial = None
            except KeyboardInterrupt as interrupt:
                raise Interrupted(_what_stands(state, recipe, self.folder)) from interrupt
        if state is None:
            raise AssertionError("a recipe has at least one epoch")
        return state

    @property
    def _identity(self) -> dict[str, Any]:
        """All that decides the weights, as the training state holds it."""
        code = self.recipe.spec.code
        return (
            self.recipe.model_dump(mode="json")
            | {"data": self.dataset.fingerprint, "parent": self.initial_weights.name}
            | ({} if code is None else {"code": dict(code.file.hashes)})
        )

    def _kept(self) -> tuple[State | None, PartialEpoch | None]:
        """Returns the state that is kept, as all processes see it.

        Raises: TrainingError if there is none, unless processes may be started again by the same command; or if it is
            damaged, or of another run.
        """
        try:
            with self.group.first_alone():
                kept = states.load(self.folder, self._identity, self.progress)
        except states.NothingKeptError:
            if not self.group.restarts:
                raise
            kept = None, None
        state, partial = kept
        where = [state and state.epoch, partial and partial.epoch, partial and partial.begun.batches]
        self.group.check_same(
            json.dumps(where),
            f"the state in {self.folder} is not what the first process sees: --runs must be a folder that all share",
        )
        return kept

    def _learner(
        self,
        stage: Stage,
        network: nn.Module,
        state: State | None,
        partial: PartialEpoch | None,
        fixed: Collection[str],
    ) -> Learner:
        parts = heads.parts(self.recipe.spec, stage.trainable)
        learner = Learner.of(network, parts, self.recipe, device=self.device, lr=stage.lr, fixed=fixed)
        if state is not None:
            state.learner.restore(learner, same_stage=state.epoch >= stage.first)
        if partial is not None:
            partial.learner.restore(learner, same_stage=True)
        return learner

    def _epoch(
        self,
        epoch: int,
        stage: Stage,
        learner: Learner,
        data: StageData,
        ranks: VirtualRanks,
        before: State | None,
        partial: PartialEpoch | None,
        events: EventFiles,
    ) -> State:
        recipe = self.recipe
        peak = self.initial_weights.peak(recipe, stage)
        too_high = rate_too_high(recipe, stage, peak)
        started = time.perf_counter()
        done = 0 if partial is None else min(partial.begun.batches * recipe.batch_size, len(data.train))
        to_do = len(data.train) - done
        with self.progress.step(f"epoch {epoch}/{recipe.all_epochs}", total=to_do, unit="images") as advance:
            seen = train_epoch(
                learner,
                data.train,
                forward=data.forward,
                recipe=recipe,
                too_high=too_high,
                learning_rate=lambda step, steps: learning_rate(
                    (epoch - stage.first) * steps + step,
                    stage.epochs * steps,
                    schedule=recipe.schedule,
                    peak=peak,
                    warm_up=recipe.warm_up,
                ),
                draw=(recipe.seed << 16) + epoch,
                advance=advance,
                ranks=ranks,
                begun=None if partial is None else partial.begun,
                between=self._saving(epoch, learner),
            )
            with learner.measured():
                held_out = self._of_first(data.held_out_score(learner))
                check_finite(held_out, too_high)  # the last step may have spoilt the weights
                advance(0, f"{seen}, held out {held_out.accuracy:.2%}")
                if before is not None and recipe.publish == "best" and not held_out.beats(before.best.score):
                    best = before.best
                else:
                    best = Best(epoch, held_out, snapshot(learner.network))
        point = EpochPoint(
            epoch=epoch,
            loss=seen.loss,
            accuracy=seen.accuracy,
            held_out_loss=held_out.loss,
            held_out_accuracy=held_out.accuracy,
        ).model_dump()
        curve = (point,) if before is None else (*before.curve, point)
        state = State(self._identity, epoch, LearnerState.of(learner), curve, best)
        if self.group.is_first:
            state.save(self.folder)
            seconds = time.perf_counter() - started
            record = point | {"seconds": seconds, "images_per_second": to_do / seconds}
            log.append(self.folder, record)
            events.add_epoch(record)
        return state

    def _of_first(self, score: Score) -> Score:
        """Returns the first process's score. Processors of two kinds may round it differently, and all go by one."""
        numbers = torch.tensor([score.loss, score.accuracy], dtype=torch.float64)
        self.group.share([numbers])
        return Score(*numbers.tolist())

    def _saving(self, epoch: int, learner: Learner) -> Callable[[Begun], None]:
        """Returns what keeps the state amid an epoch, whenever it is time."""
        last = time.monotonic()

        def save(begun: Begun) -> None:
            nonlocal last
            is_step = self.save_steps is not None and begun.batches % self.save_steps == 0
            if self.group.is_first and (is_step or time.monotonic() - last >= self.save_seconds):
                PartialEpoch(self._identity, epoch, begun, LearnerState.of(learner)).save(self.folder)
                last = time.monotonic()

        return save


def has_stalled(recipe: Recipe, stage: Stage, curve: Sequence[Mapping[str, float]]) -> bool:
    """Tells whether a stage shall end early, because its held-out loss has not fallen for `patience` epochs.

    Args:
        curve: one record for each epoch of the run so far.
    """
    losses = [point["held_out_loss"] for point in curve[stage.first - 1 :]]
    if recipe.patience is None or stage != recipe.stages[-1] or not losses:
        return False
    return len(losses) - 1 - losses.index(min(losses)) >= recipe.patience


def _where(state: State | None, partial: PartialEpoch | None, recipe: Recipe) -> str:
    """Says where a run goes on."""
    after = "" if state is None else f"after epoch {state.epoch} of {recipe.all_epochs}"
    amid = "" if partial is None else f"after {partial.begun.batches:,} batches of epoch {partial.epoch}"
    return f"resumed {amid or after}"


def _what_stands(state: State | None, recipe: Recipe, folder: Path) -> str:
    if (folder / states.PARTIAL).exists():
        epoch = 1 if state is None else state.epoch + 1
        return (
            f"interrupted: epoch {epoch} of {recipe.all_epochs} is kept in {folder} as far as it was saved, "
            "nothing was published; go on with the same command and --resume"
        )
    if state is None:
        return (
            "interrupted in the first epoch: nothing is kept, nothing was published; start again with the same command"
        )
    return (
        f"interrupted: {state.epoch} of {recipe.all_epochs} epochs are kept in {folder}, nothing was published; "
        "go on with the same command and --resume"
    )
