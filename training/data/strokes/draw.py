"""Draws handwritten digits: data that the project makes itself, from a seed, in seconds.

A digit is a few pen strokes. Each stroke is a smooth curve through control points, and the points are moved at random.
Then the whole digit is slanted, turned, scaled and bent, drawn with a pen of random width, and blurred. It is centred
by its mass, as MNIST's digits are. This file imports no torch, so that the processes that draw start quickly.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFilter

from classifier.cores import usable_cores
from training.data.strokes.glyphs import GLYPHS, Glyph
from training.data.workers import WorkerEndedError, Workers

# Part of what decides the pixels: raised whenever the same seed would give others.
VERSION = 1
SIZE = 28

Images = npt.NDArray[np.uint8]
Targets = npt.NDArray[np.int64]
_Points = npt.NDArray[np.float64]
_Job = tuple[int, int, int, int]  # seed, stream, chunk, how many

_CHUNK = 500  # drawn at once, from one random stream, whichever process does it
_WORTH_PROCESSES = 6_000  # starting them takes about as long as drawing this many
_FINE = 4  # drawn this much larger, then reduced
_BOX = 20  # the longer side of a digit without its margin, as MNIST's
_PER_SPAN = 6  # points on the curve between two control points


def draw_digits(
    count: int,
    *,
    seed: int,
    stream: int = 0,
    processes: int | None = None,
    advance: Callable[[int], None] | None = None,
) -> tuple[Images, Targets]:
    """Draws `count` digits: uint8 [count, 28, 28], bright on black, and int64 [count] in 0 to 9, in random order.

    The same seed and stream give the same digits, whatever the number of processes. Streams are independent of each
    other. If a process ends early, this process draws what is left.

    Args:
        processes: how many processes draw; None: as many as there are cores, or one if that is quicker.
        advance: is called with the number of digits that were finished since the last call.
    """
    starts = range(0, count, _CHUNK)
    jobs = [(seed, stream, start // _CHUNK, min(_CHUNK, count - start)) for start in starts]
    processes = min(processes or _processes_for(count), max(len(jobs), 1))
    images = np.empty((count, SIZE, SIZE), np.uint8)
    targets = np.empty(count, np.int64)
    for start, (some_images, some_targets) in zip(starts, _drawn(jobs, processes), strict=True):
        images[start : start + len(some_targets)] = some_images
        targets[start : start + len(some_targets)] = some_targets
        if advance is not None:
            advance(len(some_targets))
    return images, targets


def _draw_chunk(job: _Job) -> tuple[Images, Targets]:
    seed, stream, index, count = job
    random = np.random.default_rng([seed, stream, index])
    targets = random.integers(0, len(GLYPHS), count)
    images = np.empty((count, SIZE, SIZE), np.uint8)
    for digit, glyphs in enumerate(GLYPHS):
        places = np.flatnonzero(targets == digit)
        shares = np.array([glyph.share for glyph in glyphs])
        chosen = random.choice(len(glyphs), size=len(places), p=shares / shares.sum())
        for i, glyph in enumerate(glyphs):
            group = places[chosen == i]
            if len(group):
                images[group] = draw_glyph(glyph, len(group), random)
    return images, targets


def draw_glyph(glyph: Glyph, count: int, random: np.random.Generator) -> Images:
    """Draws one character `count` times, as `count` people write it: uint8 [count, SIZE, SIZE], white on black."""
    curves = _curves(glyph, count, random)
    pens = np.clip(random.lognormal(math.log(2.5), 0.33, count), 1.1, 6.0)  # pixels wide
    ends = np.cumsum([len(_spline(len(stroke))) for stroke in glyph.strokes])[:-1]
    curves = _fitted(_deformed(curves, random), pens, ends)
    blurs = random.uniform(0.0, 0.5, count)
    contrasts = random.uniform(1.0, 2.0, count)
    images = np.empty((count, SIZE, SIZE), np.float64)
    for i in range(count):
        strokes = np.split(curves[i], ends)
        images[i] = _inked(strokes, pen=float(pens[i]), blur=float(blurs[i]))
    return np.clip(images * contrasts[:, None, None], 0, 255).astype(np.uint8)


def _curves(glyph: Glyph, count: int, random: np.random.Generator) -> _Points:
    """Returns [count, points, 2]: the glyph's strokes one after another, each time with other control points."""
    distinct = list(dict.fromkeys(point for stroke in glyph.strokes for point in stroke))
    moved = np.array(distinct) + random.normal(0, 0.085 * glyph.wobble, (count, len(distinct), 2))
    parts = [
        np.einsum("pk,nkd->npd", _spline(len(stroke)), moved[:, [distinct.index(point) for point in stroke]])
        for stroke in glyph.strokes
    ]
    return np.concatenate(parts, axis=1)


@cache
def _spline(controls: int) -> _Points:
    """Returns [points, controls]: the weights of a Catmull-Rom curve, which goes through all its control points."""
    t = np.linspace(0, 1, _PER_SPAN, endpoint=False)[:, None]
    basis = np.hstack([-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3]) / 2
    weights = np.zeros(((controls - 1) * _PER_SPAN + 1, controls))
    for span in range(controls - 1):
        for k in range(4):  # the ends stand for the neighbours that they lack
            weights[span * _PER_SPAN : (span + 1) * _PER_SPAN, np.clip(span - 1 + k, 0, controls - 1)] += basis[:, k]
    weights[-1, -1] = 1
    return weights


def _deformed(curves: _Points, random: np.random.Generator) -> _Points:
    """Bends the curves by slow waves, makes them narrower or wider, slants and turns them."""
    count = len(curves)
    centred = curves - 0.5
    for axis in range(2):
        amplitude = random.normal(0, 0.045, (count, 1, 2))
        phase = random.uniform(0, 2 * math.pi, (count, 1, 2))
        waves = amplitude * np.sin(2 * math.pi * random.uniform(0.4, 1.0, (count, 1, 2)) * centred + phase)
        centred[..., axis] += waves.sum(axis=2)
    x, y = centred[..., 0], centred[..., 1]
    x = x * np.exp(random.normal(math.log(0.72), 0.2, (count, 1)))
    x = x - y * random.normal(0.2, 0.28, (count, 1))
    turn = random.normal(0, 0.13, (count, 1))
    return np.stack([x * np.cos(turn) - y * np.sin(turn), x * np.sin(turn) + y * np.cos(turn)], axis=2)


def _fitted(curves: _Points, pens: npt.NDArray[np.float64], lifts: npt.NDArray[np.intp]) -> _Points:
    """Returns the curves in pixels: the longer side, pen included, fills the box, its ink is centred."""
    low, high = curves.min(axis=1), curves.max(axis=1)
    scale = (_BOX - pens) / np.maximum((high - low).max(axis=1), 0.1)
    curves = curves * scale[:, None, None]
    # A piece of the curve holds ink as it is long; where the pen was lifted it holds none.
    pieces = np.linalg.norm(np.diff(curves, axis=1), axis=2)[..., None]
    pieces[:, lifts - 1] = 0
    middles = (curves[:, 1:] + curves[:, :-1]) / 2
    mass = (pieces * middles).sum(axis=1) / pieces.sum(axis=1)
    fitted: _Points = curves - mass[:, None, :] + SIZE / 2
    return fitted


def _inked(strokes: Sequence[_Points], *, pen: float, blur: float) -> npt.NDArray[np.uint8]:
    canvas = Image.new("L", (SIZE * _FINE, SIZE * _FINE))
    ink = ImageDraw.Draw(canvas)
    radius = pen * _FINE / 2
    for stroke in strokes:
        points = [(x, y) for x, y in (stroke * _FINE).tolist()]
        ink.line(points, fill=255, width=round(2 * radius))
        for x, y in points:
            ink.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)
    small = canvas.reduce(_FINE).filter(ImageFilter.GaussianBlur(blur))
    return np.asarray(small)


def _drawn(jobs: Sequence[_Job], processes: int) -> Iterator[tuple[Images, Targets]]:
    """Draws the jobs in their order; leaving early drops what was not begun."""
    done = 0
    try:
        for chunk in Workers(0 if processes == 1 else processes, preload=(__name__,)).map(_draw_chunk, jobs):
            yield chunk
            done += 1
    except WorkerEndedError:  # a process was killed, or none can start, as from a script on stdin
        yield from map(_draw_chunk, jobs[done:])


def _processes_for(count: int) -> int:
    return 1 if count < _WORTH_PROCESSES else usable_cores()
