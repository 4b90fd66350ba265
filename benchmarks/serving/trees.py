"""Measures whether a change made the server slower: two trees of this project by turns on the same machine.

    git worktree add /tmp/old main
    python -m benchmarks.serving.trees /tmp/old [--new .] [--clients 1 32 64] [--rounds 10] [--seconds 5]

The old tree takes part twice. Its second server is the control: how far it is from the first is noise. The new tree is
slower if its median rate is more than 3 % below the old one's, and further away than the control. All servers have the
same checkpoint with seeded weights, and one front-end. Start-up and memory are compared too. Needs wrk. The exit code
is 1 if the new tree is slower.
"""

import argparse
import shutil
import signal
import statistics
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.harness import report, seeded
from benchmarks.harness.contestants import FLAMBEAU, ROOT, Contestant
from benchmarks.harness.load import Figures, Load
from benchmarks.harness.processes import Server, running
from benchmarks.harness.rounds import Plan, answers, measured, medians

OLD, NEW, CONTROL = "old", "new", "old again"
ALLOWED = 0.03  # of the old tree's rate
STARTS = 5  # of each tree


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of one load: the rates of the new tree and of the control, over that of the old tree."""

    clients: int
    new: float
    control: float

    @property
    def slower(self) -> bool:
        """Whether the new tree is slower than noise explains."""
        loss, noise = 1 - self.new, abs(1 - self.control)
        return loss > max(ALLOWED, noise)


def main() -> int:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that it ends its servers, which may be stopped
    trees = {OLD: arguments.old.resolve(), NEW: arguments.new.resolve(), CONTROL: arguments.old.resolve()}
    one_process, front_end = FLAMBEAU
    shape = one_process if arguments.one_process else front_end
    contestants = [replace(shape, name=name, tree=tree) for name, tree in trees.items()]
    plan = Plan(
        seeded.drawings(1), [Load(clients) for clients in arguments.clients], arguments.rounds, arguments.seconds
    )
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checkpoint = seeded.digits(folder / "seeded.safetensors")
        store = seeded.published(checkpoint, folder / "store")
        start = partial(_started, plan=plan, checkpoint=checkpoint, store=store, folder=folder)
        seconds = _start_seconds(contestants, start)
        with ExitStack() as stack:
            servers = [start(each, stack=stack) for each in contestants]
            figures = measured(plan, servers, reference=servers[0], beside=[], folder=folder)
            memory = {server.name: round(server.memory_mb()) for server in servers}
    verdicts = [_verdict(medians(figures), clients) for clients in arguments.clients]
    report.show(medians(figures), title=f"medians of {plan.rounds} rounds of {plan.seconds} s", baseline=OLD)
    print("seconds until the first answer: " + ", ".join(f"{name} {value:.2f}" for name, value in seconds.items()))
    print("memory, MB: " + ", ".join(f"{name} {value:,}" for name, value in memory.items()))
    for each in verdicts:
        word = "slower" if each.slower else "not slower"
        print(f"{each.clients} clients: new {each.new:.3f}, control {each.control:.3f} of the old rate: {word}")
    if arguments.json:
        about: dict[str, Any] = {
            "shape": shape.name,
            "start_seconds": seconds,
            "memory_mb": memory,
            "verdicts": [{**asdict(each), "slower": each.slower} for each in verdicts],
        }
        report.keep(arguments.json, medians(figures), figures, about=about, baseline=OLD)
    return int(any(each.slower for each in verdicts))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("old", type=Path, help="the folder of the tree to compare with")
    parser.add_argument("--new", type=Path, default=ROOT, help="the folder of the other tree (default: this one)")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 32, 64])
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--seconds", type=int, default=5, help="the length of each turn")
    parser.add_argument("--one-process", action="store_true", help="start the servers with --front-ends 0 instead of 1")
    parser.add_argument("--json", type=Path, help="the file to write the medians and all rounds to")
    arguments = parser.parse_args()
    for tree in (arguments.old, arguments.new):
        if not (tree / "app" / "__main__.py").is_file():
            parser.error(f"{tree} is no tree of this project")
    if shutil.which("wrk") is None:
        parser.error("wrk is not installed")
    return arguments


def _started(
    contestant: Contestant, *, plan: Plan, checkpoint: Path, store: Path, folder: Path, stack: ExitStack
) -> Server:
    ask = partial(answers, images=plan.images[:1])
    log = folder / f"{contestant.name}.log"
    return stack.enter_context(running(contestant, ask, checkpoint=checkpoint.resolve(), store=store, log=log))


def _start_seconds(contestants: Sequence[Contestant], start: "partial[Server]") -> dict[str, float]:
    """Starts each tree several times, by turns and alone. Returns the median seconds until the first answer."""
    seconds: dict[str, list[float]] = {each.name: [] for each in contestants}
    for _ in range(STARTS):
        for each in contestants:
            with ExitStack() as stack:
                seconds[each.name].append(start(each, stack=stack).started_in)
    return {name: round(statistics.median(values), 3) for name, values in seconds.items()}


def _verdict(figures: Sequence[Figures], clients: int) -> Verdict:
    rates = {each.server: each.requests_per_second for each in figures if each.clients == clients}
    return Verdict(clients, rates[NEW] / rates[OLD], rates[CONTROL] / rates[OLD])


if __name__ == "__main__":
    sys.exit(main())
