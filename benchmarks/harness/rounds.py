"""Rounds: under each load the servers take turns, so that a busy moment of the machine meets all of them.

Before its turn, each server has to give the answers of the reference server.
"""

import math
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.harness.load import Figures, Load, body_of, measure
from benchmarks.harness.processes import Server

# The probability of each class, by index.
Answer = dict[int, float]
# Measures one contestant under a load for so many seconds.
Turn = Callable[[Load, int], Figures]


@dataclass(frozen=True, slots=True)
class Plan:
    """What is sent, under which loads, in how many rounds, and the seconds of each turn."""

    images: Sequence[bytes]
    loads: Sequence[Load]
    rounds: int
    seconds: int


def measured(
    plan: Plan, servers: Sequence[Server], *, reference: Server, beside: Sequence[Turn], folder: Path
) -> list[Figures]:
    """Measures all servers under all loads. A wrong answer ends the benchmark.

    Args:
        reference: the server whose answers count as right.
        beside: the turns of contestants that are no servers.
        folder: where the files for wrk are written.

    Returns: The figures of each turn.
    """
    with reference.turn():
        expected = [answers(reference, [image])[0] for image in plan.images]
    for server in servers:
        _warm(server, plan, expected, folder)
    turns = [_turn(server, plan, expected, folder) for server in servers] + list(beside)
    figures: list[Figures] = []
    for load in plan.loads:
        for number in range(plan.rounds):
            for turn in turns[:: -1 if number % 2 else 1]:
                figures.append(turn(load, plan.seconds))
                latest = figures[-1]
                print(f"{latest.server}, {load}: {latest.images_per_second:,.1f} images/s", file=sys.stderr)
    return figures


def answers(server: Server, images: Sequence[bytes]) -> list[Answer]:
    """Returns a server's answers to one request with these images. Raises: OSError."""
    body = body_of(images, form=server.takes_form)
    document = server.post(body.data, body.content_type)
    results = document.get("results", [document])
    return [{each["index"]: each["probability"] for each in result["predictions"]} for result in results]


def medians(figures: Sequence[Figures]) -> list[Figures]:
    """Returns the medians of the rounds, for each server under each load. Failures are summed up."""
    groups: dict[tuple[Load, str], list[Figures]] = {}
    for each in figures:
        groups.setdefault((each.load, each.server), []).append(each)
    return [_median(rounds) for rounds in groups.values()]


def _warm(server: Server, plan: Plan, expected: Sequence[Answer], folder: Path) -> None:
    with server.turn():
        for image, answer in zip(plan.images, expected, strict=True):
            _check(server, [image], [answer])
        bodies = [body_of([plan.images[0]], form=server.takes_form)]
        measure(server, Load(max(load.clients for load in plan.loads)), bodies, seconds=1, folder=folder)


def _turn(server: Server, plan: Plan, expected: Sequence[Answer], folder: Path) -> Turn:
    def turn(load: Load, seconds: int) -> Figures:
        count = len(plan.images)
        requests = [[i % count for i in range(start, start + load.images)] for start in range(0, count, load.images)]
        bodies = [body_of([plan.images[i] for i in request], form=server.takes_form) for request in requests]
        with server.turn():
            for request in requests[:3]:
                _check(server, [plan.images[i] for i in request], [expected[i] for i in request])
            return measure(server, load, bodies, seconds=seconds, folder=folder)

    return turn


def _check(server: Server, images: Sequence[bytes], expected: Sequence[Answer]) -> None:
    for found, answer in zip(answers(server, images), expected, strict=True):
        if not _same(found, answer):
            sys.exit(f"{server.name} answers {found} where {answer} is expected")


def _same(found: Answer, expected: Answer) -> bool:
    """Compares probabilities within 1 %. The last class of five may be another one that is as likely."""
    both = found.keys() & expected.keys()
    return len(both) >= len(expected) - 1 and all(
        math.isclose(found[index], expected[index], rel_tol=0.01, abs_tol=1e-5) for index in both
    )


def _median(rounds: Sequence[Figures]) -> Figures:
    rows = [asdict(each) for each in rounds]
    median: dict[str, Any] = dict(rows[0])
    for name, value in rows[0].items():
        if isinstance(value, float):
            median[name] = statistics.median(row[name] for row in rows)
    for name in ("refused", "late", "broken"):
        median[name] = sum(row[name] for row in rows)
    return Figures(**median)
