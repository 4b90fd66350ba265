"""Computes from logits how good a network is: what the manifest, the pictures and `evaluate` say.

All sums are exact (`math.fsum` over float64). So the same logits give the same figures to the last digit, whatever
their order, their batch, and the number of threads that add them up.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Self

import torch

from classifier.manifest import ClassMetrics

BINS = 15  # of confidence, as in Guo et al. 2017
_ROWS = 8192  # at once in float64


@dataclass(frozen=True, slots=True)
class Bin:
    """Holds what is known of the samples whose confidence is in one bin.

    Args:
        confidence: their mean confidence, 0 to 1; None if there is no sample.
        accuracy: the share of right answers; None if there is no sample.
    """

    samples: int
    confidence: float | None
    accuracy: float | None


@dataclass(frozen=True, slots=True)
class Reliability:
    """Says how far confidence can be believed: Guo et al. 2017, "On Calibration of Modern Neural Networks".

    Args:
        ece: the expected calibration error, 0 to 1: the mean of |accuracy - confidence| over the bins, where each bin
            counts as often as it has samples.
        bins: `BINS` of equal width; bin i holds confidences in (i / BINS, (i + 1) / BINS].
    """

    ece: float
    bins: tuple[Bin, ...]


@dataclass(frozen=True, slots=True, eq=False)  # tensors have no truth value to compare by
class EvaluationMetrics:
    """Holds all figures that were measured on one split.

    Args:
        accuracy: the share of right top-1 answers, 0 to 1.
        loss: the mean cross-entropy in nats, always at temperature 1: what training minimises.
        per_class: by class index.
        confusion: int64 [classes, classes]; a row is a true class, a column is a predicted class.
        temperature: what the logits were divided by for `after`.
        before, after: the reliability at temperature 1, and at `temperature`.
    """

    accuracy: float
    loss: float
    per_class: tuple[ClassMetrics, ...]
    confusion: torch.Tensor
    temperature: float
    before: Reliability
    after: Reliability

    @classmethod
    def of(cls, logits: torch.Tensor, targets: torch.Tensor, *, temperature: float) -> Self:
        """Measures float32 logits [n, classes] against int64 targets [n], both on the CPU.

        Raises: ValueError as `check`.
        """
        check(logits, targets)
        predicted = logits.argmax(1)
        right = predicted == targets
        confusion = _confusion(targets, predicted, classes=logits.shape[1])
        return cls(
            accuracy=int(right.sum()) / len(targets),
            loss=cross_entropy(logits, targets),
            per_class=_per_class(confusion),
            confusion=confusion,
            temperature=temperature,
            before=_reliability(_confidence(logits, predicted, 1.0), right),
            after=_reliability(_confidence(logits, predicted, temperature), right),
        )

    @property
    def samples(self) -> int:
        """How many samples were measured."""
        return int(self.confusion.sum())


@dataclass(frozen=True, slots=True)
class Mistake:
    """Says that sample `index` is of class `target`, but was predicted as `predicted`, with `confidence` 0 to 1."""

    index: int
    target: int
    predicted: int
    confidence: float


@dataclass(frozen=True, slots=True)
class ConfusedPair:
    """Says that samples of class `first` were taken for `second`, or the other way round, `count` times."""

    first: int
    second: int
    count: int


def most_confused(confusion: torch.Tensor, *, count: int = 3) -> tuple[ConfusedPair, ...]:
    """Returns up to `count` pairs of classes, those that are confused most often first.

    Args:
        confusion: int64 [classes, classes]; a row is a true class, a column is a predicted class.
    """
    both = (confusion + confusion.T).triu(1)
    most, places = both.flatten().sort(descending=True, stable=True)
    return tuple(
        ConfusedPair(place // len(confusion), place % len(confusion), times)
        for times, place in zip(most[:count].tolist(), places.tolist(), strict=False)
        if times
    )


def worst(
    logits: torch.Tensor,
    targets: torch.Tensor,
    *,
    count: int = 25,
    temperature: float = 1.0,
    among: ConfusedPair | None = None,
) -> tuple[Mistake, ...]:
    """Returns up to `count` mistakes, the most confident first. If two are equally confident, the earlier sample leads.

    Args:
        among: only mistakes between these two classes; None: all.

    Raises: ValueError as `check`.
    """
    check(logits, targets)
    predicted = logits.argmax(1)
    mistaken = predicted != targets
    if among is not None:
        pair = torch.tensor([among.first, among.second])
        mistaken &= torch.isin(targets, pair) & torch.isin(predicted, pair)
    wrong = mistaken.nonzero().flatten()
    confidence = _confidence(logits[wrong], predicted[wrong], temperature)
    order = confidence.argsort(descending=True, stable=True)[:count]
    chosen = wrong[order]
    columns = (chosen, targets[chosen], predicted[chosen], confidence[order])
    return tuple(Mistake(*row) for row in zip(*(column.tolist() for column in columns), strict=True))


def cross_entropy(logits: torch.Tensor, targets: torch.Tensor) -> float:
    """Returns the mean cross-entropy of the samples in nats, computed in float64; it is never below 0."""
    losses: list[float] = []
    for some, of_them in in_float64(logits, targets):
        losses += (some.logsumexp(1) - some.gather(1, of_them[:, None])[:, 0]).tolist()
    return math.fsum(losses) / len(targets)


def in_float64(logits: torch.Tensor, targets: torch.Tensor) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Gives logits in float64 with their targets, some rows at a time, so that many classes need little memory."""
    for some, of_them in zip(torch.split(logits, _ROWS), torch.split(targets, _ROWS), strict=True):
        # The order of a sum follows the layout of its terms: one layout for all.
        yield some.to(torch.float64, memory_format=torch.contiguous_format), of_them


def check(logits: torch.Tensor, targets: torch.Tensor) -> None:
    """Checks that float32 logits [n, classes] and int64 targets [n] can be measured.

    Raises: ValueError if there is no sample, if there are fewer than two classes, if a shape or a type is another one,
        if a target is out of range, or if a logit is not finite.
    """
    if logits.dim() != 2 or logits.dtype != torch.float32 or logits.shape[0] < 1 or logits.shape[1] < 2:
        raise ValueError(f"logits are {logits.dtype} {list(logits.shape)} where float32 [n, classes] is expected")
    if targets.dtype != torch.int64 or targets.shape != logits.shape[:1]:
        raise ValueError(f"targets are {targets.dtype} {list(targets.shape)} where int64 [{len(logits)}] is expected")
    if not 0 <= int(targets.min()) <= int(targets.max()) < logits.shape[1]:
        raise ValueError(f"a target is not in 0 to {logits.shape[1] - 1}")
    if not bool(torch.isfinite(logits).all()):
        raise ValueError("a logit is not finite")


def _confusion(targets: torch.Tensor, predicted: torch.Tensor, *, classes: int) -> torch.Tensor:
    return torch.bincount(targets * classes + predicted, minlength=classes**2).view(classes, classes)


def _per_class(confusion: torch.Tensor) -> tuple[ClassMetrics, ...]:
    columns = (confusion.diagonal(), confusion.sum(0), confusion.sum(1))
    return tuple(
        ClassMetrics(
            precision=right / predicted if predicted else None,
            recall=right / samples if samples else None,
            samples=samples,
        )
        for right, predicted, samples in zip(*(column.tolist() for column in columns), strict=True)
    )


def _confidence(logits: torch.Tensor, predicted: torch.Tensor, temperature: float) -> torch.Tensor:
    """Returns float64 [n]: the probability of each sample's predicted class."""
    parts = [
        (some.gather(1, of_them[:, None])[:, 0] / temperature - (some / temperature).logsumexp(1)).exp()
        for some, of_them in in_float64(logits, predicted)
    ]
    return torch.cat(parts)


def _reliability(confidence: torch.Tensor, right: torch.Tensor) -> Reliability:
    numbers = (confidence * BINS).ceil().long().sub(1).clamp(0, BINS - 1)
    bins: list[Bin] = []
    gaps: list[float] = []
    for number in range(BINS):
        inside = numbers == number
        count, hits = int(inside.sum()), int(right[inside].sum())
        total = math.fsum(confidence[inside].tolist())
        bins.append(Bin(count, total / count, hits / count) if count else Bin(0, None, None))
        gaps.append(abs(hits - total))
    return Reliability(ece=math.fsum(gaps) / len(right), bins=tuple(bins))
