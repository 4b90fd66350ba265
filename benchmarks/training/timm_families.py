"""Goes through the families of timm: which networks become a program, and whether the program computes the same.

    python -m benchmarks.training.timm_families [--families NAME ...] [--no-result]

Of each module of `timm.models` it takes the smallest network that has pretrained weights. It is made with fresh weights
for ten classes, at timm's own image size. Parameters that are the same everywhere (zeros of a layer scale, of a head)
get small random numbers, so that no part of a network computes nothing. Then it is exported and read back as for
publishing, checked with `classifier.program.check` at batches 1, 2 and 32, and its logits are compared with the
module's at batches 1 and 3. Seconds are those of one core. Networks of more than 100 million parameters are left out:
they need more memory than a small machine has. Results of families that are not named are kept from the runs before,
and from those that go on at the same time.
"""

import argparse
import json
import logging
import os
import platform
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from classifier.header import CheckpointError
from classifier.program.check import check
from classifier.program.network import ProgramNetwork
from training.errors import TrainingError, shortened
from training.networks import heads, timm_networks
from training.networks.export_program import export_program
from training.networks.spec import NetworkSpec

RESULTS = Path(__file__).parents[1] / "results" / "timm_families.json"
DOCUMENT = Path(__file__).parents[2] / "docs" / "timm.md"
CLASSES = 10
MOST_PARAMETERS = 100_000_000
# Words in the names of networks that are never the smallest of their family, where there are others.
_LARGE = ("large", "huge", "giant", "gigantic", "enormous")
_BEGIN, _END = "<!-- families -->", "<!-- end of families -->"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    timm = timm_networks.library()
    modules = timm.list_modules()
    parser.add_argument("--families", nargs="*", default=modules, metavar="NAME", help="only these (default: all)")
    parser.add_argument("--no-result", action="store_true", help="do not write benchmarks/results and docs/timm.md")
    arguments = parser.parse_args()
    torch.set_num_threads(1)  # the work is Python's
    logging.disable(logging.WARNING)  # timm's, about networks without a configuration
    for family in arguments.families:
        row = _measured(family, _kept().get(family))
        print(f"{family:24} {row['network'] or '-':40} {_outcome(row)}", flush=True)
        if not arguments.no_result:
            _write(_kept() | {family: row})
    return 0


def _kept() -> dict[str, dict[str, Any]]:
    """Returns the rows that were measured with this version of timm."""
    before = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    rows: dict[str, dict[str, Any]] = before.get("families", {})
    return rows if before.get("timm") == timm_networks.library().__version__ else {}


def _write(rows: dict[str, dict[str, Any]]) -> None:
    result = {
        "timm": timm_networks.library().__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
        "classes": CLASSES,
        "exported": sum(row.get("exported", False) for row in rows.values()),
        "families": dict(sorted(rows.items())),
    }
    new = RESULTS.with_suffix(f".{os.getpid()}")
    new.write_text(json.dumps(result, indent=1) + "\n")
    new.replace(RESULTS)  # at once, for others may read it
    _write_document(result)


def _measured(family: str, known: dict[str, Any] | None) -> dict[str, Any]:
    """Returns one row.

    Args:
        known: the row of a run before with the same version of timm, which has found the smallest network already.
    """
    name, parameters = _smallest(family) if known is None else (known["network"], known["parameters"])
    if name is None:
        return {"network": None, "parameters": 0, "left_out": "none of its networks has pretrained weights"}
    architecture = timm_networks.PREFIX + name
    shape = tuple(timm_networks.configuration(architecture).input_size)
    row: dict[str, Any] = {"network": name, "parameters": parameters, "shape": shape}
    if parameters > MOST_PARAMETERS:
        return row | {"left_out": f"it has {parameters / 1e6:.0f} million parameters"}
    spec = NetworkSpec(architecture, shape)
    try:
        row["head"] = heads.parts(spec, "head")
        torch.manual_seed(0)
        network = spec.build(CLASSES).eval()
    except TrainingError as error:
        return row | {"exported": False, "reason": _plain(error)}
    _fill(network)
    begin = time.process_time()
    try:
        exported = export_program(network, shape, name)
        row["seconds"] = round(time.process_time() - begin, 2)
        row["nodes"] = len(exported.program.nodes)
        row["bytes"] = len(exported.program.to_json())
        row["operators"] = exported.program.operators
        check(exported.program, shape, CLASSES, 32)
        return row | {"exported": True, "difference": _difference(network, exported, shape)}
    except (TrainingError, CheckpointError) as error:
        return row | {"exported": False, "reason": _plain(error)}
    except Exception as error:  # noqa: BLE001  what torch raises on the way is a result as well
        return row | {"exported": False, "reason": _plain(f"{type(error).__name__}: {error}")}


def _smallest(family: str) -> tuple[str | None, int]:
    """Returns the name of the smallest network with pretrained weights, and how many parameters it has."""
    timm = timm_networks.library()
    names = {name.partition(".")[0] for name in timm.list_models(module=family, pretrained=True)}
    real = {name for name in names if not name.startswith("test_")}
    small = {name for name in real if not any(word in name for word in _LARGE)} or real
    sizes = {}
    for name in sorted(small):
        with torch.device("meta"):
            sizes[name] = sum(each.numel() for each in timm.create_model(name).parameters())
    found = min(sizes, key=lambda name: sizes[name], default=None)
    return found, 0 if found is None else sizes[found]


def _fill(network: nn.Module) -> None:
    """Adds small random numbers to parameters that are the same everywhere."""
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.numel() > 1 and bool((parameter == parameter.flatten()[0]).all()):
                parameter.add_(torch.randn_like(parameter), alpha=0.1)


@torch.inference_mode()
def _difference(network: nn.Module, exported: Any, shape: tuple[int, int, int]) -> float:
    """Returns by how much logits of the program and of the module differ at most, as a share of the largest logit."""
    program = ProgramNetwork(exported.program, exported.tensors).eval()
    worst = 0.0
    for batch in (1, 3):
        images = torch.randn(batch, *shape)
        theirs, ours = network(images), program(images)
        if ours.shape != theirs.shape:
            raise TrainingError(f"the program makes {list(ours.shape)}, the module {list(theirs.shape)}")
        worst = max(worst, float((ours - theirs).abs().max() / theirs.abs().max()))
    return worst


def _plain(error: object) -> str:
    """Returns a message as one line, without the folders of this machine."""
    words = str(error)
    for path in {*sys.path, str(Path.cwd())} - {""}:
        words = words.replace(f"{path}/", "")
    return shortened(words)


def _outcome(row: dict[str, Any]) -> str:
    if "left_out" in row:
        return f"left out: {row['left_out']}"
    if not row["exported"]:
        return f"NOT: {row['reason']}"
    return f"{row['seconds']:.1f} s, {row['nodes']} nodes, differs by {row['difference']:.1e}, head {row['head']}"


def _write_document(result: dict[str, Any]) -> None:
    lines = [
        "| family | network | parameters | image | seconds | nodes | operators | largest difference |",
        "|" + "---|" * 8,
    ]
    refused, left_out, missing, every = [], [], [], set()
    for family in timm_networks.library().list_modules():
        row = result["families"].get(family, {})
        if "left_out" in row:
            network = f" `{row['network']}`:" if row["network"] else ""
            left_out.append(f"- {family}:{network} {row['left_out']}.")
        elif "exported" not in row:
            missing.append(family)
        elif not row["exported"]:
            refused.append(f"- {family}: `{row['network']}`: {row['reason'].removeprefix(row['network'] + ': ')}")
        else:
            every |= set(row["operators"])
            lines.append(
                f"| {family} | `{row['network']}` | {row['parameters'] / 1e6:.1f} M | {row['shape'][1]} "
                f"| {row['seconds']:.1f} | {row['nodes']} | {len(row['operators'])} | {row['difference']:.0e} |"
            )
    counts = f"{result['exported']} families export, {len(refused)} do not, {len(left_out)} were left out"
    counts += f", {len(missing)} were not measured" if missing else ""
    words = [
        f"Measured with timm {result['timm']} and torch {result['torch']}: {counts}.",
        "",
        *(["These do not:", "", *refused, ""] if refused else []),
        *(["These were left out:", "", *left_out, ""] if left_out else []),
        *([f"These were not measured: {', '.join(missing)}.", ""] if missing else []),
        *lines,
        "",
        f"Together they use {len(every)} operators: {', '.join(f'`{name}`' for name in sorted(every))}.",
    ]
    text = DOCUMENT.read_text()
    begin, end = text.index(_BEGIN) + len(_BEGIN), text.index(_END)
    DOCUMENT.write_text(f"{text[:begin]}\n\n" + "\n".join(words) + f"\n\n{text[end:]}")


if __name__ == "__main__":
    sys.exit(main())
