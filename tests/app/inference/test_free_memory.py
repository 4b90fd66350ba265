"""How much memory is left, as Linux shows it for the machine and for the container."""

import math
from pathlib import Path

import pytest

from app.inference.free_memory import free_memory

MACHINE = "MemTotal:       16000000 kB\nMemFree:          100000 kB\nMemAvailable:    2000000 kB\n"
AVAILABLE = 2_000_000 * 1024


def system(root: Path, **files: str) -> Path:
    """A folder that shows what `/` does. Each file is named by its last part."""
    places = {"meminfo": "proc/meminfo", "limit": "sys/fs/cgroup/memory.max", "used": "sys/fs/cgroup/memory.current"}
    for name, text in files.items():
        (root / places[name]).parent.mkdir(parents=True, exist_ok=True)
        (root / places[name]).write_text(text)
    return root


def test_a_machine_has_what_is_available_and_not_only_what_nobody_holds(tmp_path: Path) -> None:
    assert free_memory(system(tmp_path, meminfo=MACHINE)) == AVAILABLE


def test_a_container_has_what_its_limit_leaves_if_that_is_less(tmp_path: Path) -> None:
    assert free_memory(system(tmp_path, meminfo=MACHINE, limit="1000000\n", used="400000\n")) == 600_000
    assert free_memory(system(tmp_path, limit=f"{AVAILABLE * 9}\n", used="400000\n")) == AVAILABLE


@pytest.mark.parametrize("limit", ["max\n", ""])
def test_a_container_without_a_limit_has_what_the_machine_has(tmp_path: Path, limit: str) -> None:
    assert free_memory(system(tmp_path, meminfo=MACHINE, limit=limit, used="400000\n")) == AVAILABLE


def test_a_container_that_holds_more_than_its_limit_has_nothing_left(tmp_path: Path) -> None:
    assert free_memory(system(tmp_path, meminfo=MACHINE, limit="1000\n", used="1001\n")) == 0


@pytest.mark.parametrize("text", [None, "", "MemTotal: 5 kB\n", "MemAvailable:\n", "MemAvailable: many kB\n"])
def test_where_the_system_does_not_say_no_limit_is_known(tmp_path: Path, text: str | None) -> None:
    assert free_memory(system(tmp_path, **({} if text is None else {"meminfo": text}))) == math.inf
