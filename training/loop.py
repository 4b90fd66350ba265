"""One epoch of training, and evaluation: the two loops over uint8 tensors that are already on the device."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from classifier.normalize import Normalize
from training.augment import shifted
from training.data import Split
from training.errors import TrainingError
from training.progress import Advance
from training.recipes import Recipe

_EVALUATION_BATCH = 1000
_NOTED_EVERY = 20  # batches; to read a loss, the device must finish first


@dataclass(frozen=True, slots=True)
class Score:
    """Means over the samples seen: cross-entropy in nats, and the share of right top-1 answers."""

    loss: float
    accuracy: float

    def __str__(self) -> str:
        return f"loss {self.loss:.4f}, accuracy {self.accuracy:.2%}"


@dataclass(frozen=True, slots=True)
class Learner:
    """What an epoch changes: the weights, the optimizer's momentum, and the source of order and augmentation."""

    network: nn.Module
    optimizer: torch.optim.Optimizer
    generator: torch.Generator


def train_epoch(
    learner: Learner,
    split: Split,
    *,
    recipe: Recipe,
    normalize: Normalize,
    learning_rate: Callable[[int], float],
    advance: Advance,
) -> Score:
    """Every sample once, in random order; the score is that of the weights as they went.

    Args:
        learning_rate: by the batch's number in this epoch.

    Raises: TrainingError if the loss is not finite any more.
    """
    network, optimizer, generator = learner.network, learner.optimizer, learner.generator
    network.train()
    totals = torch.zeros(2, device=split.targets.device)  # loss, right answers
    order = torch.randperm(len(split), generator=generator).to(split.targets.device)
    batches = torch.split(order, recipe.batch_size)
    seen = noted = 0
    for number, chosen in enumerate(batches, start=1):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(number - 1)
        images, targets = shifted(split.images[chosen], recipe.augment.shift, generator), split.targets[chosen]
        optimizer.zero_grad(set_to_none=True)
        logits = network(normalize(images))
        loss = F.cross_entropy(logits, targets, label_smoothing=recipe.label_smoothing)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        _add(totals, loss.detach(), logits.detach(), targets)
        seen += len(targets)
        if number % _NOTED_EVERY == 0 or number == len(batches):
            score = _score(totals, seen)
            _check_finite(score, recipe)
            advance(seen - noted, str(score))
            noted = seen
    return score


@torch.inference_mode()
def evaluate(network: nn.Module, split: Split, *, normalize: Normalize) -> Score:
    """The network's score in eval mode; the mode it was in comes back."""
    was_training = network.training
    network.eval()
    totals = torch.zeros(2, device=split.targets.device)
    every = range(0, len(split), _EVALUATION_BATCH)
    for batch in (slice(start, start + _EVALUATION_BATCH) for start in every):
        images, targets = split.images[batch], split.targets[batch]
        logits = network(normalize(images))
        _add(totals, F.cross_entropy(logits, targets), logits, targets)
    network.train(was_training)
    return _score(totals, len(split))


def _add(totals: torch.Tensor, loss: torch.Tensor, logits: torch.Tensor, targets: torch.Tensor) -> None:
    totals[0] += loss * len(targets)
    totals[1] += (logits.argmax(1) == targets).sum()


def _score(totals: torch.Tensor, samples: int) -> Score:
    loss, right = totals.tolist()
    return Score(loss=loss / samples, accuracy=right / samples)


def _check_finite(score: Score, recipe: Recipe) -> None:
    if not math.isfinite(score.loss):
        raise TrainingError(
            f"the loss is {score.loss} after a peak rate of {recipe.lr}: try a lower --lr, e.g. {recipe.lr / 5:g}"
        )
