"""What a run says: whole lines, on a terminal of 80 columns and in a file."""

import io

import pytest
import rich.progress
from rich.console import Console
from rich.table import Column

from classifier.progress import Progress, _Rate
from training.evaluation.score import Score


def said(console: Console) -> str:
    """All that was written for an epoch of 57,000 images."""
    progress = Progress(console)
    with progress.step("epoch 1/3", total=57_000, unit="images") as advance:
        advance(28_500, str(Score(loss=0.5, accuracy=0.5)))
        advance(28_500, str(Score(loss=0.0711, accuracy=0.976)))
        advance(0, f"{Score(loss=0.0711, accuracy=0.976)}, held out 97.05%")
    file = console.file
    assert isinstance(file, io.StringIO)
    return file.getvalue()


@pytest.mark.parametrize("width", [80, 120])
def test_on_a_terminal_an_epoch_ends_as_one_whole_line(width: int) -> None:
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None)
    last = [line for line in said(console).splitlines() if "epoch" in line][-1]
    assert "loss 0.0711, accuracy 97.60%, held out 97.05%" in last
    assert "━" in last


def test_on_a_terminal_the_time_that_is_left_is_shown_while_there_is_any() -> None:
    console = Console(file=io.StringIO(), width=120, force_terminal=True, color_system=None)
    clock = iter(range(1000))
    rate = _Rate("images", table_column=Column())
    bars = rich.progress.Progress(console=console, get_time=lambda: float(next(clock)))
    bars.add_task("epoch", total=100)
    (task,) = bars.tasks
    bars.update(task.id, advance=10)
    bars.update(task.id, advance=10)
    assert str(rate.render(task)).endswith(" left")
    bars.update(task.id, advance=80)
    assert "left" not in str(rate.render(task))


def test_in_a_file_an_epoch_is_one_line() -> None:
    (line,) = said(Console(file=io.StringIO(), width=80)).splitlines()
    assert line.startswith("epoch 1/3: loss 0.0711, accuracy 97.60%, held out 97.05%, ")
    assert "images/s" in line


def test_silence_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    Progress.silent().say("anything")
    with Progress.silent().step("a step", total=1, unit="steps") as advance:
        advance(1)
    assert capfd.readouterr() == ("", "")
