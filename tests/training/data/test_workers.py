"""Processes that work ahead, in order; whoever ends them or their parent, none is left and nothing hangs."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from training.data.workers import Workers
from training.errors import TrainingError

ENDLESS = """
import itertools, sys
from training.data.workers import Workers

def jobs():
    for number in itertools.count():
        if number == 2:
            print("begun", flush=True)
        yield number

workers = Workers(2, preload=("slow",))
try:
    workers.start()
    print("starting", flush=True)
    for _ in workers.map(str, jobs()):
        print("done", flush=True)
except KeyboardInterrupt:
    print("interrupted", flush=True)
"""

# What takes long to import, and says when it begins.
SLOW = """
print("importing", flush=True)
import torch
"""


@pytest.mark.slow
def test_results_come_in_the_order_of_the_jobs() -> None:
    assert list(Workers(2).map(str, range(50))) == [str(number) for number in range(50)]
    assert list(Workers(0).map(str, range(50))) == [str(number) for number in range(50)]


@pytest.mark.slow
def test_no_more_jobs_are_begun_than_will_soon_be_wanted() -> None:
    begun: list[int] = []

    def jobs() -> Iterator[int]:
        for number in range(1000):
            begun.append(number)
            yield number

    results = Workers(2).map(str, jobs())
    assert next(results) == "0"
    assert len(begun) < 20


@pytest.mark.slow
def test_calls_may_go_on_at_once_and_be_left_early() -> None:
    workers = Workers(2)
    one, other = workers.map(str, range(100)), workers.map(abs, range(100, 200))
    both = [(next(one), next(other)) for _ in range(30)]
    one.close()  # type: ignore[attr-defined]
    rest = list(other)
    assert both == [(str(number), 100 + number) for number in range(30)]
    assert rest == list(range(130, 200))
    assert list(workers.map(str, range(9))) == list("012345678")


@pytest.mark.slow
def test_what_goes_wrong_in_a_job_is_its_error_and_the_others_go_on() -> None:
    workers = Workers(2)
    results = workers.map(_divided, [1, 2, 0, 4])
    assert (next(results), next(results)) == (1.0, 0.5)
    with pytest.raises(ZeroDivisionError):
        next(results)
    assert list(workers.map(_divided, [4])) == [0.25]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "said"), [("_too_large", "not enough memory.*--workers"), ("_full", "--workers")])
def test_want_of_memory_says_what_to_do_and_the_workers_go_on(name: str, said: str) -> None:
    workers = Workers(1)
    with pytest.raises(TrainingError, match=said):
        list(workers.map(globals()[name], [1]))
    assert list(workers.map(str, [1])) == ["1"]


def _too_large(_: int) -> None:
    raise MemoryError


def _full(size: int) -> "np.ndarray[Any, Any]":
    """Makes an array in a process where all memory that has no name is used up from now on."""
    os.memfd_create = lambda _: os.open("/dev/full", os.O_WRONLY)  # type: ignore[assignment, misc]
    return np.zeros(size)


def _divided(number: int) -> float:
    return 1 / number


@pytest.mark.slow
def test_all_calls_end_when_a_worker_is_killed() -> None:
    workers = Workers(2)
    one, other = workers.map(str, range(100)), workers.map(_process, range(100))
    next(one)
    os.kill(next(other), signal.SIGKILL)
    with pytest.raises(TrainingError, match="worker process ended"):
        list(other)
    assert list(workers.map(str, range(3))) == ["0", "1", "2"]
    with pytest.raises(TrainingError, match="worker process ended"):
        list(one)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_an_error_and_others_take_its_place() -> None:
    workers = Workers(2)
    for process in workers.map(_process, range(1)):
        os.kill(process, signal.SIGKILL)
    with pytest.raises(TrainingError, match=r"worker process ended.*--workers"):
        _go_on(workers)
    assert list(workers.map(str, range(5))) == ["0", "1", "2", "3", "4"]


def _process(_: int) -> int:
    return os.getpid()


def _go_on(workers: Workers) -> None:
    """For as long as it may take until a death is noticed."""
    while True:
        list(workers.map(str, range(10)))


@pytest.fixture
def endless(tmp_path: Path) -> Iterator["subprocess.Popen[str]"]:
    """Jobs without end, by a process that leads a group of its own, as one that a terminal started."""
    (tmp_path / "slow.py").write_text(SLOW)
    process = subprocess.Popen(
        [sys.executable, "-c", ENDLESS],
        env=os.environ | {"PYTHONPATH": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    yield process
    with suppress(ProcessLookupError):  # as it should be: all of them have ended
        os.killpg(process.pid, signal.SIGKILL)
    process.communicate()


@pytest.mark.slow
@pytest.mark.parametrize("moment", ["starting", "importing", "begun", "done"])
def test_ctrl_c_ends_all_processes_without_a_word_of_theirs(endless: "subprocess.Popen[str]", moment: str) -> None:
    _wait_for(endless, moment)
    os.killpg(endless.pid, signal.SIGINT)
    # Until the last process that could write has ended.
    stdout, stderr = endless.communicate(timeout=100)
    assert "interrupted" in stdout.splitlines()
    assert (stderr, endless.returncode) == ("", 0)


@pytest.mark.slow
def test_workers_end_with_a_process_that_is_killed(endless: "subprocess.Popen[str]") -> None:
    _wait_for(endless, "done")
    endless.kill()
    endless.communicate(timeout=100)


def _wait_for(process: "subprocess.Popen[str]", line: str) -> None:
    assert process.stdout is not None
    while line not in (read := process.stdout.readline()):
        assert read, "it has ended"
