"""Builds the image from the Dockerfile as it is, and tries it.

    python3 -m tests.system.container [--folder DIR] [--own-engine] [--only NAME]

It uses the docker engine that answers. Where none does, root gets one of our own, whose images lie in a folder, and a
base image that debootstrap makes: apt-get install docker.io debootstrap. It needs a network to packages, some 25 GB of
disk and half an hour. Packages come from where this machine's pip takes them (PIP_INDEX_URL, or pip's configuration).
The exit code is 0 if all is well, 1 if a check fails, and 2, with one line, if this machine cannot check.
"""

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from tests.system.container import image as image_of
from tests.system.container.checks import CHECKS, prepare
from tests.system.container.command import exit_code
from tests.system.container.engine import engine
from tests.system.container.running import Image


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python3 -m tests.system.container",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--folder", type=Path, help="keep everything here, so that the next time is quicker")
    parser.add_argument("--own-engine", action="store_true", help="start an engine even if another one answers")
    parser.add_argument("--only", metavar="NAME", help="do only the checks whose name holds this")
    parsed = parser.parse_args(arguments)
    return exit_code(
        "container-check",
        parsed.folder,
        lambda folder: _check(folder, own=parsed.own_engine, only=parsed.only or "", kept=bool(parsed.folder)),
    )


def _check(folder: Path, *, own: bool, only: str, kept: bool) -> int:
    with ExitStack() as stack:
        docker, tag = stack.enter_context(engine(folder / "engine", own=own)), f"flambeau-check:{os.getpid()}"
        stack.callback(docker.call, "rmi", *(["--no-prune"] if kept else []), tag, may_fail=True)
        try:
            start = time.monotonic()
            print("building the image …", flush=True)
            image_of.build(docker, folder, tag=tag)
            size = int(docker.call("image", "inspect", "--format", "{{.Size}}", tag).stdout) / 1e9
            print(f"built in {time.monotonic() - start:.0f} s, {size:.2f} GB", flush=True)
            image = Image(docker, tag, folder / "files")
            stack.callback(image.clear)
            prepare(image)
            failed = sum(not _passes(check, image) for check in CHECKS if only in check.__name__)
        except AssertionError as error:
            print(f"container-check: {error}", file=sys.stderr)
            return 1
    print(f"{failed} failed" if failed else "all is well")
    return 1 if failed else 0


def _passes(check: Callable[[Image], None], image: Image) -> bool:
    print(check.__name__, end=" ", flush=True)
    start = time.monotonic()
    try:
        check(image)
    except AssertionError as error:
        print(f"FAILED\n    {str(error).strip()}", flush=True)
        return False
    print(f"ok, {time.monotonic() - start:.0f} s", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
