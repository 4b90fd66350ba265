"""Exports every network that is known by name, and compares the program with the network to the last bit.

    python -m benchmarks.training.exports [--again] [ARCHITECTURE ...]

Fresh weights, 10 classes, one thread of torch. Each program passes the check that a server makes, and gives the same
logits as the network in eager mode for batches of 1 and 3. Small networks come first. What the results hold already for
this version of torch is not done again, unless `--again` is given.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.harness.report import machine
from classifier.architectures import build, known, meta_network
from classifier.program.check import check
from classifier.program.network import ProgramNetwork
from training.errors import TrainingError
from training.networks.export_program import export_program

RESULTS = Path(__file__).parents[1] / "results" / "exports_torchvision.json"
CLASSES = 10
SIZES = {"mnist_cnn": 28, "inception_v3": 299}  # pixels an edge, where it is not 224


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architectures", nargs="*", metavar="ARCHITECTURE")
    parser.add_argument("--again", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = {row["architecture"]: row for row in _kept() if not arguments.again}
    for architecture in sorted(arguments.architectures or known(), key=parameters):
        if architecture in rows and not arguments.architectures:
            continue
        rows[architecture] = row = measured(architecture)
        print(" ".join(f"{value}" for value in row.values()), flush=True)
        every = sorted(rows.values(), key=lambda row: str(row["architecture"]))
        RESULTS.write_text(json.dumps({"machine": machine(), "networks": every}, indent=1) + "\n")
    failed = [name for name, row in rows.items() if row["result"] != "equal"]
    print(f"{len(rows)} of {len(known())} were exported; not equal: {', '.join(failed) or 'none'}")
    return 1 if failed else 0


def _kept() -> list[dict[str, Any]]:
    if not RESULTS.exists():
        return []
    results = json.loads(RESULTS.read_text())
    rows: list[dict[str, Any]] = results["networks"]
    return rows if results["machine"]["versions"]["torch"] == machine()["versions"]["torch"] else []


def parameters(architecture: str) -> int:
    """Returns how many numbers a network's weights are."""
    return sum(each.numel() for each in meta_network(architecture, CLASSES).parameters())


def measured(architecture: str) -> dict[str, Any]:
    """Returns what exporting a network came to."""
    torch.manual_seed(0)
    network = build(architecture, CLASSES).eval()
    size = SIZES.get(architecture, 224)
    shape = (1 if architecture == "mnist_cnn" else 3, size, size)
    row: dict[str, Any] = {"architecture": architecture, "parameters": parameters(architecture)}
    began = time.process_time()
    try:
        exported = export_program(network, shape, architecture)
    except TrainingError as error:
        return row | {"result": str(error)}
    row["export_cpu_seconds"] = round(time.process_time() - began, 2)
    began = time.process_time()
    check(exported.program, shape, CLASSES, 64)
    row["check_cpu_seconds"] = round(time.process_time() - began, 2)
    row |= {"nodes": len(exported.program.nodes), "document_bytes": len(exported.program.to_json())}
    row["operators"] = " ".join(exported.program.operators)
    program = ProgramNetwork(exported.program, exported.tensors).eval()
    images = torch.randn(3, *shape)
    with torch.inference_mode():
        equal = all(torch.equal(program(images[:count]), network(images[:count])) for count in (1, 3))
    return row | {"result": "equal" if equal else "differs"}


if __name__ == "__main__":
    sys.exit(main())
