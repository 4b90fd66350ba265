"""Measures a published checkpoint again, and shows the figures beside those in its manifest."""

from pathlib import Path

import torch
from rich import box
from rich.table import Table

from classifier.checkpoint import Checkpoint
from classifier.manifest import Metrics
from classifier.progress import Progress
from training.commands.reproduce import recipe_of
from training.data.dataset import load_dataset
from training.data.folder_names import composed
from training.device import device_named
from training.errors import TrainingError
from training.evaluation import measure
from training.evaluation.logits import evaluation_batch
from training.evaluation.measure import Measured
from training.recipes.builtin import OF_PHOTOS, builtin
from training.recipes.recipe import Recipe
from training.runs.initial_weights import load_checkpoint


def evaluate(
    path: Path,
    *,
    data: Path | str = Path("data"),
    runs: Path = Path("runs"),
    device: str = "auto",
    workers: int | None = None,
    strict: bool = False,
    cache_bytes: int | None = None,
    test: bool = False,
    progress: Progress | None = None,
) -> Measured:
    """Measures the checkpoint at `path` on the test set of its data, and returns what was measured.

    The test set of photos is `val/`, or what the recipe took out of the folder. On a CPU, with the same data and the
    same versions of the libraries, the figures equal the manifest's to the last digit.

    Args:
        data: the folder of the data set, the table, or the pattern of the shards or of their URLs; for a checkpoint
            that was not trained here, a folder of photos.
        test: photos are measured on `test/`, which training left out. Other data sets have one test set only.
        runs, device, workers, strict, cache_bytes, progress: as for `training.commands.train.train`.

    Raises:
        TrainingError: there is no sound checkpoint, or its data is not available.
        TorchvisionError: torchvision is needed and cannot be imported.
    """
    progress = progress or Progress.silent()
    _, checkpoint = load_checkpoint(path)
    manifest = checkpoint.manifest
    on = device_named(device)
    recipe = _recipe(checkpoint)
    apart = test and recipe.source.kind in OF_PHOTOS
    dataset = load_dataset(
        recipe,
        folder=data,
        scratch=runs,
        measure="test" if apart else "val",
        workers=workers,
        strict=strict,
        cache_bytes=cache_bytes,
        only_measured=True,
        progress=progress,
    )
    if dataset.labels != tuple(map(composed, manifest.labels)):
        raise TrainingError(f"the classes of {data} are {dataset.labels}, the checkpoint's are {manifest.labels}")
    provenance = manifest.provenance
    threads = torch.get_num_threads()
    if provenance is not None and provenance.threads is not None:
        torch.set_num_threads(provenance.threads)  # sums are split among them, which decides the last bits
    try:
        measured = measure.measured(
            checkpoint.build(evaluation_batch(dataset.test, on)),
            dataset.test,
            manifest.preprocess,
            on,
            name="test",
            temperature=manifest.temperature,
        )
    finally:
        torch.set_num_threads(threads)
    progress.show(_table(manifest.metrics, measured.metrics, comparable=not apart))
    if not apart and provenance is not None and provenance.dataset.fingerprint != dataset.fingerprint:
        progress.say("this is not the data that it was trained on: the fingerprints differ")
    return measured


def _recipe(checkpoint: Checkpoint) -> Recipe:
    manifest = checkpoint.manifest
    if manifest.provenance is not None:
        return recipe_of(manifest.provenance)
    # Only the data is asked of this recipe: the network is in the checkpoint, and may be one that nobody here knows.
    return builtin("photos", "scratch:mnist_cnn").replace(preprocess=manifest.preprocess.model_dump())


def _table(before: Metrics | None, now: Metrics, *, comparable: bool) -> Table:
    table = Table("figure", "manifest", "now", "", box=box.SIMPLE)
    then = {} if before is None else before.model_dump()
    for name, value in now.model_dump().items():
        known = then.get(name)
        table.add_row(
            name.replace("_", " "),
            "-" if known is None else str(known),
            str(value),
            _verdict(known, value) if comparable else "",
        )
    return table


def _verdict(before: object, now: object) -> str:
    if before is None:
        return ""
    return "the same" if before == now else "differs"
