"""Trains for one epoch: the loop over its batches."""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn

from classifier.progress import Advance
from training.data.augment import augmented
from training.data.batches import Split
from training.data.mixing import mixed
from training.errors import TrainingError
from training.evaluation.logits import Forward
from training.evaluation.score import Score
from training.networks import heads
from training.recipes.recipe import Recipe, ShardsSource
from training.runs.learner import Learner
from training.runs.optimizer import set_learning_rate
from training.runs.virtual_ranks import WHOLE_BATCHES, Share, StepSums, VirtualRanks

_NOTED_EVERY = 20  # batches; to read a loss, the device must finish first


@dataclass(frozen=True, slots=True)
class Begun:
    """Says how far an epoch is.

    Args:
        generator: the state of the learner's generator before the order of the samples was drawn.
        batches: how many are done.
        totals: float32 [2]: the sum of the losses over the samples that are done, and the right answers.
    """

    generator: torch.Tensor
    batches: int
    totals: torch.Tensor

    def to_dict(self) -> dict[str, Any]:
        """Returns what `from_dict` reads."""
        return {"generator": self.generator, "batches": self.batches, "totals": self.totals}

    @classmethod
    def from_dict(cls, content: dict[str, Any]) -> Self:
        """Raises: KeyError if something is missing."""
        return cls(content["generator"], content["batches"], content["totals"])


def train_epoch(
    learner: Learner,
    split: Split,
    *,
    forward: Forward,
    recipe: Recipe,
    too_high: str,
    learning_rate: Callable[[int, int], float],
    draw: int,
    advance: Advance,
    ranks: VirtualRanks = WHOLE_BATCHES,
    begun: Begun | None = None,
    between: Callable[[Begun], None] = lambda _: None,
) -> Score:
    """Trains on every sample once, in random order. If classes are balanced, chance says how often a sample comes.

    Args:
        forward: makes logits of a batch, by the weights of `learner`, which each step changes.
        too_high: says which rate was too high, if the loss is no longer finite.
        learning_rate: gives the rate for (the batch's number in this epoch, from 0; the number of batches).
        draw: the seed of what is done to single images.
        advance: is told how many samples are done, and the score so far.
        ranks: which part of each batch this process does.
        begun: how far the epoch is, if the learner comes out of its middle; None: it begins.
        between: is told after each batch but the last how far the epoch is.

    Returns: the score over all samples, each by the weights of its moment.
    Raises: TrainingError if the loss is no longer finite, or if an image cannot be read.
    """
    heads.train_mode(learner.network, learner.parts)
    device = learner.device
    if begun is None:
        begun = Begun(learner.generator.get_state(), 0, torch.zeros(2))
        order = order_of(split, learner.generator, recipe)
    else:
        order = order_of(split, torch.Generator().set_state(begun.generator), recipe)
    totals = begun.totals.to(device, copy=True)  # loss, right answers
    chosen = ranks.batches(order, recipe.batch_size)
    before, to_come = chosen[: begun.batches], chosen[begun.batches :]
    if not to_come:
        raise TrainingError("the state amid the epoch has more batches than the epoch: start without --resume")
    seen = noted = sum(map(len, before))
    shares = [ranks.shares(batch) for batch in to_come]
    opened = iter(split.batches([share.rows for each in shares for share in each], device=device, draw=draw))

    def figures_of(share: Share, step: int) -> torch.Tensor:
        """Leaves the gradients of a share, and returns its loss and right answers, each as a sum."""
        generator = ranks.draws(learner, share, draw=draw, step=step)
        images, targets = next(opened)
        changed = augmented(images, recipe.augment, generator)
        changed, classes = mixed(changed, targets, recipe.augment, generator)
        with torch.autocast(device.type, learner.dtype, enabled=learner.dtype != torch.float32):
            logits = forward(changed).float()
        loss = classes.loss(logits, label_smoothing=recipe.label_smoothing)
        learner.scaler.scale(loss if share.weight == 1 else loss * share.weight).backward()  # type: ignore[no-untyped-call]
        return torch.stack((loss.detach() * len(targets), classes.right(logits)))

    sums = StepSums(learner, ranks)
    for number, (batch, own) in enumerate(zip(to_come, shares, strict=True), start=1 + len(before)):
        set_learning_rate(learner.optimizer, learning_rate(number - 1, len(chosen)))
        totals += sums.of(own, functools.partial(figures_of, step=number))
        _step(learner, clip=recipe.clip)
        seen += len(batch)
        if number % _NOTED_EVERY == 0 or number == len(chosen):
            loss_sum, right = totals.tolist()
            score = Score(loss=loss_sum / seen, accuracy=right / seen)
            check_finite(score, too_high)
            advance(seen - noted, str(score))
            noted = seen
        if number < len(chosen):
            between(Begun(begun.generator, number, totals))
    next(opened, None)  # it ends now, and not whenever it is collected
    learner.optimizer.zero_grad(set_to_none=True)  # nobody needs them, and they are as large as the weights
    return score


def order_of(split: Split, generator: torch.Generator, recipe: Recipe) -> torch.Tensor:
    """Returns int64 [n], the samples of an epoch in their order, at random."""
    targets = split.targets
    if recipe.balanced:
        counts = torch.bincount(targets).double()
        return torch.multinomial(1 / counts[targets], len(targets), replacement=True, generator=generator)
    order = torch.randperm(len(targets), generator=generator)
    mixed = recipe.source.mixed if isinstance(recipe.source, ShardsSource) else None
    if mixed is None or (shards := split.shards) is None:
        return order
    places = torch.randperm(int(shards.max()) + 1, generator=generator)
    return order[torch.argsort(places[shards[order]] // mixed, stable=True)]


def _step(learner: Learner, *, clip: float | None) -> None:
    if clip is not None:
        learner.scaler.unscale_(learner.optimizer)
        nn.utils.clip_grad_norm_([p for p in learner.network.parameters() if p.requires_grad], clip)
    learner.scaler.step(learner.optimizer)
    learner.scaler.update()
    if learner.ema is not None:
        learner.ema.update()


def check_finite(score: Score, too_high: str) -> None:
    """Checks that the loss is finite, for otherwise it never will be again.

    Args:
        too_high: says which rate was too high.

    Raises: TrainingError if it is not.
    """
    if not math.isfinite(score.loss):
        raise TrainingError(f"the loss is {score.loss} {too_high}")
