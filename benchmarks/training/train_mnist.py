"""Measures how long training takes until it reads MNIST well, beside the loop that everybody writes first.

    python -m benchmarks.training.train_mnist [--data DIR] [--seed N] [--plain-epochs N]

Both train the same network on this machine, one after the other. The plain loop is `DataLoader(MNIST(ToTensor()),
batch_size=64)` with SGD 0.01/0.9; only its epochs are timed, not its looks at the test set. Ours is the whole of
`training.commands.train`: reading, epochs, held-out samples, training state, test and publishing.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torchvision.datasets import MNIST
from torchvision.transforms import ToTensor

from classifier.architectures import build
from classifier.checkpoint import Header
from classifier.progress import Progress
from training.commands.train import train
from training.recipes.builtin import builtin

RESULTS = Path(__file__).parents[1] / "results" / "train_mnist.json"
GOALS = (0.988, 0.990)


@dataclass(frozen=True, slots=True)
class Point:
    """Holds the seconds of training so far, and the share of right answers on the 10,000 test images."""

    seconds: float
    accuracy: float


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("../shared/data/mnist"), help="where MNIST/raw is")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--plain-epochs", type=int, default=5, help="the plain loop gives up after so many")
    arguments = parser.parse_args()
    ours = run_ours(arguments.data, arguments.seed)
    plain = run_plain(arguments.data, arguments.seed, arguments.plain_epochs)
    times = {f"{goal:.1%}": {"ours": _time_to(goal, [ours]), "plain": _time_to(goal, plain)} for goal in GOALS}
    result = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "threads": torch.get_num_threads(),
        "load_average": os.getloadavg()[0],
        "seed": arguments.seed,
        "epochs": builtin("mnist").epochs,
        "ours": asdict(ours),
        "plain": [asdict(point) for point in plain],
        "seconds_to": times,
        "ours_over_plain": _ratio(ours, plain),
    }
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(result, indent=2) + "\n")
    _print_table(ours, plain, times)
    return 0


def run_ours(data: Path, seed: int) -> Point:
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        path = train(
            builtin("mnist").replace(seed=seed),
            store=Path(folder) / "store",
            runs=Path(folder) / "runs",
            data=data,
            device="cpu",
            pictures=False,
            progress=Progress(),
        )
        seconds = time.perf_counter() - start
        metrics = Header.read(path).manifest.metrics
    assert metrics is not None
    return Point(seconds, metrics.accuracy)


def run_plain(data: Path, seed: int, epochs: int) -> list[Point]:
    """Trains by the plain loop, and returns a point per epoch, until the last goal is reached."""
    torch.manual_seed(seed)
    loader = torch.utils.data.DataLoader(MNIST(data, train=True, transform=ToTensor()), batch_size=64, shuffle=True)
    tests = torch.utils.data.DataLoader(MNIST(data, train=False, transform=ToTensor()), batch_size=1000)
    network = build("mnist_cnn", 10)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.01, momentum=0.9)
    points: list[Point] = []
    seconds = 0.0
    while len(points) < epochs and _time_to(GOALS[-1], points) is None:
        start = time.perf_counter()
        for images, targets in loader:
            optimizer.zero_grad()
            F.cross_entropy(network(images), targets).backward()  # type: ignore[no-untyped-call]
            optimizer.step()
        seconds += time.perf_counter() - start
        with torch.no_grad():
            right = sum(int((network(images).argmax(1) == targets).sum()) for images, targets in tests)
        points.append(Point(seconds, right / 10_000))
        print(f"plain loop, epoch {len(points)}: {points[-1].accuracy:.2%} after {seconds:.1f} s", flush=True)
    return points


def _time_to(goal: float, points: list[Point]) -> float | None:
    return next((point.seconds for point in points if point.accuracy >= goal), None)


def _ratio(ours: Point, plain: list[Point]) -> float | None:
    """Returns our whole time divided by what the plain loop needs for the lower goal; below 1 we are quicker."""
    seconds = _time_to(GOALS[0], plain)
    return None if seconds is None else ours.seconds / seconds


def _print_table(ours: Point, plain: list[Point], times: dict[str, dict[str, float | None]]) -> None:
    print(f"\n{'':24}{'ours':>12}{'plain loop':>14}{'ratio':>8}")
    print(f"{'test accuracy':24}{ours.accuracy:>12.2%}{plain[-1].accuracy:>14.2%}")
    print(f"{'epochs':24}{builtin('mnist').epochs:>12}{len(plain):>14}")
    print(f"{'seconds':24}{ours.seconds:>12.1f}{plain[-1].seconds:>14.1f}")
    for goal, by_loop in times.items():
        mine, theirs = by_loop["ours"], by_loop["plain"]
        ratio = "" if mine is None or theirs is None else f"{theirs / mine:.1f}x"
        cells = ["not reached" if seconds is None else f"{seconds:.1f}" for seconds in (mine, theirs)]
        print(f"{f'seconds to {goal}':24}{cells[0]:>12}{cells[1]:>14}{ratio:>8}")


if __name__ == "__main__":
    sys.exit(main())
