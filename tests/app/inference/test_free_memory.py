"""How much memory is left, as Linux shows it for the machine and for the container."""

import math
from pathlib import Path

import pytest

from app.inference.free_memory import free_memory
from tests.support.control_groups import V2, Tree

V1 = "36 31 0:33 {root} {folder} rw,relatime - cgroup cgroup rw,memory"
MACHINE = "MemTotal:       16000000 kB\nMemFree:          100000 kB\nMemAvailable:    2000000 kB\n"
AVAILABLE = 2_000_000 * 1024


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    """A machine whose process is in a container of its own, of both versions."""
    tree = Tree(tmp_path / "root")
    tree.write("proc/meminfo", MACHINE)
    tree.write("proc/self/cgroup", "0::/pod/c1\n8:memory:/pod/c1\n")
    tree.mount(V2, folder="/sys/fs/cgroup/unified")
    tree.mount(V1, folder="/sys/fs/cgroup/memory")
    return tree


def v2(tree: Tree, limit: str, used: int, group: str = "/pod/c1", files: int = 0) -> None:
    folder = f"sys/fs/cgroup/unified{group}"
    tree.write(f"{folder}/memory.max", f"{limit}\n")
    tree.write(f"{folder}/memory.current", f"{used}\n")
    tree.write(f"{folder}/memory.stat", f"anon 7\ninactive_file {files}\nactive_file 5\n")


def v1(tree: Tree, limit: int, used: int, group: str = "/pod/c1", files: int = 0) -> None:
    folder = f"sys/fs/cgroup/memory{group}"
    tree.write(f"{folder}/memory.limit_in_bytes", f"{limit}\n")
    tree.write(f"{folder}/memory.usage_in_bytes", f"{used}\n")
    tree.write(f"{folder}/memory.stat", f"inactive_file 3\ntotal_inactive_file {files}\n")


def test_a_machine_has_what_is_available_and_not_only_what_nobody_holds(tree: Tree) -> None:
    assert free_memory(tree.root) == AVAILABLE


@pytest.mark.parametrize("group", ["/pod/c1", "/pod", ""])
def test_a_container_has_what_the_limits_of_all_levels_leave_if_that_is_less(tree: Tree, group: str) -> None:
    v2(tree, "1000000", 400_000, group)
    assert free_memory(tree.root) == 600_000
    v1(tree, 900_000, 400_000, group)
    assert free_memory(tree.root) == 500_000


def test_a_limit_above_what_the_machine_has_changes_nothing(tree: Tree) -> None:
    v2(tree, f"{AVAILABLE * 9}", 400_000)
    v1(tree, (1 << 63) - 4096, 400_000)  # how version 1 says that there is none
    assert free_memory(tree.root) == AVAILABLE


def test_what_was_read_of_files_is_given_back_when_it_is_needed(tree: Tree) -> None:
    v2(tree, "1000000", 900_000, files=700_000)
    assert free_memory(tree.root) == 800_000
    v1(tree, 1_000_000, 900_000, files=600_000)
    assert free_memory(tree.root) == 700_000


@pytest.mark.parametrize("limit", ["max", "", "nonsense"])
def test_a_container_without_a_limit_has_what_the_machine_has(tree: Tree, limit: str) -> None:
    v2(tree, limit, 400_000)
    assert free_memory(tree.root) == AVAILABLE


def test_a_container_that_holds_more_than_its_limit_has_nothing_left(tree: Tree) -> None:
    v2(tree, "1000", 1001)
    assert free_memory(tree.root) == 0


@pytest.mark.parametrize("text", [None, "", "MemTotal: 5 kB\n", "MemAvailable:\n", "MemAvailable: many kB\n"])
def test_where_the_system_does_not_say_no_limit_is_known(tmp_path: Path, text: str | None) -> None:
    if text is not None:
        (tmp_path / "proc").mkdir()
        (tmp_path / "proc/meminfo").write_text(text)
    assert free_memory(tmp_path) == math.inf
