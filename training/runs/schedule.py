"""Computes the learning rate from the step alone, so that there is nothing to save for resume."""

import math
from typing import Literal

from training.recipes.builtin import base_of
from training.recipes.recipe import Recipe, Stage

Schedule = Literal["one_cycle", "cosine", "constant"]


def learning_rate(step: int, steps: int, *, schedule: Schedule, peak: float, warm_up: float) -> float:
    """Returns the learning rate of one step.

    Args:
        step: 0 to `steps` - 1, counted over a whole stage.
        schedule: "one_cycle" rises by half a cosine from `peak` / 25, then falls by half a cosine to almost 0 (Smith
            2018). "cosine" rises in a straight line from `peak` / 25, then falls alike (Loshchilov and Hutter 2017).
            "constant" rises as "cosine" does, and stays at `peak`.
        warm_up: the share of the steps in which the rate rises.
    """
    start, end = peak / 25, peak / 250_000
    turn = warm_up * (steps - 1)
    if step < turn:
        risen = step / turn
        return _between(start, peak, risen) if schedule == "one_cycle" else start + (peak - start) * risen
    if schedule == "constant":
        return peak
    return _between(peak, end, (step - turn) / max(steps - 1 - turn, 1))


def rate_too_high(recipe: Recipe, stage: Stage, peak: float) -> str:
    """Says after which rate a loss was no longer finite, and by which flag to try which lower one.

    It is a fifth of the peak, but not more than the built-in recipe's own rate, with which others have trained.
    """
    known_good = base_of(recipe)
    second = stage.first > 1
    usual = known_good.unfreeze.lr if second and known_good.unfreeze is not None else known_good.lr
    flag = "--set unfreeze.lr" if second else "--lr"
    return f"after a peak rate of {peak:g}: try a lower {flag}, e.g. {min(peak / 5, usual):g}"


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) * (1 + math.cos(math.pi * share)) / 2
