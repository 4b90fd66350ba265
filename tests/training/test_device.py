"""The device of a process, where several share a machine."""

import pytest
import torch

from training.device import device_named
from training.errors import TrainingError
from training.process_group import ProcessGroup


@pytest.fixture
def two_gpus(monkeypatch: pytest.MonkeyPatch) -> list[torch.device]:
    """A machine with two GPUs; those that were made the current one."""
    current: list[torch.device] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", current.append)
    return current


@pytest.mark.parametrize("name", ["auto", "cuda"])
def test_each_process_of_a_machine_gets_a_gpu_of_its_own(two_gpus: list[torch.device], name: str) -> None:
    devices = [device_named(name, ProcessGroup(rank, 2, rank, 2)) for rank in (0, 1)]
    assert devices == two_gpus == [torch.device("cuda:0"), torch.device("cuda:1")]


def test_more_processes_than_gpus_are_told_what_there_is(two_gpus: list[torch.device]) -> None:
    with pytest.raises(TrainingError, match="no device 'cuda:2'; here are cuda, "):
        device_named("cuda", ProcessGroup(2, 3, 2, 3))


def test_one_gpu_is_not_for_several_processes(two_gpus: list[torch.device]) -> None:
    with pytest.raises(TrainingError, match="--device cuda:1 is one for 2 processes: say --device cuda"):
        device_named("cuda:1", ProcessGroup(0, 2, 0, 2))


def test_one_process_gets_what_it_names(two_gpus: list[torch.device]) -> None:
    assert device_named("cuda:1", ProcessGroup(0, 2, 0, 1)) == torch.device("cuda:1")
    assert device_named("cpu", ProcessGroup(0, 2, 0, 2)) == torch.device("cpu")
    assert device_named("cuda") == torch.device("cuda")
