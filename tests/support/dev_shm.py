"""Commands in a mount namespace of their own, where /dev/shm is as containers have it."""

import subprocess
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import pytest

# Each is a script of sh; $1 is an empty folder.
SHAPES = {
    "of 64 MB": "mount -t tmpfs -o size=64m tmpfs /dev/shm",
    "of 4 kB": "mount -t tmpfs -o size=4k tmpfs /dev/shm",
    "read-only": "mount -t tmpfs -o ro tmpfs /dev/shm",
    "missing": 'for name in null zero random urandom; do touch "$1/$name" && mount --bind "/dev/$name" "$1/$name"'
    ' || exit 1; done; mount --rbind "$1" /dev',
}


def with_dev_shm(shape: str, folder: Path, command: Sequence[str]) -> list[str]:
    """Returns what runs `command` where /dev/shm has one of the SHAPES. The test is skipped where that is not allowed.

    Args:
        folder: it is made, and may be left behind.
    """
    if not _can_mount():
        pytest.skip("no mount namespace can be had here (unshare --map-root-user --mount)")
    folder.mkdir()
    script = f'( {SHAPES[shape]} ) && shift && exec "$@"'
    return [*_NAMESPACE, "sh", "-c", script, "sh", str(folder), *command]


_NAMESPACE = ("unshare", "--map-root-user", "--mount")


@cache
def _can_mount() -> bool:
    try:
        command = [*_NAMESPACE, "mount", "-t", "tmpfs", "tmpfs", "/dev/shm"]  # noqa: S108  a mount point, not a file
        return subprocess.run(command, capture_output=True, check=False).returncode == 0
    except FileNotFoundError:
        return False
