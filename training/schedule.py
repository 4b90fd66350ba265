"""The learning rate as a function of the step alone: there is nothing to save for resume."""

import math


def one_cycle(step: int, steps: int, *, peak: float, warm_up: float) -> float:
    """Half a cosine up from `peak` / 25, then half a cosine down to almost 0.

    Args:
        step: 0 to `steps` - 1, over the whole run.
        warm_up: the share of the steps in which it rises.
    """
    start, end = peak / 25, peak / 250_000
    turn = warm_up * (steps - 1)
    if step < turn:
        return _between(start, peak, step / turn)
    return _between(peak, end, (step - turn) / max(steps - 1 - turn, 1))


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
