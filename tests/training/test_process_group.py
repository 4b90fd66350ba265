"""The processes of a run: what the environment says of them, and what one alone does."""

import subprocess
import sys

import pytest
import torch

from tests.support.server import PROJECT
from training.errors import TrainingError
from training.process_group import ALONE, ProcessGroup

AGENT = "import subprocess, sys; subprocess.Popen([sys.executable, '-c', sys.argv[1]]).wait()"
WORKER = """
import os, sys
from training.process_group import ProcessGroup
with ProcessGroup(restarts=True).joined(parent=os.getppid()):
    print("joined", flush=True)
    sys.stdin.read()
"""

TORCHRUN = {
    "RANK": "5",
    "WORLD_SIZE": "8",
    "LOCAL_RANK": "1",
    "LOCAL_WORLD_SIZE": "4",
    "MASTER_ADDR": "a",
    "MASTER_PORT": "1",
}


def test_who_was_started_by_nobody_is_alone() -> None:
    assert ProcessGroup.of({"RANK": "5", "WORLD_SIZE": "8"}) == ALONE
    assert ALONE.is_first


def test_the_environment_says_which_process_this_is() -> None:
    assert ProcessGroup.of(TORCHRUN) == ProcessGroup(rank=5, size=8, local_rank=1, local_size=4)
    assert ProcessGroup.of(TORCHRUN | {"TORCHELASTIC_RUN_ID": "none"}).restarts


def test_it_also_says_how_often_processes_were_and_may_be_started_again() -> None:
    elastic = {"TORCHELASTIC_RUN_ID": "run", "TORCHELASTIC_RESTART_COUNT": "2", "TORCHELASTIC_MAX_RESTARTS": "9"}
    group = ProcessGroup.of(TORCHRUN | elastic | {"TORCHELASTIC_USE_AGENT_STORE": "True"})
    assert (group.restarts, group.starts, group.max_restarts, group.shares_store) == (True, 2, 9, True)
    assert not ProcessGroup.of(TORCHRUN | {"TORCHELASTIC_USE_AGENT_STORE": "False"}).shares_store


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"WORLD_SIZE": "many"}, "WORLD_SIZE is 'many' in the environment: torchrun sets it to a number"),
        ({"RANK": "8"}, "RANK=8 and WORLD_SIZE=8 are in the environment: ranks count from 0"),
    ],
)
def test_what_makes_no_sense_is_named(changes: dict[str, str], said: str) -> None:
    with pytest.raises(TrainingError, match=said):
        ProcessGroup.of(TORCHRUN | changes)


@pytest.mark.parametrize("count", [0, 1, 4, 7, 8, 100])
@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_work_is_shared_out_in_order_and_evenly(count: int, size: int) -> None:
    parts = ProcessGroup(size=size).parts(count)
    assert [number for part in parts for number in part] == list(range(count))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_one_process_alone_exchanges_nothing() -> None:
    tensor = torch.ones(2)
    ALONE.share([tensor])
    ALONE.together()
    assert ALONE.text_of_first("text") == "text"
    assert ALONE.sum(tensor) is tensor
    (turn,) = ALONE.in_turns(iter([tensor]), 1)
    assert turn is tensor
    with ALONE.joined(parent=1), ALONE.first_alone():
        pass


@pytest.mark.process
def test_a_process_ends_with_the_one_that_started_it_even_if_there_is_no_other(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", AGENT, WORKER], cwd=PROJECT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as agent:
        assert agent.stdout is not None
        assert agent.stdout.readline() == "joined\n"
        agent.kill()
        assert agent.stdout.read() == ""  # which it is when the last process has ended that could write there
