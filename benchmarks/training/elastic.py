"""Kills processes of a run at random moments, and looks whether it ends in the weights of a run that nobody disturbed.

    python -m benchmarks.training.elastic [--kills N]

Two agents of torchrun train together, each with a process. Again and again one of the four is killed by SIGKILL, at a
moment that is drawn: after so many kept states. An agent that was killed is started again when the other one has gone
on without it.
"""

import argparse
import json
import os
import platform
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from classifier.checkpoint import Checkpoint
from classifier.cores import usable_cores

RESULTS = Path(__file__).parents[1] / "results" / "elastic.json"
_PATIENCE = 120.0  # seconds
_PAUSE = 0.01

# Small steps, of which each third is kept: what is killed is amid one or the other.
_RECIPE = (
    *("strokes", "--no-pictures", "--workers", "0", "--batch-size", "32", "--save-steps", "3"),
    *("--set", "virtual_ranks=2", "--set", "source.test_samples=100", "--set", "ema=0.9", "--set", "precision=fp32"),
)


@dataclass(frozen=True, slots=True)
class Figures:
    """Is what came out.

    Args:
        kills: how many processes were killed, by what they were.
        alone, together: how often one process began to train, and how often two of them.
        same: the weights are those of the undisturbed run, to the last bit.
        versions: how many were published.
        seconds: from the first start to the last end, and of the undisturbed run.
    """

    kills: dict[str, int]
    alone: int
    together: int
    same: bool
    versions: int
    seconds: float
    undisturbed_seconds: float


@dataclass
class Agents:
    """Is agents of torchrun: one with two processes, or several with one each.

    Args:
        folder: for what they write.
        flags: of the training.
        several: they find each other by a store that this process holds.
    """

    folder: Path
    flags: tuple[str, ...]
    several: bool
    store: Any = field(default_factory=lambda: TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False))
    alive: list["subprocess.Popen[bytes]"] = field(default_factory=list)

    def start(self) -> None:
        """Starts one more."""
        together = (
            *("--nnodes", "1:2", "--nproc-per-node", "1", "--rdzv-backend", "c10d", "--rdzv-id", "run"),
            *("--rdzv-endpoint", f"127.0.0.1:{self.store.port}", "--rdzv-conf", "is_host=0,last_call_timeout=1"),
        )
        with (self.folder / "output").open("ab") as output:
            agent = subprocess.Popen(
                [
                    *(sys.executable, "-m", "torch.distributed.run", "--max-restarts", "1000"),
                    *(together if self.several else ("--standalone", "--nproc-per-node", "2")),
                    *("--monitor-interval", "0.1", "-m", "training", *self.flags, "--resume"),
                    *("--runs", str(self.folder / "runs"), "--store", str(self.folder / "store")),
                ],
                env=os.environ | ({"TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1"} if self.several else {}),
                stdout=output,
                stderr=output,
            )
        self.alive.append(agent)

    def kill(self, agent: "subprocess.Popen[bytes]") -> None:
        """Kills one; what it started ends by itself."""
        self.alive.remove(agent)
        agent.kill()
        agent.wait()

    def kill_worker(self, agent: "subprocess.Popen[bytes]") -> bool:
        """Kills the first process that an agent has started, and tells whether there was one."""
        try:
            children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children").read_text().split()
        except FileNotFoundError:  # the agent has ended
            return False
        for child in children[:1]:
            os.kill(int(child), signal.SIGKILL)
        return bool(children)

    @property
    def are_at_work(self) -> bool:
        """Whether one of them has not ended."""
        return any(agent.poll() is None for agent in self.alive)

    @property
    def output(self) -> str:
        """What all of them have written."""
        return (self.folder / "output").read_text(errors="replace")


def disturbed(folder: Path, *, kills: int, samples: int, epochs: int, seed: int = 0, several: bool = True) -> Figures:
    """Trains twice, once undisturbed by one process, and once by two, of which something is killed so often.

    Args:
        folder: for all that is written.
        several: each of the two processes has an agent of its own, which may be killed, too.

    Raises: TimeoutError if nothing goes on.
    """
    flags = (*_RECIPE, "--set", f"source.samples={samples}", "--epochs", str(epochs))
    chance = random.Random(seed)
    start = time.perf_counter()
    whole = folder / "whole"
    subprocess.run(
        [sys.executable, "-m", "training", *flags, "--runs", str(whole / "runs"), "--store", str(whole / "store")],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    undisturbed_seconds = time.perf_counter() - start
    killed = {"agent": 0, "process": 0}
    together = folder / "together"
    together.mkdir()
    with _ended(Agents(together, flags, several)) as agents:
        state = together / "runs" / "strokes"
        start = time.perf_counter()
        agents.start()
        if several:
            agents.start()
            _wait_until_begun(agents, 2, 1)
        while sum(killed.values()) < kills and agents.are_at_work:
            _wait_for_states(state, agents, chance.randint(1, 8))
            victim = chance.choice(agents.alive)
            if several and chance.random() < 0.5:
                alone, pairs = _begun(agents, 1), _begun(agents, 2)
                agents.kill(victim)
                killed["agent"] += 1
                _wait_until_begun(agents, 1, alone + 1)
                _wait_for_states(state, agents, chance.randint(1, 4))  # the other one has gone on, without help
                agents.start()
                _wait_until_begun(agents, 2, pairs + 1)  # one that was not taken in yet would not be missed
            elif agents.kill_worker(victim):
                killed["process"] += 1
        while agents.are_at_work:  # one that comes when all is done is told so, and fails
            _wait_for_states(state, agents, 1)
        seconds = time.perf_counter() - start
        text = agents.output
    versions = sorted((together / "store" / "strokes").glob("*.safetensors"))
    if not versions:
        raise RuntimeError(text[-3000:])
    one, other = (Checkpoint.load(store / "store" / "strokes" / "1.safetensors").network for store in (whole, together))
    return Figures(
        kills=killed,
        alone=_begun(agents, 1),
        together=_begun(agents, 2),
        same=one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one),
        versions=len(versions),
        seconds=seconds,
        undisturbed_seconds=undisturbed_seconds,
    )


def _begun(agents: Agents, size: int) -> int:
    """Returns how often so many processes, 1 or 2, have begun to train, or gone on."""
    begun, now = 0, 1
    for line in agents.output.splitlines():
        if line.startswith("cores: "):  # the first line of the first process
            now = 1
        elif line.startswith("processes: 2"):
            now = 2
        elif line.startswith("training strokes"):
            begun += now == size
    return begun


def _wait_for_states(folder: Path, agents: Agents, count: int) -> None:
    """Waits until the state was kept so many times, or until all agents have ended."""
    seen = _kept(folder)

    def is_time() -> bool:
        nonlocal seen, count
        now = _kept(folder)
        count -= now != seen
        seen = now
        return count <= 0

    _wait(agents, is_time)


def _wait_until_begun(agents: Agents, size: int, count: int) -> None:
    """Waits until so many processes have begun so often."""
    _wait(agents, lambda: _begun(agents, size) >= count)


def _wait(agents: Agents, happens: Callable[[], bool]) -> None:
    end = time.monotonic() + _PATIENCE
    while not happens() and agents.are_at_work:
        if time.monotonic() > end:
            raise TimeoutError(agents.output[-3000:])
        time.sleep(_PAUSE)


def _kept(folder: Path) -> list[int]:
    times = []
    for name in ("partial_epoch.pth.tar", "checkpoint.pth.tar"):
        try:
            times.append((folder / name).stat().st_mtime_ns)
        except FileNotFoundError:
            times.append(0)
    return times


@contextmanager
def _ended(agents: Agents) -> Iterator[Agents]:
    try:
        yield agents
    finally:
        for agent in list(agents.alive):
            agents.kill(agent)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-result", action="store_true", help="do not write the figures into benchmarks/results")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:  # processes end a moment after their agents
        figures = disturbed(
            Path(folder), kills=arguments.kills, samples=2000, epochs=4 * arguments.kills, seed=arguments.seed
        )
    machine = f"{platform.machine()}, {usable_cores()} cores, torch {torch.__version__}"
    result = {"machine": machine, **asdict(figures)}
    print(json.dumps(result, indent=2))
    if not arguments.no_result:
        RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    return 0 if figures.same and figures.versions == 1 else 1


if __name__ == "__main__":
    sys.exit(main())
