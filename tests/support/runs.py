"""Training runs small enough for tests, and what they are compared by."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from classifier.checkpoint import Checkpoint
from classifier.progress import Advance, Progress
from training.errors import Interrupted
from training.recipes.recipe import Recipe
from training.runs.state import PartialEpoch

Train = Callable[..., Path]

# Changes of a recipe, each with another state to go on from.
KINDS: dict[str, dict[str, Any]] = {
    "shift": {"augment": {"shift": 1}},
    "ema": {"ema": 0.9, "clip": 1.0, "balanced": True},
    "bf16": {"precision": "bf16"},
    "stages": {"trainable": "head", "unfreeze": {"epochs": 2, "lr": 0.01}, "epochs": 1, "ema": 0.5},
    "adamw": {"optimizer": "adamw", "lr": 0.002, "layer_decay": 0.7},
    "adam": {"optimizer": "adam", "lr": 0.002, "betas": (0.8, 0.99)},
    "mixed": {"augment": {"mixup": 0.5, "cutmix": 1.0, "erase": 0.3, "rand": (2, 9)}, "publish": "last"},
    "virtual ranks": {"virtual_ranks": 3, "augment": {"shift": 1, "flip": True, "mixup": 0.5}, "ema": 0.9},
}


@dataclass(frozen=True, slots=True)
class CtrlC(Progress):
    """Somebody who presses Ctrl-C when a step begins."""

    at: str = ""

    @contextmanager
    def step(self, title: str, *, total: int, unit: str) -> Iterator[Advance]:
        if title.startswith(self.at):
            raise KeyboardInterrupt
        with Progress.silent().step(title, total=total, unit=unit) as advance:
            yield advance


class Said:
    """What a run says, as text."""

    def __init__(self) -> None:
        self.text = StringIO()
        self.progress = Progress(Console(file=self.text, width=300))

    def __str__(self) -> str:
        return self.text.getvalue()


def same_weights(one: Path, other: Path) -> bool:
    """Bit for bit."""
    first, second = Checkpoint.load(one).network, Checkpoint.load(other).network
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)


@contextmanager
def interrupted_after(saves: int) -> Iterator[None]:
    """Whatever trains meanwhile is interrupted when its state was kept amid an epoch so many times."""
    save, count = PartialEpoch.save, 0

    def counting(self: PartialEpoch, folder: Path) -> None:
        nonlocal count
        save(self, folder)
        count += 1
        if count == saves:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(PartialEpoch, "save", counting)
        yield


def interrupt(run: Train, at: str, recipe: Recipe | None = None) -> str:
    """What the person is told."""
    with pytest.raises(Interrupted) as caught:
        run(*([] if recipe is None else [recipe]), progress=CtrlC(Progress.silent().console, at))
    return str(caught.value)
