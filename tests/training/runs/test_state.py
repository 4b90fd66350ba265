"""The state that is kept amid an epoch: what it gives again, and when it is refused or forgotten."""

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from classifier.checkpoint import Checkpoint
from classifier.progress import Advance, Progress
from tests.support.runs import KINDS, Said, Train, interrupt, interrupted_after, same_weights
from training.errors import Interrupted, TrainingError
from training.process_group import ProcessGroup
from training.recipes.recipe import Recipe, StrokesSource
from training.runs.state import PartialEpoch

pytestmark = pytest.mark.slow


@pytest.fixture
def killed(run: Train) -> Callable[[Recipe, int], str]:
    """Runs a recipe until the state was kept so many times, and returns what is said of it."""

    def killed(recipe: Recipe, saves: int) -> str:
        with interrupted_after(saves), pytest.raises(Interrupted) as told:
            run(recipe, save_minutes=0)
        return str(told.value)

    return killed


@pytest.fixture
def partial(tmp_path: Path) -> Path:
    """Where the state is kept amid an epoch."""
    return tmp_path / "runs" / "strokes" / "partial_epoch.pth.tar"


@pytest.mark.parametrize("changes", KINDS.values(), ids=KINDS.keys())
def test_a_resumed_run_gives_bit_for_bit_the_weights_and_the_curve_of_one_that_never_stopped(
    run: Train, tiny: Recipe, killed: Callable[[Recipe, int], str], changes: dict[str, Any]
) -> None:
    recipe = tiny.replace(**({"epochs": 2} | changes))
    whole = run(recipe, save_minutes=0)
    assert isinstance(recipe.source, StrokesSource)
    batches = math.ceil((recipe.source.samples - recipe.held_out) / recipe.batch_size)
    # In the second epoch or, for one kind of recipe, also in the first one.
    for saves in (1, batches + 1) if "ema" in changes else (batches + 1,):
        assert "--resume" in killed(recipe, saves)
        again = run(recipe, resume=True)
        assert same_weights(again, whole)
        assert Checkpoint.load(again).manifest.curve == Checkpoint.load(whole).manifest.curve


def test_it_is_said_what_stands_and_where_it_goes_on(
    run: Train, tiny: Recipe, killed: Callable[[Recipe, int], str], said: Said, partial: Path
) -> None:
    assert "interrupted: epoch 1 of 2 is kept in" in killed(tiny, 2)
    run(tiny, resume=True, progress=said.progress)
    assert "resumed after 2 batches of epoch 1" in str(said)
    assert not partial.exists()


def test_what_was_kept_amid_an_epoch_that_is_over_is_not_gone_on_from(
    run: Train, tiny: Recipe, killed: Callable[[Recipe, int], str], partial: Path
) -> None:
    killed(tiny, 2)
    kept = partial.read_bytes()
    whole = run(tiny)
    partial.write_bytes(kept)
    assert same_weights(run(tiny, resume=True), whole)


def test_a_new_run_forgets_it(run: Train, tiny: Recipe, killed: Callable[[Recipe, int], str]) -> None:
    killed(tiny, 2)
    assert "nothing is kept" in interrupt(run, "epoch 1/")
    with pytest.raises(TrainingError, match="nothing to resume"):
        run(tiny, resume=True)


def test_one_that_is_damaged_or_of_another_run_is_refused(
    run: Train, tiny: Recipe, killed: Callable[[Recipe, int], str], partial: Path
) -> None:
    killed(tiny, 2)
    with pytest.raises(TrainingError, match=r"of another run \(lr"):
        run(tiny.replace(lr=0.02), resume=True)
    for damaged in (partial.read_bytes()[:500], b"junk"):
        partial.write_bytes(damaged)
        with pytest.raises(TrainingError, match="is damaged; start without --resume"):
            run(tiny, resume=True)


def test_a_damaged_one_does_not_keep_from_the_epochs_before_it(
    run: Train, tiny: Recipe, said: Said, partial: Path
) -> None:
    whole = run(tiny)
    interrupt(run, "epoch 2/")
    partial.write_bytes(b"junk")
    assert same_weights(run(tiny, resume=True, progress=said.progress), whole)
    assert "partial_epoch.pth.tar is damaged, and left out" in str(said)
    assert not partial.exists()


def test_one_of_an_epoch_that_is_over_is_removed_so_nothing_false_is_said_of_it(
    run: Train, tiny: Recipe, killed: Callable[[Recipe, int], str], partial: Path
) -> None:
    killed(tiny, 2)
    kept = partial.read_bytes()
    interrupt(run, "epoch 2/", tiny)
    partial.write_bytes(kept)  # as if it had been killed before this was removed
    assert "1 of 2 epochs are kept" in interrupt(functools.partial(run, resume=True), "epoch 2/", tiny)


def test_the_rate_is_that_of_what_is_done_after_the_resume(
    run: Train, tiny: Recipe, killed: Callable[[Recipe, int], str]
) -> None:
    assert isinstance(tiny.source, StrokesSource)
    samples = int(tiny.source.samples - tiny.held_out)
    batches = math.ceil(samples / tiny.batch_size)
    killed(tiny, batches - 1)
    told: list[int] = []

    @dataclasses.dataclass(frozen=True, slots=True)
    class Counting(Progress):
        @contextmanager
        def step(self, title: str, *, total: int, unit: str) -> Iterator[Advance]:  # noqa: ARG002
            def advance(count: int, /, note: str = "") -> None:
                if title.startswith("epoch 1/"):
                    told.append(count)

            if title.startswith("epoch 1/"):
                told.append(total)
            yield advance

    run(tiny, resume=True, progress=Counting(Progress.silent().console))
    assert told[0] == sum(told[1:]) == samples - (batches - 1) * tiny.batch_size


def test_it_is_kept_only_when_so_many_minutes_have_passed(run: Train, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError("ten minutes have not passed")

    monkeypatch.setattr(PartialEpoch, "save", never)
    run()


def test_it_is_also_kept_whenever_so_many_batches_are_done(
    run: Train, tiny: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept: list[tuple[int, int]] = []

    def note(self: PartialEpoch, _: Path) -> None:
        kept.append((self.epoch, self.begun.batches))

    monkeypatch.setattr(PartialEpoch, "save", note)
    run(tiny, save_steps=7)  # an epoch has 19 batches
    assert kept == [(1, 7), (1, 14), (2, 7), (2, 14)]


def test_where_processes_are_started_again_by_the_same_command_they_begin_if_nothing_is_kept(
    run: Train, tiny: Recipe
) -> None:
    whole = run(tiny, name="whole")
    assert same_weights(run(tiny, resume=True, group=ProcessGroup(restarts=True)), whole)


def test_and_what_one_of_them_has_published_is_not_published_again(run: Train, tiny: Recipe) -> None:
    published = run(tiny, resume=True, group=ProcessGroup(restarts=True))
    assert run(tiny, resume=True, group=ProcessGroup(restarts=True)) == published
    assert len([*published.parent.iterdir()]) == 1
