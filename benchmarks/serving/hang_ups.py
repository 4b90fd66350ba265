"""Measures what clients that send a request and close at once cost those that stay, under each rule for a FIN.

    python -m benchmarks.serving.hang_ups [--rounds 3] [--all]

32 clients stay: each sends its next request as soon as the last one is answered. Once a second, 1,000 others connect,
send a request at once, and close. A FIN does not say whether its client still waits. The rule `closes` drops its
request; `ahead`, the server's own, sends the first bytes of the answer ahead, and drops the request if a reset comes
back. `answers`, which is measured with --all, computes all of them. Under each rule the figures are: the rate of those
that stay, what is left of it in comparison with `closes` (the median of the rounds' ratios), and how many of those
that left were computed. Small digits and photos are measured. It takes less than two minutes without --all.
"""

import argparse
import json
import resource
import signal
import socket
import statistics
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.harness import seeded
from benchmarks.harness.barrier import barrier
from benchmarks.harness.clients import Plan
from benchmarks.harness.contestants import Contestant
from benchmarks.harness.load import body_of, request_of
from benchmarks.harness.processes import Server, running
from benchmarks.harness.rounds import answers

STAYING, LEAVING = 32, 1000
WARM_UP = 0.5  # seconds
_FLAGS = "--port {port} --store {store} --log-level error"
RULES = {
    "closes": Contestant("closes", f"-m benchmarks.servers.on_fin closes {_FLAGS}"),
    "ahead": Contestant("ahead", f"-m app {_FLAGS} --front-ends 0"),
    "answers": Contestant("answers", f"-m benchmarks.servers.on_fin answers {_FLAGS}"),
}


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn of a server came to.

    Args:
        rate: requests per second of those that stay.
        failed: how many of their requests had no good answer.
        left: how many clients have left.
        computed: how many of their images were computed all the same.
    """

    rate: float
    failed: int
    left: int
    computed: int


def photo() -> bytes:
    """Makes a JPEG of 640x480 pixels, as large as one of a camera would be at that size."""
    coarse = np.random.default_rng(seeded.SEED).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    with tempfile.TemporaryFile() as file:
        Image.fromarray(coarse).resize((640, 480), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
        file.seek(0)
        return file.read()


# What is sent, the checkpoint that it is for, and the seconds of a turn.
SCENARIOS: dict[str, tuple[Callable[[], bytes], Callable[[Path], Path], float]] = {
    "digits": (lambda: seeded.drawings(1)[0], seeded.digits, 3.0),
    "photos": (photo, seeded.photos, 5.0),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--scenarios", nargs="+", choices=SCENARIOS, default=list(SCENARIOS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--all", action="store_true", help="measure the rule `answers`, too")
    parser.add_argument("--json", type=Path, help="the file to write all turns to")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that it ends its servers, which may be stopped
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 4096), hard))
    rules = list(RULES) if arguments.all else ["closes", "ahead"]
    turns = {scenario: _measured(scenario, rules, rounds=arguments.rounds) for scenario in arguments.scenarios}
    for scenario, of_rules in turns.items():
        print(f"{scenario}: {STAYING} clients stay, {LEAVING:,} leave each second")
        for rule, of_rule in of_rules.items():
            ratios = [turn.rate / closes.rate for turn, closes in zip(of_rule, of_rules["closes"], strict=True)]
            left, computed = sum(turn.left for turn in of_rule), sum(turn.computed for turn in of_rule)
            print(
                f"  {rule:<8}{statistics.median(turn.rate for turn in of_rule):>9,.1f} requests/s,"
                f" {statistics.median(ratios):.3f} of `closes` ({min(ratios):.3f} to {max(ratios):.3f});"
                f" computed for {computed:,} of {left:,} that left; {sum(turn.failed for turn in of_rule)} failed"
            )
    if arguments.json:
        rows = {
            scenario: {rule: list(map(asdict, each)) for rule, each in of.items()} for scenario, of in turns.items()
        }
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


def _measured(scenario: str, rules: Sequence[str], *, rounds: int) -> dict[str, list[Turn]]:
    make_image, make_checkpoint, seconds = SCENARIOS[scenario]
    turns: dict[str, list[Turn]] = {rule: [] for rule in rules}
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        (folder / "images").mkdir()
        image = make_image()
        (folder / "images" / "0").write_bytes(image)
        checkpoint = make_checkpoint(folder / "seeded.safetensors")
        store = seeded.published(checkpoint, folder / "store")
        start = partial(running, ask=partial(answers, images=[image]), checkpoint=checkpoint, store=store)
        servers = {rule: stack.enter_context(start(RULES[rule], log=folder / f"{rule}.log")) for rule in rules}
        for number in range(rounds):
            for rule in rules[:: -1 if number % 2 else 1]:
                turns[rule].append(_turn(servers[rule], folder / "images", image, seconds))
                print(f"{scenario}, {rule}: {turns[rule][-1]}", file=sys.stderr)
    return turns


def _turn(server: Server, images: Path, image: bytes, seconds: float) -> Turn:
    plan = Plan(server.port, str(images), STAYING, rate=None, warm_up=WARM_UP, seconds=seconds)
    with server.turn(), ThreadPoolExecutor(1) as pool:
        before, left = _computed(server), 0
        staying = pool.submit(barrier, "benchmarks.harness.clients", [[json.dumps(asdict(plan))]])
        with _waves(server.port, request_of(body_of([image], form=True))) as wave:
            due = time.monotonic() + 2 * WARM_UP
            while not staying.done() and left < LEAVING * int(seconds):
                time.sleep(max(0.0, due - time.monotonic()))
                left += wave()
                due += 1
        (outcome,) = staying.result()
        time.sleep(1)  # what is still computed for those that left
        computed = _computed(server) - before - outcome["answered"]
    return Turn(outcome["measured"] / seconds, sum(outcome["failed"].values()), left, max(0, computed))


@contextmanager
def _waves(port: int, request: bytes) -> Iterator[Callable[[], int]]:
    """Yields what lets the clients connect, send a request and close at once, and returns how many there were."""

    def one(client: socket.socket) -> None:
        with client:
            client.sendall(request)

    with ThreadPoolExecutor(8) as pool:

        def wave() -> int:
            clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(LEAVING)]
            return len(list(pool.map(one, clients)))

        yield wave


def _computed(server: Server) -> int:
    """Returns how many images the server has computed."""
    with urllib.request.urlopen(f"http://127.0.0.1:{server.port}/metrics") as response:
        lines = response.read().decode().splitlines()
    return sum(int(float(line.split()[1])) for line in lines if line.startswith("flambeau_batch_items_sum"))


if __name__ == "__main__":
    main()
