"""Measures for how long two servers of one store answer by two versions side by side, after one is published.

    python -m benchmarks.serving.side_by_side [--versions 8] [--json FILE]

Two servers are asked in turns while versions are published: in a folder, which announces changes, and in a bucket of an
S3 server on this machine (moto's), which is looked at every `poll_seconds`. A figure is the median, in seconds, and in
brackets the largest. Needs the extra `cluster`.
"""

import argparse
import itertools
import json
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from rich.console import Console
from rich.table import Table

from benchmarks.harness import seeded
from benchmarks.harness.contestants import Contestant
from benchmarks.harness.load import Body, body_of
from benchmarks.harness.processes import Server, running
from classifier.cores import usable_cores
from classifier.store.remote import RemoteStore
from tests.support.checkpoints import publish
from tests.support.s3 import s3_server

MODEL = "digits"
SERVERS = 2
_COMMAND = "-m app --front-ends 0 --port {port} --store {store} --log-level warning"
_PAUSE = 0.002  # seconds between two questions: what is measured needs the processor, too


Publish = Callable[[Path, int], object]


class Change(NamedTuple):
    """What was seen of one version, in seconds.

    Args:
        first: from its publication to its first answer.
        side_by_side: from its first answer to the last one of the version before; 0 where there was none.
    """

    first: float
    side_by_side: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--versions", type=int, default=8, help="that are published, one after the other")
    parser.add_argument("--json", type=Path, help="the file to write the figures to")
    arguments = parser.parse_args()
    rows = {}
    for name, poll_seconds in (("folder", 10.0), ("bucket", 10.0), ("bucket", 1.0)):
        changes = _changes(name, poll_seconds, arguments.versions)
        rows[f"{name}, poll_seconds {poll_seconds:g}"] = {
            "first": _summary([change.first for change in changes]),
            "side_by_side": _summary([change.side_by_side for change in changes]),
        }
    table = Table("store", "first answer after", "both versions for", title=f"{SERVERS} servers")
    for name, row in rows.items():
        table.add_row(name, *(f"{each['median']:.3f} s ({each['largest']:.3f})" for each in row.values()))
    Console().print(table)
    if arguments.json:
        machine = f"{platform.machine()}, {usable_cores()} cores"
        document = {"machine": machine, "servers": SERVERS, "versions": arguments.versions, "seconds": rows}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")


def _changes(kind: str, poll_seconds: float, versions: int) -> list[Change]:
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        checkpoint = seeded.digits(folder / "seeded.safetensors")
        store, make = stack.enter_context(_folder(folder) if kind == "folder" else _bucket())
        make(checkpoint, 1)
        image = body_of(seeded.drawings(1), form=True)
        servers = []
        for number in range(SERVERS):
            log = folder / str(number) / "log"
            log.parent.mkdir()
            command = f"{_COMMAND} --poll-seconds {poll_seconds:g} --cache {log.parent / 'cache'}"
            started = running(
                Contestant(f"server {number}", command),
                lambda server: server.post(image.data, image.content_type),
                checkpoint=checkpoint,
                store=store,
                log=log,
            )
            servers.append(stack.enter_context(started))
        for server in servers:
            stack.enter_context(server.turn())
        changes = []
        for version in range(2, versions + 2):
            make(checkpoint, version)
            changes.append(_change(servers, image, version))
        return changes


def _change(servers: Sequence[Server], image: Body, version: int) -> Change:
    """Asks the servers in turns until all answer by a version that was published just now."""
    began, first, last_of_older, newer = time.monotonic(), 0.0, 0.0, set[str]()
    for server in itertools.cycle(servers):
        answered = server.post(image.data, image.content_type)["version"]
        now = time.monotonic()
        if answered == version:
            first = first or now
            newer.add(server.name)
        elif first:
            last_of_older = now
        if len(newer) == len(servers):
            return Change(first - began, max(0.0, last_of_older - first))
        time.sleep(_PAUSE)
    raise AssertionError("a cycle has no end")


@contextmanager
def _folder(folder: Path) -> Iterator[tuple[str, Publish]]:
    """Gives the address of a folder, and what publishes there."""
    store = folder / "store"
    yield str(store), lambda checkpoint, version: publish(store, version, checkpoint.read_bytes(), model=MODEL)


@contextmanager
def _bucket() -> Iterator[tuple[str, Publish]]:
    """Gives the address of a folder in a bucket, and what publishes there."""
    with s3_server() as s3:
        os.environ.update(s3.environment)  # for the servers, too
        url = s3.new_url()
        store = RemoteStore(url)
        yield url, lambda checkpoint, version: store.create(MODEL, f"{version}.safetensors", content=checkpoint)


def _summary(seconds: Sequence[float]) -> dict[str, float]:
    return {"median": round(statistics.median(seconds), 3), "largest": round(max(seconds), 3)}


if __name__ == "__main__":
    main()
