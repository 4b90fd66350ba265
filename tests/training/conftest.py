"""A run small enough for tests: a second or two, and a model that is better than chance."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from classifier.checkpoint import Checkpoint
from training.builtin import builtin
from training.progress import Advance, Progress
from training.recipes import Recipe
from training.train import train

Train = Callable[..., Path]


@pytest.fixture(autouse=True, scope="package")
def _one_thread() -> Iterator[None]:
    """Batches this small gain nothing by threads that wait for each other."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny() -> Recipe:
    source = {"kind": "strokes", "samples": 700, "test_samples": 150}
    return builtin("strokes").but(source=source, held_out=100, epochs=2, batch_size=32)


@pytest.fixture
def run(tmp_path: Path, tiny: Recipe) -> Train:
    """`train` in a folder of its own; what is not said is as small as it gets."""

    def run(recipe: Recipe = tiny, **options: Any) -> Path:
        defaults: dict[str, Any] = {"store": tmp_path / "store", "runs": tmp_path / "runs", "device": "cpu"}
        defaults["pictures"] = False  # they take longer than the run
        return train(recipe, **(defaults | options))

    return run


@pytest.fixture
def silent() -> Progress:
    return Progress.silent()


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


def same_weights(one: Path, other: Path) -> bool:
    """Bit for bit."""
    first, second = Checkpoint.load(one).network, Checkpoint.load(other).network
    return first.keys() == second.keys() and all(first[name].equal(second[name]) for name in first)
