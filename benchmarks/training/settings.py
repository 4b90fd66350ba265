"""Compares settings of a recipe over seeds: whether a change is a gain beyond the spread.

    python -m benchmarks.training.settings DATA [--data DIR] [--recipe NAME] [--seeds N] --try "KEY=VALUE ..." ...

DATA is what `python -m training` trains on, such as `mnist`. Each `--try` is a set of settings as `--set` takes them,
apart by spaces; the empty one is the recipe as it comes. For each seed the sets take turns. The test set is measured
once a run, at the end, and chooses nothing. CPU seconds are those of this process and of what it started.

Each run is written to the results as soon as it ends. The same command goes on where it was stopped.
"""

import argparse
import json
import os
import platform
import resource
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from classifier.checkpoint import Header
from training.commands.train import train
from training.recipes.builtin import builtin
from training.recipes.overrides import with_settings

RESULTS = Path(__file__).parents[1] / "results" / "settings.json"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", metavar="DATA")
    parser.add_argument("--data", type=Path, default=Path("../shared/data/mnist"), help="(default: %(default)s)")
    parser.add_argument("--recipe", help="(default: that of the data)")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--try", dest="sets", action="append", required=True, metavar="SETTINGS")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--results", type=Path, default=RESULTS)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    kept: dict[str, Any] = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
    base = builtin(arguments.dataset, arguments.recipe)
    runs: list[dict[str, Any]] = kept.get("runs", [])
    for seed in range(arguments.seeds):
        for settings in arguments.sets:
            recipe = with_settings(base, settings.split()).replace(seed=seed)
            key = {"recipe": recipe.model_dump(mode="json"), "threads": arguments.threads}
            if not any(run["key"] == key for run in runs):
                what = {"data": arguments.dataset, "recipe": recipe.name, "settings": settings, "seed": seed}
                runs.append(what | _run(recipe, arguments.data) | {"key": key})
                _write(arguments.results, runs)
    _print(_summary(runs))
    return 0


def _run(recipe: Any, data: Path) -> dict[str, float]:
    with tempfile.TemporaryDirectory() as folder:
        before = _cpu_seconds()
        path = train(
            recipe,
            store=Path(folder) / "store",
            runs=Path(folder) / "runs",
            data=data,
            device="cpu",
            pictures=False,
        )
        seconds = _cpu_seconds() - before
        metrics = Header.read(path).manifest.metrics
    if metrics is None:
        raise AssertionError("training measures what it publishes")
    return {"accuracy": metrics.accuracy, "loss": metrics.loss, "cpu_seconds": seconds}


def _cpu_seconds() -> float:
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)


def _summary(runs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    together: dict[tuple[str, str, str], list[dict[str, Any]]] = {}
    for run in runs:
        together.setdefault((run["data"], run["recipe"], run["settings"]), []).append(run)
    return [
        {
            "data": data,
            "recipe": recipe,
            "settings": settings,
            "seeds": len(some),
            "mean": statistics.mean(accuracies := [run["accuracy"] for run in some]),
            "spread": statistics.stdev(accuracies) if len(some) > 1 else 0.0,
            "loss": statistics.mean(run["loss"] for run in some),
            "cpu_seconds": statistics.median(run["cpu_seconds"] for run in some),
        }
        for (data, recipe, settings), some in sorted(together.items())
    ]


def _write(path: Path, runs: list[dict[str, Any]]) -> None:
    content = {
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, torch {torch.__version__}",
        "summary": _summary(runs),
        "runs": runs,
    }
    path.write_text(json.dumps(content, indent=1) + "\n")


def _print(summary: list[dict[str, Any]]) -> None:
    print(f"{'mean':>8} {'spread':>8} {'loss':>8} {'CPU s':>7} {'seeds':>5}  settings")
    for row in summary:
        print(
            f"{row['mean']:8.3%} {row['spread']:8.3%} {row['loss']:8.4f} {row['cpu_seconds']:7.1f} {row['seeds']:5}  "
            f"{row['data']} {row['recipe']} {row['settings']}"
        )


if __name__ == "__main__":
    sys.exit(main())
