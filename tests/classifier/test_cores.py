"""The cores that may be used: those of the affinity mask, or fewer where a quota of a control group says so."""

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from classifier.cores import Cores, find_cores, usable_cores
from classifier.header import Header
from tests.support.checkpoints import checkpoint, publish
from tests.support.control_groups import V1, V2, Tree
from tests.support.digits import write_mnist
from tests.support.server import PATIENCE, PROJECT, serving


@pytest.fixture(autouse=True)
def _sixty_four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "cpu_count", lambda: 64)
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=False)


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    return Tree(tmp_path / "root")


def test_without_a_quota_all_cores_of_the_mask_count(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_cores(tree.root) == Cores(64, "all of the machine")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {3, 5})
    assert find_cores(tree.root) == Cores(2, "its CPU affinity, of 64")


def test_a_system_that_has_neither_mask_nor_proc_counts_what_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(os, "sched_getaffinity")
    assert usable_cores(tmp_path) == 64
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores(tmp_path) == 1


@pytest.mark.parametrize(
    ("quota", "cores"),
    [
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("100001 100000", 2),
        ("100000 100000", 1),
        ("1000 100000", 1),
        ("350000 50000", 7),
        ("9900000 100000", 64),
        ("max 100000", 64),
        ("", 64),
        ("0 100000", 64),
        ("100000 0", 64),
        ("nonsense", 64),
        ("-1 100000", 64),
        ("200000", 64),
    ],
)
def test_a_quota_of_version_2_is_rounded_up_and_what_is_none_is_passed_over(tree: Tree, quota: str, cores: int) -> None:
    tree.group("0::/")
    tree.mount(V2)
    tree.v2("", quota + "\n")
    assert usable_cores(tree.root) == cores


@pytest.mark.parametrize(("quota", "cores"), [(250_000, 3), (100_000, 1), (-1, 64), (0, 64)])
def test_so_is_one_of_version_1(tree: Tree, quota: int, cores: int) -> None:
    tree.group("5:cpu,cpuacct:/docker/abc")
    tree.mount(V1, "/docker/abc", "/sys/fs/cgroup/cpu,cpuacct")  # as docker mounts it
    tree.v1("", quota)
    assert usable_cores(tree.root) == cores


@pytest.mark.parametrize("smallest", ["/kubepods", "/kubepods/pod1", "/kubepods/pod1/c1"])
@pytest.mark.parametrize("version", [1, 2])
def test_the_smallest_quota_of_all_levels_counts(tree: Tree, smallest: str, version: int) -> None:
    tree.group("0::/kubepods/pod1/c1", "5:cpuacct,cpu:/kubepods/pod1/c1")
    tree.mount(V2)
    tree.mount(V1, folder="/sys/fs/cgroup/cpu,cpuacct")
    for group in ("/kubepods", "/kubepods/pod1", "/kubepods/pod1/c1"):
        tree.v2(group, "max 100000\n")
        tree.v1(group, 800_000)
    tree.v2("/kubepods/pod2", "100000 100000\n")  # a neighbour's
    tree.v1("/kubepods/pod1/c2", 100_000)
    assert usable_cores(tree.root) == 8
    if version == 1:
        tree.v1(smallest, 300_000)
    else:
        tree.v2(smallest, "300000 100000\n")
    assert usable_cores(tree.root) == 3
    assert smallest in find_cores(tree.root).reason


def test_a_quota_above_the_mask_changes_nothing_and_one_below_it_counts(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(4)))
    tree.group("0::/")
    tree.mount(V2)
    tree.v2("", "600000 100000\n")
    assert find_cores(tree.root) == Cores(4, "its CPU affinity, of 64")
    tree.v2("", "150000 100000\n")
    assert find_cores(tree.root) == Cores(2, "a CPU quota of 1.5 in /sys/fs/cgroup/cpu.max", by_quota=True)


@pytest.mark.parametrize("group", ["0::/system.slice/docker-abc.scope", "0::/../../other/docker-abc.scope", "0::/"])
def test_where_the_path_is_that_of_another_view_the_mounted_group_is_taken(tree: Tree, group: str) -> None:
    tree.group(group)
    tree.mount(V2, "/kubepods/pod1")
    tree.v2("", "200000 100000\n")
    assert usable_cores(tree.root) == 2


@pytest.mark.parametrize(("mounted", "own"), [("/..", "/"), ("/../..", "/"), ("/../..", "/../c1"), ("/..", "/inner")])
def test_in_a_namespace_that_hides_the_names_above_it_the_group_is_found_by_its_processes(
    tree: Tree, mounted: str, own: str
) -> None:
    tree.group(f"0::{own}")
    tree.mount(V2, mounted)
    where = {"/../../": "/pod1/c1", "/../": "/pod1", "/../../../c1": "/pod1/c1", "/../inner": "/pod1/inner"}
    group = where[mounted + own]
    tree.v2("/pod1", "500000 100000\n")
    tree.v2(group, "300000 100000\n")
    tree.v2("/pod2", "100000 100000\n")
    tree.write("sys/fs/cgroup/pod2/cgroup.procs", "1\n")
    tree.write(f"sys/fs/cgroup{group}/cgroup.procs", f"1\n{os.getpid()}\n")
    assert usable_cores(tree.root) == 3


def test_a_folder_whose_name_has_a_space_is_found(tree: Tree) -> None:
    tree.group("0::/my group:1")
    tree.mount(V2, folder="/sys/fs/cgroup/my\\040groups")
    tree.v2("/my groups/my group:1", "200000 100000\n")
    assert usable_cores(tree.root) == 2


def test_what_cannot_be_read_is_no_quota(tree: Tree) -> None:
    tree.group("0::/gone", "nonsense", "")
    tree.write("proc/self/mountinfo", "nonsense\n - cgroup2 \n\n")
    tree.mount(V2)
    (tree.root / "sys/fs/cgroup/cpu.max").mkdir(parents=True)
    assert usable_cores(tree.root) == 64


def test_libraries_are_told_of_a_quota_alone_and_of_nothing_that_a_person_has_set() -> None:
    environment = {"OMP_NUM_THREADS": "7"}
    Cores(64, "all of the machine").bound_libraries(environment)
    assert environment == {"OMP_NUM_THREADS": "7"}
    Cores(2, "a CPU quota", by_quota=True).bound_libraries(environment)
    assert environment == {"OMP_NUM_THREADS": "7", "TORCHINDUCTOR_COMPILE_THREADS": "2"}


@contextmanager
def quota_of_one_core() -> Iterator[list[str]]:
    """Makes a control group, and yields what puts a command into it. Where that is not allowed, the test is skipped."""
    above = next((folder for folder in (Path("/sys/fs/cgroup/cpu"), Path("/sys/fs/cgroup")) if folder.is_dir()), None)
    if above is None:
        pytest.skip("there are no control groups here")
    outer = above / f"flambeau-test-{os.getpid()}"
    inner = outer / "inner"
    try:
        inner.mkdir(parents=True)
    except OSError as error:
        pytest.skip(f"no control group can be made here: {error}")
    try:
        if (outer / "cpu.cfs_quota_us").exists():
            (outer / "cpu.cfs_quota_us").write_text("100000")
        elif (outer / "cpu.max").exists():
            (outer / "cpu.max").write_text("100000 100000")
        else:
            pytest.skip("control groups bound no CPU here")
        yield ["sh", "-c", f'echo $$ > "{inner}/cgroup.procs" && exec "$@"', "sh"]
    finally:
        inner.rmdir()
        outer.rmdir()


@pytest.mark.slow
def test_a_real_quota_of_one_core_makes_the_server_one_process_and_it_says_why(tmp_path: Path) -> None:
    publish(tmp_path, 1, checkpoint())
    with quota_of_one_core() as within, serving(tmp_path, "--device", "cpu", within=within) as server:
        (ready,) = [event for event in server.events if "address" in event]
        task = Path(f"/proc/{server.process.pid}/task/{server.process.pid}")
        assert (task / "children").read_text() == ""
        assert server.stop() == 0
    assert re.fullmatch(r"1 \(a CPU quota of 1 in /sys/fs/cgroup/.*/flambeau-test-\d+/cpu\..*\)", ready["cores"])


@pytest.mark.slow
def test_a_real_quota_of_one_core_bounds_torchs_threads_in_training_and_it_says_why(tmp_path: Path) -> None:
    data = write_mnist(tmp_path, train=600, test=50)
    folders = ["--store", str(tmp_path / "store"), "--runs", str(tmp_path / "runs"), "--data", str(data)]
    train = [sys.executable, "-m", "training", "mnist", "--epochs", "1", "--no-pictures", "--device", "cpu", *folders]
    with quota_of_one_core() as within:
        ended = subprocess.run(
            [*within, *train], cwd=PROJECT, capture_output=True, text=True, timeout=PATIENCE, check=True
        )
    assert ended.stdout.startswith("cores: 1 (a CPU quota of 1 in /sys/fs/cgroup/")
    provenance = Header.read(tmp_path / "store/mnist/1.safetensors").manifest.provenance
    assert provenance is not None
    assert provenance.threads == 1
