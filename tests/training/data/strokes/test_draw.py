"""The drawn digits: the same from the same seed, and like MNIST's in what a network sees."""

import subprocess
import sys
from multiprocessing import active_children

import numpy as np
import pytest

from tests.support.server import PROJECT
from training.data.strokes.draw import Images, Targets, draw_digits
from training.data.strokes.glyphs import GLYPHS


@pytest.fixture(scope="module")
def drawn() -> tuple[Images, Targets]:
    return draw_digits(1500, seed=5)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_digits_whatever_the_number_of_processes(
    drawn: tuple[Images, Targets],
) -> None:
    images, targets = draw_digits(1500, seed=5, processes=2)
    assert np.array_equal(images, drawn[0])
    assert np.array_equal(targets, drawn[1])


@pytest.mark.slow
def test_where_no_process_can_start_the_same_digits_are_drawn_without(
    drawn: tuple[Images, Targets],
) -> None:
    script = (
        "from training.data.strokes.draw import draw_digits\n"
        "print(draw_digits(1500, seed=5, processes=2)[0].tobytes().hex())\n"
    )
    command = [sys.executable, "-"]  # a new process would look for this script in a file
    answer = subprocess.run(command, input=script, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=True)
    assert bytes.fromhex(answer.stdout) == drawn[0].tobytes()


@pytest.mark.process
@pytest.mark.slow
def test_where_processes_are_killed_the_same_digits_are_drawn_all_the_same(drawn: tuple[Images, Targets]) -> None:
    killed: list[int] = []

    def kill_all(_: int) -> None:
        for child in [] if killed else active_children():
            killed.append(child.pid or 0)
            child.kill()

    images, targets = draw_digits(1500, seed=5, processes=2, advance=kill_all)
    assert killed
    assert np.array_equal(images, drawn[0])
    assert np.array_equal(targets, drawn[1])


@pytest.mark.slow
@pytest.mark.parametrize(("seed", "stream"), [(6, 0), (5, 1)])
def test_another_seed_or_stream_shares_no_image(drawn: tuple[Images, Targets], seed: int, stream: int) -> None:
    others = draw_digits(1500, seed=seed, stream=stream)[0]
    assert not {image.tobytes() for image in others} & {image.tobytes() for image in drawn[0]}


@pytest.mark.slow
def test_all_digits_come_about_equally_often(drawn: tuple[Images, Targets]) -> None:
    counts = np.bincount(drawn[1], minlength=10)
    assert len(counts) == 10
    assert counts.min() > 100


def test_digits_are_bright_on_black_and_leave_a_margin(drawn: tuple[Images, Targets]) -> None:
    images = drawn[0]
    assert images.dtype == np.uint8
    assert images.shape == (1500, 28, 28)
    assert (images.max(axis=(1, 2)) > 200).all()
    assert 25 < images.mean() < 55  # MNIST's is 33
    edges = np.concatenate([images[:, 0], images[:, -1], images[:, :, 0], images[:, :, -1]], axis=1)
    assert (edges.max(axis=1) > 64).mean() < 0.05  # MNIST's is 0.016


def test_the_longer_side_of_a_digit_is_about_20_pixels(drawn: tuple[Images, Targets]) -> None:
    ink = drawn[0] > 64
    heights, widths = ink.any(axis=2).sum(axis=1), ink.any(axis=1).sum(axis=1)
    longer = np.maximum(heights, widths)
    assert 18 <= np.median(longer) <= 21
    assert longer.max() <= 23


def test_a_digit_s_centre_of_mass_is_in_the_middle(drawn: tuple[Images, Targets]) -> None:
    images = drawn[0].astype(float)
    mass = images.sum(axis=(1, 2))
    middles = np.arange(28) + 0.5
    rows = (images.sum(axis=2) @ middles) / mass
    columns = (images.sum(axis=1) @ middles) / mass
    distance = np.hypot(rows - 14, columns - 14)
    assert np.quantile(distance, 0.95) < 1.5


def test_no_two_digits_are_drawn_alike(drawn: tuple[Images, Targets]) -> None:
    assert len({image.tobytes() for image in drawn[0]}) == len(drawn[0])


@pytest.mark.slow
def test_progress_counts_every_digit_once() -> None:
    steps: list[int] = []
    draw_digits(1201, seed=0, advance=steps.append)
    assert sum(steps) == 1201


def test_none_is_also_a_number_of_digits() -> None:
    images, targets = draw_digits(0, seed=0)
    assert (len(images), len(targets)) == (0, 0)


def test_a_corner_is_two_points_and_a_lifted_pen_begins_a_stroke() -> None:
    four = next(glyph for glyph in GLYPHS[4] if "|" in glyph.pen and "!" in glyph.pen)
    assert len(four.strokes) == 2
    repeated = [a for a, b in zip(four.strokes[0], four.strokes[0][1:], strict=False) if a == b]
    assert len(repeated) == four.pen.count("!")
