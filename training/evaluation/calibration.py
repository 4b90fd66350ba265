"""Finds a temperature that makes probabilities honest, and a threshold that tells what is unlike all training images.

Both are fitted on the logits of held-out samples, never on the split that is reported.
"""

import math
from fractions import Fraction

import torch

from training.evaluation.metrics import check, in_float64

COLDEST, HOTTEST = 0.05, 20.0
_STEPS = 100  # more than halving alone would need


def temperature(logits: torch.Tensor, targets: torch.Tensor) -> float:
    """Returns what to divide logits by so that their softmax is calibrated: Guo et al. 2017.

    With x = 1 / temperature, it minimises the summed cross-entropy plus x - 1 - log x. The added term has the weight of
    about one sample, and is least, 0, at temperature 1. Cross-entropy alone would have no minimum if all answers are
    right. With the term, the temperature stays near 1 if there are few samples; hundreds of them outvote it. The sum
    is convex in x, so there is one minimum. The cross-entropy there is never above that at temperature 1.

    Args:
        logits: float32 [n, classes].
        targets: int64 [n].

    Returns: a number from COLDEST to HOTTEST.
    Raises: ValueError as `metrics.check`.
    """
    check(logits, targets)
    low, high, sharpness = 1 / HOTTEST, 1 / COLDEST, 1.0
    if _slope_and_curvature(logits, targets, low)[0] >= 0:
        return HOTTEST
    if _slope_and_curvature(logits, targets, high)[0] <= 0:
        return COLDEST
    # Newton's steps on the slope, which only rises; where one would leave the bracket, the bracket is halved.
    for _ in range(_STEPS):
        slope, curvature = _slope_and_curvature(logits, targets, sharpness)
        low, high = (sharpness, high) if slope < 0 else (low, sharpness)
        step = slope / curvature
        following = sharpness - step if low <= sharpness - step <= high else (low + high) / 2
        moved, sharpness = abs(following - sharpness), following
        if moved <= 1e-9 * sharpness:
            break
    return 1 / sharpness


def threshold(scores: torch.Tensor, *, keep: float = 0.95) -> float:
    """Returns the highest value that at least the share `keep` of the scores reach; lower scores are flagged.

    It is one of the scores. Every float32 is exactly a Python float, so the sample that it comes from reaches it in
    float32 and in float64.

    Args:
        scores: float32 [n].
        keep: above 0, at most 1.

    Raises: ValueError if there is no score, one is not finite, or `keep` is out of range.
    """
    _check_scores(scores)
    if not 0 < keep <= 1:
        raise ValueError(f"keep is {keep}, not above 0 and at most 1")
    kept = math.ceil(Fraction(str(keep)) * len(scores))  # 0.55 of 100 is 55, not the 55.00000000000001 of floats
    return float(scores.sort(descending=True).values[kept - 1])


def auroc(inside: torch.Tensor, outside: torch.Tensor) -> float:
    """Returns the chance that a score of `inside` [n] is above a score of `outside` [m]; equal scores count one half.

    Raises: ValueError if one side has no score, or a score is not finite.
    """
    for scores in (inside, outside):
        _check_scores(scores)
    ordered = outside.double().sort().values
    below = torch.searchsorted(ordered, inside.double())
    not_above = torch.searchsorted(ordered, inside.double(), right=True)
    return int(below.sum() + not_above.sum()) / (2 * len(inside) * len(outside))


def _slope_and_curvature(logits: torch.Tensor, targets: torch.Tensor, sharpness: float) -> tuple[float, float]:
    """Returns the first and second derivative of what `temperature` minimises, at x = `sharpness`."""
    slopes, curvatures = [1 - 1 / sharpness], [sharpness**-2]
    for some, of_them in in_float64(logits, targets):
        exact = some - some.max(1, keepdim=True).values
        probabilities = (sharpness * exact).softmax(1)
        means = (probabilities * exact).sum(1)
        slopes += (means - exact.gather(1, of_them[:, None])[:, 0]).tolist()
        curvatures += (probabilities * (exact - means[:, None]).square()).sum(1).tolist()
    return math.fsum(slopes), math.fsum(curvatures)


def _check_scores(scores: torch.Tensor) -> None:
    if scores.dim() != 1 or len(scores) == 0:
        raise ValueError(f"scores have the shape {list(scores.shape)} where [n] is expected")
    if not bool(torch.isfinite(scores).all()):
        raise ValueError("a score is not finite")
