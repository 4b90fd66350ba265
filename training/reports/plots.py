"""Draws pictures of a run for people: curves, confusion matrix, reliability diagram, and mistakes.

The first three need Matplotlib, which is an extra. It draws into memory, without a window, and gets its own settings
back afterwards. Each file is written whole or not at all.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from classifier import atomic_files
from classifier.manifest import EpochPoint
from classifier.preprocess import Pixels
from training.evaluation.metrics import BINS, Bin, EvaluationMetrics, Mistake
from training.reports import label_text
from training.reports.contact_sheet import contact_sheet, contact_sheets

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _DOTS = 8.0, 200  # inches, and dots to each: 1600 pixels that are legible at 800
_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#767676"  # Okabe and Ito's: told apart by the colour-blind, too
_MOST_COUNTS = 20  # classes whose cells have room for a number
_MOST_LABELS = 40  # classes whose axes have room for their labels
_MOST_CELLS = 200  # along an axis; more classes share one
_MOST_CONFUSED = 10

_STYLE: dict[str, Any] = {
    "font.family": ["DejaVu Sans"],  # comes with Matplotlib; `label_text` leaves out what it cannot draw
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _GREY,
    "xtick.color": _GREY,
    "ytick.color": _GREY,
    "xtick.labelcolor": "black",
    "ytick.labelcolor": "black",
    "text.parse_math": False,  # a label may hold dollars
    "text.usetex": False,
}


def missing() -> str | None:
    """Returns one line that says what to install for all pictures; None if it is installed."""
    try:
        import matplotlib.figure  # noqa: F401
    except ImportError:
        return "the curves, confusion matrix and reliability diagram need Matplotlib: pip install 'flambeau[pictures]'"
    return None


def draw(
    folder: Path,
    *,
    history: Sequence[EpochPoint],
    evaluation: EvaluationMetrics,
    labels: Sequence[str],
    mistakes: Sequence[tuple[Mistake, Pixels]],
    confused: Sequence[Sequence[tuple[Mistake, Pixels]]] = (),
) -> list[Path]:
    """Writes mistakes.png, and confused.png if there is any mistake.

    If nothing is `missing`, also curves.png, confusion.png and reliability.png.

    Args:
        history: by epoch; if it is empty there is no curves.png.
        labels: by class index.
        mistakes: each with the pixels that the network saw; their order is kept.
        confused: the same, for each of the pairs of classes that are confused most often.

    Returns: the paths of the files.
    Raises: OSError if a file cannot be written; nearly any, from a library that draws.
    """
    pictures = {"mistakes.png": contact_sheet(mistakes, labels=labels)}
    if confused:
        pictures["confused.png"] = contact_sheets(confused, labels=labels)
    if missing() is None:
        if history:
            pictures["curves.png"] = curves(history)
        pictures["confusion.png"] = confusion(evaluation, labels)
        pictures["reliability.png"] = reliability(evaluation)
    for name, data in pictures.items():
        atomic_files.replace(folder / name, data)
    return [folder / name for name in sorted(pictures)]


def curves(history: Sequence[EpochPoint]) -> bytes:
    """Returns a PNG file: loss and accuracy by epoch, in training and on the held-out samples."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    with _figure(height=3.6) as figure:
        left, right = figure.subplots(1, 2)
        epochs = [point.epoch for point in history]
        _lines(left, epochs, [point.loss for point in history], [point.held_out_loss for point in history])
        _lines(right, epochs, [point.accuracy for point in history], [point.held_out_accuracy for point in history])
        left.set_title("loss (nats)")
        right.set_title("accuracy")
        right.yaxis.set_major_formatter(PercentFormatter(xmax=1))
        figure.legend(*left.get_legend_handles_labels(), frameon=False, loc="outside upper right", ncols=2)
        for axes in (left, right):
            axes.set_xlabel("epoch")
            axes.set_xlim(epochs[0] - 0.5, epochs[-1] + 0.5)
            axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
            axes.grid(axis="y", color="#e6e6e6")
            axes.set_axisbelow(True)
        return _png(figure)


def confusion(evaluation: EvaluationMetrics, labels: Sequence[str]) -> bytes:
    """Returns a PNG file: a row is a true class, a column a predicted one, the colour shows the share of the row.

    Up to 20 classes there are counts in the cells, and up to 40 there are labels on the axes. Beyond 20 classes, the
    pairs that are confused most often stand below. Beyond 200, several classes share a cell.
    """
    counts, classes = evaluation.confusion, len(labels)
    with _figure(height=min(8.3, 3.5 + 0.5 * classes) if classes <= _MOST_COUNTS else 9.0) as figure:
        if classes <= _MOST_COUNTS:
            axes = figure.subplots()
        else:
            axes, below = figure.subplots(2, 1, height_ratios=[6, 1])
            _write_most_confused(below, counts, labels)
        cells, together = _pooled(counts)
        shares = cells / cells.sum(1, keepdim=True).clamp(min=1)
        _colour(figure, axes, shares, classes)
        axes.set_title(f"{evaluation.accuracy:.2%} of {evaluation.samples:,} samples are right")
        by_number = "" if classes <= _MOST_LABELS else ", by number"
        axes.set_ylabel(f"true class{by_number}")
        shared = f"; {together} x {together} classes share a cell" if together > 1 else ""
        axes.set_xlabel(f"predicted class{by_number}{shared}")
        if classes <= _MOST_LABELS:
            _write_labels(axes, labels)
        if classes <= _MOST_COUNTS:
            _write_counts(axes, counts, shares)
        return _png(figure)


def reliability(evaluation: EvaluationMetrics) -> bytes:
    """Returns a PNG file: how often answers of each confidence are right, before and after calibration."""
    from matplotlib.ticker import PercentFormatter

    before = f"as trained: calibration error {evaluation.before.ece:.2%}"
    after = f"at temperature {evaluation.temperature:.3f}: calibration error {evaluation.after.ece:.2%}"
    with _figure(height=5.0) as figure:
        grid = figure.subplots(2, 2, sharex=True, sharey="row", height_ratios=[4, 1])
        for column, (title, one) in enumerate(((before, evaluation.before), (after, evaluation.after))):
            upper, lower = grid[0, column], grid[1, column]
            upper.set_title(title)
            _bars(upper, one.bins)
            samples = [bin_.samples / evaluation.samples for bin_ in one.bins]
            lower.bar(_MIDDLES, samples, width=0.9 / BINS, color=_GREY)
            lower.set_xlabel("confidence")
            lower.set_ylim(0, 1)
            for axes in (upper, lower):
                axes.xaxis.set_major_formatter(PercentFormatter(xmax=1))
                axes.yaxis.set_major_formatter(PercentFormatter(xmax=1))
        grid[0, 0].set_ylabel("accuracy")
        grid[1, 0].set_ylabel("samples")
        # Outside: a bar may stand anywhere in the field.
        figure.legend(*grid[0, 0].get_legend_handles_labels(), frameon=False, loc="outside lower center", ncols=2)
        return _png(figure)


_MIDDLES = [(i + 0.5) / BINS for i in range(BINS)]


def _bars(axes: Axes, bins: Sequence[Bin]) -> None:
    heights = [bin_.accuracy or 0.0 for bin_ in bins]
    axes.plot([0, 1], [0, 1], color=_GREY, linewidth=1, linestyle="--")
    axes.bar(_MIDDLES, heights, width=0.9 / BINS, color=_BLUE, label="accuracy")
    confidences = [bin_.confidence for bin_ in bins if bin_.confidence is not None]
    middles = [middle for middle, bin_ in zip(_MIDDLES, bins, strict=True) if bin_.samples]
    half = 0.45 / BINS
    left, right = [middle - half for middle in middles], [middle + half for middle in middles]
    axes.hlines(confidences, left, right, color=_ORANGE, linewidth=2, label="mean confidence")
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)


def _lines(axes: Axes, epochs: Sequence[int], seen: Sequence[float], held_out: Sequence[float]) -> None:
    marker = "o" if len(epochs) <= 30 else ""
    axes.plot(epochs, seen, color=_ORANGE, marker=marker, markersize=4, label="training, as it went")
    axes.plot(epochs, held_out, color=_BLUE, marker=marker, markersize=4, label="held out")


def _colour(figure: Figure, axes: Axes, shares: torch.Tensor, classes: int) -> None:
    from matplotlib.colors import PowerNorm
    from matplotlib.ticker import PercentFormatter

    edges = (-0.5, classes - 0.5, classes - 0.5, -0.5)
    norm = PowerNorm(0.5, vmin=0, vmax=1)  # a rare confusion must be seen, too
    image = axes.imshow(shares.numpy(), cmap="Blues", norm=norm, extent=edges, interpolation="nearest")
    axes.spines[:].set_visible(False)
    if classes > _MOST_COUNTS:
        bar = figure.colorbar(
            image, ax=axes, shrink=0.5, ticks=[0, 0.01, 0.05, 0.2, 0.5, 1], format=PercentFormatter(1)
        )
        bar.set_label("of the true class" if classes <= _MOST_CELLS else "of the true classes")
        bar.outline.set_visible(False)


def _write_labels(axes: Axes, labels: Sequence[str]) -> None:
    size = 9 if len(labels) <= _MOST_COUNTS else 7
    letters = label_text.font(size * 100 / 72)  # in pixels of a picture 800 wide
    texts = [label_text.caption(label, i, font=letters, width=130) for i, label in enumerate(labels)]
    room = 0.9 * 560 / len(labels)
    upright = max(letters.getlength(text) for text in texts) > room
    axes.set_xticks(range(len(labels)), texts, fontsize=size, rotation=90 if upright else 0)
    axes.set_yticks(range(len(labels)), texts, fontsize=size)
    axes.tick_params(length=0)


def _write_counts(axes: Axes, counts: torch.Tensor, shares: torch.Tensor) -> None:
    classes = len(counts)
    size = min(12.0, 60 / classes + 4)
    for row in range(classes):
        for column in range(classes):
            count = int(counts[row, column])
            ink = "white" if shares[row, column] > 0.36 else "black" if count else "#b0b0b0"
            axes.text(column, row, f"{count:,}", color=ink, fontsize=size, ha="center", va="center")


def _pooled(counts: torch.Tensor) -> tuple[torch.Tensor, int]:
    """Returns float64 counts of at most `_MOST_CELLS` rows and columns, and how many classes share one."""
    together = -(-len(counts) // _MOST_CELLS)
    short = -len(counts) % together
    padded = torch.nn.functional.pad(counts, (0, short, 0, short)).double()
    rows = len(padded) // together
    return padded.view(rows, together, rows, together).sum((1, 3)), together


def _write_most_confused(axes: Axes, counts: torch.Tensor, labels: Sequence[str]) -> None:
    axes.axis("off")
    wrong = counts.clone().fill_diagonal_(0).flatten()
    most, places = wrong.sort(descending=True, stable=True)
    letters = label_text.font(8 * 100 / 72)
    axes.text(0, 1, "most often confused", transform=axes.transAxes, va="bottom", fontsize=9)
    for line, (count, place) in enumerate(zip(most[:_MOST_CONFUSED].tolist(), places.tolist(), strict=False)):
        if count:
            true, predicted = (
                label_text.caption(labels[i], i, font=letters, width=150) for i in divmod(place, len(labels))
            )
            column, row = divmod(line, _MOST_CONFUSED // 2)
            where = (column / 2, 0.85 - row / (_MOST_CONFUSED // 2))
            axes.text(*where, f"{count:,} x {true} -> {predicted}", transform=axes.transAxes, va="top", fontsize=8)


@contextmanager
def _figure(*, height: float) -> Iterator[Figure]:
    """Gives an empty figure in our own style, whatever the caller or a settings file of the user says."""
    import matplotlib.style
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    with matplotlib.style.context(["default", _STYLE]):
        margins = ConstrainedLayoutEngine(w_pad=0.1, h_pad=0.1, wspace=0.02)
        yield Figure(figsize=(_WIDTH, height), dpi=_DOTS, layout=margins)


def _png(figure: Figure) -> bytes:
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()
