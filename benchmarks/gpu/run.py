"""Measures how much of a GPU reaches users: the forward pass and decoding, the engine, the whole server over HTTP.

    python -m benchmarks.gpu.run                                       some seven minutes on an H100 with 16 cores
    python -m benchmarks.gpu.run --device cpu --networks mnist_cnn resnet18 --batches 1 4 --seconds 0.2    does it work?

Each stage has a process and a time limit of its own. If a stage fails, it says why, and the others go on. If a stage
takes too long, it is ended, and what it has measured is kept. In both cases the exit code is 1. The weights are seeded,
so the answers mean nothing. wrk is not needed, because the clients are our own.

A machine that has torch, torchvision, uvloop and safetensors, but no FastAPI, needs wheels of fastapi starlette
annotated-doc opentelemetry-api uvicorn pydantic pydantic-core pydantic-settings annotated-types typing-inspection
python-dotenv python-multipart httptools watchfiles rich pillow, in the versions of constraints.txt, on PYTHONPATH.
Where the folder of photos is elsewhere, it needs --photos.
"""

import argparse
import json
import multiprocessing
import re
import signal
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path

import torch

from benchmarks.gpu import report as gpu_report
from benchmarks.gpu.ceilings import PRECISIONS, decoding, decoding_on_gpu, forward
from benchmarks.gpu.engine import engine
from benchmarks.gpu.over_http import http
from benchmarks.gpu.report import Row
from benchmarks.harness import report
from classifier.device import select_device

NETWORKS = ("resnet50", "mnist_cnn", "resnet18", "vit_b_16", "convnext_tiny")
IN_THE_ENGINE = ("resnet50", "mnist_cnn")  # those of these that are asked for; if none is, all that are asked for
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
USUAL_BATCH = 64  # the default of the setting max_batch
CLIENTS = {"cuda": (8, 32, 128, 512)}
FEW_CLIENTS = (2, 8)  # on any other device, which would take a minute to answer 512
# The seconds of each stage, below eight minutes in all.
BUDGETS = {"forward": 110.0, "decoding": 30.0, "gpu-decoding": 30.0, "engine": 120.0, "http": 180.0}
PATIENCE = 20.0  # seconds for a stage's process to end what it has started


@dataclass(frozen=True, slots=True)
class Stage:
    """One thing to measure. It is ended after `budget` seconds."""

    name: str
    rows: Callable[[], Iterable[Row]]
    budget: float


def main() -> int:
    arguments = _arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))
    rows: list[Row] = []
    failures: dict[str, str] = {}
    for stage in _stages(arguments):
        began = time.monotonic()
        print(f"== {stage.name}", flush=True)
        for row in _rows_of(stage, failures):
            print(f"{time.monotonic() - began:6.1f} s  {gpu_report.line(row)}", flush=True)
            rows.append(row)
    findings = gpu_report.findings(rows)
    gpu_report.show(rows, findings, device=_name_of(arguments.device))
    for name, reason in failures.items():
        print(f"{name}: {reason}")
    if arguments.json:
        about = {"device": _name_of(arguments.device), "seconds": arguments.seconds, "failures": failures}
        document = {**about, "machine": report.machine(), **gpu_report.document(rows, findings)}
        arguments.json.write_text(json.dumps(document, indent=1) + "\n")
    return 1 if failures else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="auto", help="cuda or cpu; auto takes the first that is there")
    parser.add_argument("--networks", nargs="+", default=list(NETWORKS))
    parser.add_argument("--precisions", nargs="+", default=list(PRECISIONS), choices=PRECISIONS)
    parser.add_argument("--batches", nargs="+", type=int, default=list(BATCHES))
    parser.add_argument("--clients", nargs="+", type=int, help="how many clients each closed loop has")
    parser.add_argument("--photos", type=Path, default=Path("../shared/data/photos"), help="a folder of JPEGs")
    parser.add_argument(
        "--seconds", type=float, default=2, help="the time for one measurement; some take a part or a multiple of it"
    )
    parser.add_argument("--stages", nargs="+", default=list(BUDGETS), choices=BUDGETS)
    parser.add_argument(
        "--json", type=Path, help="the file to write; on CUDA the default is benchmarks/results/gpu-<device>.json"
    )
    arguments = parser.parse_args()
    try:
        arguments.device = select_device(arguments.device)
    except ValueError as error:
        parser.error(str(error))
    if not arguments.photos.is_dir():
        parser.error(f"there is no folder {arguments.photos}")
    arguments.clients = arguments.clients or CLIENTS.get(arguments.device.type, FEW_CLIENTS)
    if arguments.json is None and arguments.device.type == "cuda":
        name = re.sub(r"[^a-z0-9]+", "-", _name_of(arguments.device).lower())
        arguments.json = Path(__file__).parents[1] / "results" / f"gpu-{name}.json"
    return arguments


def _stages(arguments: argparse.Namespace) -> Iterator[Stage]:
    device, seconds, networks = arguments.device, arguments.seconds, arguments.networks
    precisions, batches, photos = arguments.precisions, arguments.batches, arguments.photos.resolve()
    in_the_engine = [name for name in IN_THE_ENGINE if name in networks] or networks
    over_http = "resnet50" if "resnet50" in networks else networks[-1]
    max_batches = sorted({min(USUAL_BATCH, max(batches)), max(batches)})
    work: dict[str, Callable[[], Iterable[Row]]] = {
        "forward": partial(forward, networks, precisions, batches, device=device, seconds=seconds / 5),
        "decoding": partial(decoding, photos, seconds=2 * seconds),
        "gpu-decoding": partial(decoding_on_gpu, photos, device=device, seconds=seconds),
        "engine": partial(engine, in_the_engine, precisions, max_batches, device=str(device), seconds=seconds),
        "http": partial(
            http, over_http, precisions, arguments.clients, photos, device=str(device), seconds=3 * seconds
        ),
    }
    for name in arguments.stages:
        if name != "gpu-decoding" or device.type == "cuda":
            yield Stage(name, work[name], BUDGETS[name])


def _rows_of(stage: Stage, failures: dict[str, str]) -> Iterator[Row]:
    """Yields the rows of a stage as they come. If the stage fails, its reason is put into `failures`.

    The stage has a process of its own, because after an error of CUDA nothing works in its process any more.
    """
    context = multiprocessing.get_context("forkserver")  # which has imported torch, and never used a device
    context.set_forkserver_preload([function.__module__ for function in (forward, engine, http)])
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=_send_rows, args=(stage.rows, sending), name=stage.name)
    end = time.monotonic() + stage.budget
    process.start()
    sending.close()
    try:
        while receiving.poll(max(0.0, end - time.monotonic())):
            yield receiving.recv()
        failures[stage.name] = f"was ended after {stage.budget:g} s"
    except EOFError:  # it has ended
        process.join(PATIENCE)
        if process.exitcode != 0:
            failures[stage.name] = f"has failed with exit code {process.exitcode}; what it said stands above"
    finally:
        receiving.close()
        process.terminate()
        process.join(PATIENCE)
        process.kill()
        process.join()


def _send_rows(rows: Callable[[], Iterable[Row]], sending: Connection) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("stopped"))  # so that it ends its servers
    for row in rows():
        sending.send(row)


def _name_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


if __name__ == "__main__":
    sys.exit(main())
