"""Measures how fast /predict answers: flambeau, a plain endpoint, LitServe and Mosec by turns on the same machine.

    python -m benchmarks.serving.compare mnist      one 28x28 PNG per request
    python -m benchmarks.serving.compare photos     JPEG photos in turns, beside the most that this machine could do
    python -m benchmarks.serving.compare several    32 images in a request, beside one in each of 32 requests at once

The figures are medians of interleaved rounds. Before each turn, the answers are compared with those of the plain
endpoint. Without --checkpoint, one with seeded weights is made: its answers mean nothing, and its speed is that of any
other. Needs wrk. LitServe and Mosec come with `pip install -c constraints.txt -e '.[rivals]'`. A server that is not
installed is left out.
"""

import argparse
import shutil
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from benchmarks.harness import chart, report, seeded
from benchmarks.harness.contestants import ALL, FLAMBEAU, PLAIN, Contestant
from benchmarks.harness.load import Figures, Load
from benchmarks.harness.processes import Server, running
from benchmarks.harness.rounds import Plan, Turn, answers, measured, medians
from benchmarks.serving.ideal_photos import Ideal, Rate

IDEAL = "ideal, without HTTP"


@dataclass(frozen=True, slots=True)
class Scenario:
    """What is compared with what.

    Args:
        make: makes a checkpoint at a path.
        images: a folder of images, or a function that makes them.
        seconds: how long one turn is.
        baseline: the contestant whose rate the others are compared with. None compares each one with itself under the
            first load.
    """

    make: Callable[[Path], Path]
    images: Path | Callable[[], Sequence[bytes]]
    contestants: Sequence[Contestant]
    loads: Sequence[Load]
    seconds: int
    baseline: str | None


SCENARIOS = {
    "mnist": Scenario(
        make=seeded.digits,
        images=partial(seeded.drawings, 1),
        contestants=ALL,
        loads=(Load(1), Load(32), Load(64)),
        seconds=5,
        baseline=PLAIN.name,
    ),
    "photos": Scenario(
        make=seeded.photos,
        images=Path("../shared/data/photos"),
        contestants=ALL,
        loads=(Load(8), Load(32)),
        seconds=15,
        baseline=IDEAL,
    ),
    "several": Scenario(
        make=seeded.digits,
        images=partial(seeded.drawings, 32),
        contestants=FLAMBEAU,
        loads=(Load(32), Load(1, images=32), Load(2, images=32)),
        seconds=5,
        baseline=None,
    ),
}


def main() -> None:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that it ends its servers, which may be stopped
    scenario = SCENARIOS[arguments.scenario]
    loads = [Load(clients) for clients in arguments.clients or ()] or scenario.loads
    images = _images(arguments.images or scenario.images)
    plan = Plan(images, loads, arguments.rounds, arguments.seconds or scenario.seconds)
    taking_part = [each for each in scenario.contestants if each.installed]
    left_out = [each.name for each in scenario.contestants if not each.installed]
    with tempfile.TemporaryDirectory() as name:
        checkpoint = arguments.checkpoint or scenario.make(Path(name) / "seeded.safetensors")
        ideal = Ideal(checkpoint, images) if scenario.baseline == IDEAL else None
        tried = ideal.tried(seconds=2) if ideal else []
        beside = [_turn_of(ideal, tried[0])] if ideal else []
        figures = _figures(plan, taking_part, beside, checkpoint=checkpoint, folder=Path(name))
    about = {
        "scenario": arguments.scenario,
        "checkpoint": arguments.checkpoint.name if arguments.checkpoint else "seeded weights",
        "images": len(images),
        "seconds": plan.seconds,
        "left_out": left_out,
        **({"ideal": [asdict(rate) for rate in tried]} if tried else {}),
    }
    title = f"{arguments.scenario}: medians of {plan.rounds} rounds of {plan.seconds} s"
    report.show(medians(figures), title=title, baseline=scenario.baseline)
    for rate in tried:
        print(f"ideal, {rate.setup}: {rate.images_per_second:.1f} images/s")
    for name in left_out:
        print(f"left out: {name}, which is not installed")
    if arguments.json:
        report.keep(arguments.json, medians(figures), figures, about=about, baseline=scenario.baseline)
    if arguments.plot:
        chart.draw(arguments.plot, medians(figures))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("scenario", choices=SCENARIOS)
    parser.add_argument("--checkpoint", type=Path, help="a checkpoint to use instead of one with seeded weights")
    parser.add_argument("--images", type=Path, help="a file to send, or a folder whose files are sent in turns")
    parser.add_argument(
        "--clients", type=int, nargs="+", help="the numbers of clients, instead of those of the scenario"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, help="the length of each turn, instead of that of the scenario")
    parser.add_argument("--json", type=Path, help="the file to write the medians and all rounds to")
    parser.add_argument("--plot", type=Path, help="the file to write the picture to, .svg or .png")
    arguments = parser.parse_args()
    if arguments.scenario == "several" and (arguments.plot or arguments.clients):
        parser.error("`several` has its own loads, and no picture")
    if shutil.which("wrk") is None:
        parser.error("wrk is not installed")
    return arguments


def _images(source: Path | Callable[[], Sequence[bytes]]) -> Sequence[bytes]:
    if not isinstance(source, Path):
        return source()
    files = sorted(source.iterdir()) if source.is_dir() else [source]
    return [file.read_bytes() for file in files]


def _figures(
    plan: Plan,
    taking_part: Sequence[Contestant],
    beside: Sequence[Turn],
    *,
    checkpoint: Path,
    folder: Path,
) -> list[Figures]:
    """Starts the servers and measures them by turns. Returns the figures of each turn.

    Args:
        folder: where the store, the servers' logs and the files for wrk are written.
    """
    store = seeded.published(checkpoint, folder / "store")
    ask = partial(answers, images=plan.images[:1])
    with ExitStack() as stack:

        def started(contestant: Contestant) -> Server:
            log = folder / f"{contestant.name}.log"
            return stack.enter_context(running(contestant, ask, checkpoint=checkpoint.resolve(), store=store, log=log))

        servers = {each: started(each) for each in dict.fromkeys([PLAIN, *taking_part])}
        return measured(
            plan, [servers[each] for each in taking_part], reference=servers[PLAIN], beside=beside, folder=folder
        )


def _turn_of(ideal: Ideal, best: Rate) -> Turn:
    def turn(load: Load, seconds: int) -> Figures:
        rate = ideal.rate(best.setup, seconds)
        speed = rate.images_per_second
        return Figures(IDEAL, load.clients, load.images, speed, speed, None, None, None, rate.cpu_us)

    return turn


if __name__ == "__main__":
    main()
