"""Says how a run goes on: by a bar for each step on a terminal, by a line for each step anywhere else."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Protocol

import rich.progress
from rich.console import Console, RenderableType
from rich.table import Column
from rich.text import Text

_BESIDE_THE_BAR = 72  # "epoch 1/3", "loss 0.0711, accuracy 97.60%, held out 97.05%", "8,767 images/s"


class Advance(Protocol):
    """Is told how a step goes on."""

    def __call__(self, count: int, /, note: str = "") -> None:
        """Adds `count` to what is done. `note` says what is known by now, and takes the place of the note before."""


@dataclass(frozen=True, slots=True)
class Progress:
    """Writes for people, to `console`."""

    console: Console = field(default_factory=Console)

    @classmethod
    def silent(cls) -> "Progress":
        """Returns one that says nothing."""
        return cls(Console(quiet=True))

    def say(self, line: str) -> None:
        """Writes the line as it is."""
        self.console.print(line, markup=False, highlight=False, soft_wrap=True)

    def show(self, table: RenderableType) -> None:
        """Writes a table, as wide as the console lets it be."""
        self.console.print(table)

    @contextmanager
    def step(self, title: str, *, total: int, unit: str) -> Iterator[Advance]:
        """Shows a step of `total` units: a bar meanwhile, or a line at the end, with the units done in a second."""
        if self.console.is_terminal:
            yield from self._bar(title, total, unit)
        else:
            yield from self._line(title, unit)

    def _bar(self, title: str, total: int, unit: str) -> Iterator[Advance]:
        in_a_line = Column(no_wrap=True)
        columns = (
            rich.progress.TextColumn("{task.description}", table_column=in_a_line),
            # What is known at the end of an epoch must fit beside it, on a terminal of 80 columns too.
            rich.progress.BarColumn(bar_width=max(8, min(40, self.console.width - _BESIDE_THE_BAR))),
            rich.progress.TextColumn("{task.fields[note]}", table_column=in_a_line.copy()),
            _Rate(unit, table_column=in_a_line.copy()),
        )
        with rich.progress.Progress(*columns, console=self.console) as bars:
            task = bars.add_task(title, total=total, note="")
            yield lambda count, /, note="": bars.update(task, advance=count, note=note)

    def _line(self, title: str, unit: str) -> Iterator[Advance]:
        done, last_note, start = 0, "", time.perf_counter()

        def advance(count: int, /, note: str = "") -> None:
            nonlocal done, last_note
            done, last_note = done + count, note

        yield advance
        seconds = time.perf_counter() - start
        details = [detail for detail in (last_note, f"{done / max(seconds, 1e-9):,.0f} {unit}/s") if detail]
        self.say(f"{title}: {', '.join(details)}, {seconds:.1f} s")


class _Rate(rich.progress.ProgressColumn):
    def __init__(self, unit: str, *, table_column: Column) -> None:
        super().__init__(table_column)
        self._unit = unit

    def render(self, task: rich.progress.Task) -> Text:
        speed, left = task.finished_speed or task.speed, task.time_remaining
        if speed is None:
            return Text("")
        ending = "" if task.finished or left is None else f", {timedelta(seconds=math.ceil(left))} left"
        return Text(f"{speed:,.0f} {self._unit}/s{ending}")
