"""Scores batches on a Ray cluster, by Ray Data: the same rows as on one machine, in the same order.

Each worker verifies the checkpoint before it scores. A worker or a node that ends loses nothing: Ray Data gives its
batches to others.
"""

import json
import logging
import socket
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from app.scoring.errors import ScoringError
from app.scoring.model import Chosen
from app.scoring.pipeline import scored
from app.scoring.rows import ScoredRow
from app.scoring.scorer import Scorer
from app.scoring.setup import DECIDING, Setup
from app.scoring.sources import Source

Look = tuple[dict[str, str], list[str | None]]

_PATIENCE = 5.0  # seconds until a cluster must answer


def scored_by_ray(address: str, sources: Sequence[Source], chosen: Chosen, setup: Setup) -> Iterator[list[ScoredRow]]:
    """Gives the rows of each batch, in order.

    Args:
        address: "auto" for the cluster that this machine belongs to, or `host:port` of its head.

    Raises: ScoringError, if the cluster is not there, a node has other versions, or a node cannot read the images.
    """
    _connect(address)
    _check_nodes(sources)
    resources = ray.cluster_resources()
    if setup.device not in ("auto", "cpu", "cuda"):
        raise ScoringError(f"--ray takes --device auto, cpu or cuda, not {setup.device}: Ray chooses which of several")
    gpus = 0 if setup.device == "cpu" else int(resources.get("GPU", 0))
    if setup.device == "cuda" and not gpus:
        raise ScoringError("--device cuda: the cluster has no GPU")
    cores = max(1, int(resources.get("CPU", 1)))
    workers = gpus or cores
    threads = max(1, cores // workers)
    setup = replace(setup, device="cuda" if gpus else "cpu")
    groups = [{"sources": json.dumps(sources[i : i + setup.batch])} for i in range(0, len(sources), setup.batch)]
    context = DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # the person has a bar of ours
    table = ray.data.from_items(groups, override_num_blocks=min(len(groups), 16 * workers)).map_batches(
        _Worker,
        fn_constructor_args=(ray.put(chosen.file.read_bytes()), setup, threads),
        batch_size=2 * threads,
        batch_format="numpy",
        num_cpus=threads,
        num_gpus=1 if gpus else None,
        compute=ActorPoolStrategy(min_size=1, max_size=workers),
    )
    return _rows(table)


def _rows(table: Any) -> Iterator[list[ScoredRow]]:
    try:
        for row in table.iter_rows():
            yield json.loads(row["rows"])
    except ray.exceptions.RayError as error:
        raise ScoringError(f"the cluster cannot go on: {' '.join(str(error).split())[-300:]}") from error


class _Worker:
    """Scores in a process of the cluster."""

    def __init__(self, checkpoint: Any, setup: Setup, threads: int) -> None:
        with tempfile.TemporaryDirectory(prefix="flambeau-") as folder:
            file = Path(folder) / f"{setup.version}.safetensors"
            file.write_bytes(ray.get(checkpoint))
            self._scorer = Scorer(file, setup, threads=threads)

    def __call__(self, groups: dict[str, Any]) -> dict[str, list[str]]:
        found = [Source(*each) for group in groups["sources"] for each in json.loads(group)]
        return {"rows": [json.dumps(rows) for rows in scored(self._scorer, found)]}


def _connect(address: str) -> None:
    if address.startswith("ray://"):
        raise ScoringError("--ray: run this on a machine of the cluster, with --ray auto; not through ray://")
    host, _, port = address.rpartition(":")
    if address != "auto":
        try:
            socket.create_connection((host, int(port)), _PATIENCE).close()
        except (OSError, ValueError) as error:
            raise ScoringError(f"--ray {address}: no Ray cluster answers there ({error})") from error
    try:
        ray.init(address=address, log_to_driver=False, logging_level="error", ignore_reinit_error=True)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ScoringError(f"--ray {address}: no Ray cluster is there ({' '.join(str(error).split())})") from error


def _check_nodes(sources: Sequence[Source]) -> None:
    """Checks that each node computes as this machine does, and sees what it is to read. Raises: ScoringError."""
    look = ray.remote(num_cpus=0)(_look)
    ours = _look(sources[0], sources[-1])
    nodes = {node["NodeID"]: node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]}
    looks = {
        node: look.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote(
            sources[0], sources[-1]
        )
        for node in nodes
    }
    for node, reference in looks.items():
        try:
            versions, problems = ray.get(reference)
        except ray.exceptions.RayError as error:
            raise ScoringError(f"node {nodes[node]} cannot score: {' '.join(str(error).split())[-300:]}") from error
        _check_like(nodes[node], (versions, problems), ours)


def _check_like(node: str, theirs: Look, ours: Look) -> None:
    """Checks that a node is like this machine. Raises: ScoringError, with what is not."""
    for name, there, here in ((name, each, ours[0][name]) for name, each in theirs[0].items()):
        if there != here:
            raise ScoringError(f"node {node} has {name} {there}, and this machine {here}: install the same")
    for problem, at_home in zip(theirs[1], ours[1], strict=True):
        if problem is not None and at_home is None:
            raise ScoringError(
                f"node {node} cannot read what this machine can ({problem}): "
                "--ray needs a folder that all nodes see, or a URL"
            )


def _look(*sources: Source) -> Look:
    """Returns the versions of a machine, and why it cannot read each of some images; None: it can."""
    from app.scoring.scorer import read

    found = {source.name: read(source) for source in sources}
    problems = [f"{name}: {each}" if isinstance(each, OSError) else None for name, each in found.items()]
    return {name: version(name) for name in DECIDING}, problems
