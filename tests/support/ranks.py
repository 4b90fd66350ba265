"""Trains recipes one after the other as one of torchrun's processes: torchrun ... -m tests.support.ranks JOBS.json."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.support.server import PATIENCE, PROJECT
from training.commands.train import train
from training.process_group import ProcessGroup
from training.recipes.recipe import Recipe


def torchrun(processes: int, *arguments: str, cwd: Path = PROJECT) -> "subprocess.CompletedProcess[str]":
    """Runs a module, with arguments, in so many processes."""
    return subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)),
            *("--monitor-interval", "0.05", "-m", *arguments),
        ],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(PROJECT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def trained(processes: int, folder: Path, jobs: Mapping[str, Mapping[str, Any]]) -> "subprocess.CompletedProcess[str]":
    """Trains in so many processes.

    Args:
        folder: a job writes to the folders `<job>/store` and `<job>/runs` in it.
        jobs: by their names: `recipe`, and other arguments of `train`. In `data`, {rank} is the process's own.
    """
    jobs_file = folder / "jobs.json"
    jobs_file.write_text(json.dumps(jobs))
    return torchrun(processes, __name__, str(jobs_file))


def _main(jobs_file: Path) -> None:
    group = ProcessGroup.of(os.environ)
    with group.joined(parent=os.getppid()):
        for name, job in json.loads(jobs_file.read_text()).items():
            folder = jobs_file.parent / name
            options = {key: value for key, value in job.items() if key != "recipe"}
            if "data" in options:
                options["data"] = Path(options["data"].format(rank=group.rank))
            train(
                Recipe.checked(job["recipe"]),
                store=folder / "store",
                runs=folder / "runs",
                device="cpu",
                pictures=False,
                group=group,
                **options,
            )


if __name__ == "__main__":
    _main(Path(sys.argv[1]))
