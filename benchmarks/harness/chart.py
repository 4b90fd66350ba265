"""Draws figures for light and dark pages: requests per second against clients, with a line for each server."""

from collections.abc import Mapping, Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

from benchmarks.harness.load import Figures

# Readable on white and on black alike; the background is left transparent.
INK = "#7d8590"
OURS = ("#f76707", "#e64980")
OTHERS = ("#868e96", "#a08c5b", "#4c8fd6", "#2f9e63", "#9b72d8")
LABEL_GAP = 0.06  # of the axes' height, from one label to the next

Line = Sequence[tuple[int, float]]


def draw(path: Path, medians: Sequence[Figures]) -> None:
    """Writes the picture in the format that the suffix of the path names."""
    lines: dict[str, list[tuple[int, float]]] = {}
    for each in medians:
        lines.setdefault(each.server, []).append((each.clients, each.requests_per_second))
    figure = Figure(figsize=(7.6, 4.0), layout=ConstrainedLayoutEngine(h_pad=0.1, w_pad=0.1))
    axes = figure.add_subplot()
    _prepare(axes, lines)
    heights = _heights({name: line[-1][1] for name, line in lines.items()}, axes.get_ylim()[1])
    for name, style in _styles(list(lines)).items():
        axes.plot(*zip(*lines[name], strict=True), marker="o", markersize=4, **style)
        last = max(clients for clients, _ in lines[name])
        weight = "bold" if name.startswith("flambeau") else "normal"
        axes.annotate(
            name,
            (last, heights[name]),
            xytext=(10, 0),
            textcoords="offset points",
            verticalalignment="center",
            color=style["color"],
            fontweight=weight,
        )
    figure.savefig(path, transparent=True, dpi=200, metadata={"Date": None} if path.suffix == ".svg" else None)


def _styles(names: Sequence[str]) -> dict[str, dict[str, Any]]:
    ours, others = cycle(OURS), cycle(OTHERS)
    styles: dict[str, dict[str, Any]] = {}
    for name in names:
        if name.startswith("flambeau"):
            styles[name] = {"color": next(ours), "linewidth": 2.4}
        elif name.startswith("ideal"):
            styles[name] = {"color": INK, "linewidth": 1.2, "linestyle": "dashed"}
        else:
            styles[name] = {"color": next(others), "linewidth": 1.6}
    return styles


def _prepare(axes: Axes, lines: Mapping[str, Line]) -> None:
    clients = sorted({number for line in lines.values() for number, _ in line})
    axes.set_xscale("log", base=2)
    axes.set_xticks(clients, [f"{number:,}" for number in clients])
    axes.minorticks_off()
    axes.set_ylim(0, 1.08 * max(rate for line in lines.values() for _, rate in line))
    axes.yaxis.set_major_formatter("{x:,.0f}")
    axes.set_xlabel("clients", color=INK)
    axes.set_title("requests per second", loc="left", color=INK, fontsize="medium")
    axes.tick_params(colors=INK, length=0)
    axes.grid(axis="y", color=INK, alpha=0.25, linewidth=0.8)
    axes.spines[:].set_visible(False)


def _heights(ends: Mapping[str, float], top: float) -> dict[str, float]:
    """Returns how high each label stands.

    A label stands at the end of its line, or as near as the other labels and the top of the picture leave room.
    """
    heights: dict[str, float] = {}
    names, gap = sorted(ends, key=lambda name: ends[name]), LABEL_GAP * top
    for below, name in zip([None, *names], names, strict=False):
        heights[name] = ends[name] if below is None else max(ends[name], heights[below] + gap)
    for above, name in zip([None, *reversed(names)], reversed(names), strict=False):
        heights[name] = min(heights[name], top if above is None else heights[above] - gap)
    return heights
