"""Podman with a folder of its own, in which nothing stays mounted."""

import os
import resource
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.system.container.engine import Engine, unmount
from tests.system.container.errors import CannotCheck

_PROGRAMS = ("podman", "runc", "conmon", "haproxy")
_PROCESSES = 4096  # that a container may have: podman's own number is more than some machines let it give


@contextmanager
def podman(folder: Path) -> Iterator[Engine]:
    """Gives podman. At the end its pods and volumes go, and its images stay in the folder.

    Raises: CannotCheck if this machine cannot run it.
    """
    missing = [name for name in _PROGRAMS if shutil.which(name) is None]
    if missing:
        raise CannotCheck(f"there is no {', '.join(missing)}: apt-get install podman runc haproxy debootstrap")
    if os.getuid() != 0:
        raise CannotCheck("only root can bound what a pod takes: use sudo")
    folder.mkdir(parents=True, exist_ok=True)
    configuration = folder / "containers.conf"
    configuration.write_text(
        f'[containers]\ndefault_ulimits = ["nofile={_files()}:{_files()}", "nproc={_PROCESSES}:{_PROCESSES}"]\n'
    )
    command = ["podman", "--root", str(folder / "images"), "--runroot", str(folder / "run")]
    command += ["--cgroup-manager", "cgroupfs", "--runtime", "runc"]
    # What ends for want of memory leaves a file `oom` where podman runs.
    engine = Engine(tuple(command), {"CONTAINERS_CONF": str(configuration)}, folder, is_ours=True)
    _clear(engine)  # of what a check that was killed has left
    try:
        yield engine
    finally:
        _clear(engine)
        unmount(folder)


def _clear(engine: Engine) -> None:
    engine.call("pod", "rm", "--all", "--force", "--time", "1", may_fail=True)
    engine.call("volume", "rm", "--all", "--force", may_fail=True)


def _files() -> int:
    return resource.getrlimit(resource.RLIMIT_NOFILE)[1]
