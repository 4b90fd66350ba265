"""Tells people at the end of a run what came of it: by pictures in the run's folder, and by tables."""

import functools
import shlex
from pathlib import Path

import torch
from rich import box
from rich.table import Table

from classifier.manifest import Manifest
from classifier.progress import Progress
from classifier.scores import SCORES
from training.data.batches import Split
from training.errors import type_and_line
from training.evaluation.measure import Measured
from training.evaluation.metrics import most_confused, worst
from training.reports import plots
from training.reports.advice import confusions

_MOST_CLASSES = 20  # in a table that a person reads
_EXAMPLES = 5  # of a confused pair, in a picture


def draw(folder: Path, manifest: Manifest, measured: Measured, test: Split, *, progress: Progress) -> None:
    """Draws curves, confusion matrix, reliability diagram, and mistakes as the network saw them.

    What goes wrong with a picture is said in one line, and raises nothing.

    Args:
        test: the split that was measured.
    """
    mistakes_of = functools.partial(
        worst, measured.logits, measured.targets, temperature=measured.evaluation.temperature
    )
    pairs = most_confused(measured.evaluation.confusion)
    groups = [mistakes_of(), *(mistakes_of(count=_EXAMPLES, among=pair) for pair in pairs)]
    chosen = [torch.tensor([one.index]) for group in groups for one in group]
    images = (batch[0].numpy() for batch, _ in test.batches(chosen, device=torch.device("cpu")))
    try:
        mistakes, *confused = [[(one, next(images)) for one in group] for group in groups]
        drawn = plots.draw(
            folder,
            history=manifest.curve or (),
            evaluation=measured.evaluation,
            labels=manifest.labels,
            mistakes=mistakes,
            confused=confused,
        )
    except OSError as error:
        progress.say(f"the pictures could not be written to {folder}: {error.strerror or error}")
        return
    except Exception as error:  # noqa: BLE001  the version is published: nothing that a picture raises undoes that
        progress.say(f"the pictures could not be drawn: {type_and_line(error)}")
        return
    progress.say(f"pictures: {', '.join(path.name for path in drawn)} in {folder}")
    if (advice := plots.missing()) is not None:
        progress.say(advice)


def say(manifest: Manifest, measured: Measured, *, path: Path | str, progress: Progress) -> None:
    """Says the figures as tables, and the command that serves the result.

    Args:
        path: of the published version, or its URL.
    """
    progress.show(_summary(manifest, measured))
    if manifest.per_class is not None and len(manifest.labels) <= _MOST_CLASSES:
        progress.show(_classes(manifest))
    if (advice := confusions(measured.evaluation.confusion, manifest.labels)) is not None:
        progress.say(advice)
    store = str(path).rsplit("/", 2)[0]
    where = "" if store == "models_store" else f" --store {shlex.quote(store)}"
    progress.say(f"published {path}")
    progress.say(f"serve it: python -m app{where}")


def _summary(manifest: Manifest, measured: Measured) -> Table:
    table = Table(
        title=f"{manifest.model} ({manifest.architecture})", title_justify="left", show_header=False, box=box.SIMPLE
    )
    evaluation = measured.evaluation
    rows = {
        f"{measured.split} samples": f"{len(measured.targets):,}",
        "accuracy": f"{evaluation.accuracy:.2%}",
        "loss": f"{evaluation.loss:.4f}",
        "calibration error": f"{evaluation.before.ece:.2%}, at temperature {evaluation.temperature:.3f}: "
        f"{evaluation.after.ece:.2%}",
    }
    if manifest.provenance is not None:
        rows["published epoch"] = f"{manifest.provenance.epoch} of {len(manifest.curve or ())}"
    if manifest.out_of_distribution is not None:
        scores = SCORES[manifest.out_of_distribution.method](measured.logits)
        flagged = float((scores < manifest.out_of_distribution.threshold).double().mean())
        rows["flagged as unlike the training set"] = f"{flagged:.1%}"
    for name, value in rows.items():
        table.add_row(name, value)
    return table


def _classes(manifest: Manifest) -> Table:
    table = Table("class", "samples", "precision", "recall", box=box.SIMPLE)
    for label, one in zip(manifest.labels, manifest.per_class or (), strict=True):
        table.add_row(label, f"{one.samples:,}", _share(one.precision), _share(one.recall))
    return table


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.2%}"
