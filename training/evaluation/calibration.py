"""What makes probabilities honest, and tells what is like nothing seen in training: a temperature and a threshold.

Both are fitted on held-out logits, never on the split that is reported.
"""

import math
from fractions import Fraction

import torch

from training.evaluation.metrics import check, in_float64

COLDEST, HOTTEST = 0.05, 20.0
_STEPS = 100  # more than halving alone would need


def temperature(logits: torch.Tensor, targets: torch.Tensor) -> float:
    """What to divide logits by so that their softmax is calibrated: Guo et al. 2017, in COLDEST to HOTTEST.

    Minimises the summed cross-entropy of float32 logits [n, classes] with int64 targets [n], plus the weight of about
    one sample for temperature 1: with x = 1 / temperature, x - 1 - log x. Cross-entropy alone would have no minimum
    where all answers are right; so it stays near 1 where there is little to go by, and hundreds of samples outvote it.
    The sum is convex in x, so there is one minimum. The cross-entropy there is never above that at temperature 1,
    where the added term is 0, its least.

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
    """The highest value that at least `keep` of the float32 scores [n] reach: those below it are flagged.

    It is one of the scores, and every float32 is a Python float exactly: the sample it comes from is `>=` it, in
    float32 and in float64 alike.

    Raises: ValueError: no score, one that is not finite, `keep` not in 0 (excluded) to 1.
    """
    _check_scores(scores)
    if not 0 < keep <= 1:
        raise ValueError(f"keep is {keep}, not above 0 and at most 1")
    kept = math.ceil(Fraction(str(keep)) * len(scores))  # 0.55 of 100 is 55, not the 55.00000000000001 of floats
    return float(scores.sort(descending=True).values[kept - 1])


def auroc(inside: torch.Tensor, outside: torch.Tensor) -> float:
    """The chance that a score of `inside` [n] is above one of `outside` [m]; equal ones count one half.

    Raises: ValueError: no score on one side, or one that is not a number.
    """
    for scores in (inside, outside):
        _check_scores(scores)
    ordered = outside.double().sort().values
    below = torch.searchsorted(ordered, inside.double())
    not_above = torch.searchsorted(ordered, inside.double(), right=True)
    return int(below.sum() + not_above.sum()) / (2 * len(inside) * len(outside))


def _slope_and_curvature(logits: torch.Tensor, targets: torch.Tensor, sharpness: float) -> tuple[float, float]:
    """Of what `temperature` minimises, in x = `sharpness`."""
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
