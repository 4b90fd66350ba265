"""The worst mistakes on one sheet: which image stands where, how large, and with what under it."""

import io

import numpy as np
import pytest
from PIL import Image

from classifier.preprocess import Pixels
from training.evaluation.metrics import Mistake
from training.reports.contact_sheet import contact_sheet, contact_sheets

LABELS = ("ant", "bee")
CELL, GAP = 288, 26  # pixels
COLOURS = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (0, 255, 255), (255, 0, 255)]


def sheet(images: list[Pixels], labels: tuple[str, ...] = LABELS) -> Image.Image:
    mistakes = [(Mistake(index=i, target=0, predicted=1, confidence=0.987), image) for i, image in enumerate(images)]
    return Image.open(io.BytesIO(contact_sheet(mistakes, labels=labels)))


def coloured(colour: tuple[int, int, int], height: int = 28, width: int = 28) -> Pixels:
    return np.full((height, width, 3), colour, np.uint8)


def cell(drawn: Image.Image, place: int, *, height: int = CELL + 34 + GAP) -> Image.Image:
    left, top = GAP + place % 5 * (CELL + GAP), GAP + place // 5 * height
    return drawn.crop((left, top, left + CELL, top + height))


def test_images_stand_in_their_order_five_to_a_row() -> None:
    drawn = sheet([coloured(colour) for colour in COLOURS])
    assert drawn.mode == "RGB"
    assert [cell(drawn, place).getpixel((CELL // 2, CELL // 2)) for place in range(6)] == COLOURS
    assert cell(drawn, 6).getcolors() == [(CELL * (CELL + 34 + GAP), (255, 255, 255))]


def test_25_mistakes_are_five_rows_and_about_1600_pixels_wide() -> None:
    image = np.zeros((28, 28, 1), np.uint8)
    drawn, one_row = sheet([image] * 25), sheet([image] * 5)
    assert drawn.width == one_row.width == pytest.approx(1600, abs=10)
    assert drawn.height - GAP == 5 * (one_row.height - GAP)


def test_a_small_image_keeps_its_pixels_as_squares() -> None:
    board = (255 * (np.indices((28, 28)).sum(0) % 2)).astype(np.uint8)
    shown = np.asarray(cell(sheet([board[..., None]]), 0).crop((4, 4, 284, 284)))  # 28 x 10 pixels, in the middle
    assert np.array_equal(shown[..., 0], board.repeat(10, 0).repeat(10, 1))
    assert np.array_equal(shown[..., 0], shown[..., 2])


@pytest.mark.parametrize(("height", "width"), [(224, 224), (100, 400), (600, 300), (1, 1), (1, 4000)])
def test_an_image_of_any_size_fills_its_cell_in_proportion(height: int, width: int) -> None:
    drawn = cell(sheet([coloured((255, 0, 0), height, width)]), 0).crop((0, 0, CELL, CELL))
    red = (np.asarray(drawn) == (255, 0, 0)).all(2)
    rows, columns = red.any(1).sum(), red.any(0).sum()
    assert max(rows, columns) == CELL
    assert rows == max(1, round(CELL * height / max(height, width)))
    assert columns == max(1, round(CELL * width / max(height, width)))


def test_under_each_image_stands_something_and_long_labels_get_three_lines() -> None:
    short = sheet([coloured((0, 0, 0))])
    assert np.asarray(cell(short, 0).crop((0, CELL, CELL, CELL + 34))).min() < 64
    long = sheet([coloured((0, 0, 0))], ("Labrador retriever", "golden retriever"))
    assert long.height - short.height == 2 * 34


def test_a_label_that_no_font_can_draw_is_no_reason_to_fail() -> None:
    assert sheet([coloured((0, 0, 0))], ("猫\n", "\ud800$")).width > 1000


def test_without_mistakes_the_sheet_says_so() -> None:
    drawn = sheet([])
    assert drawn.height < 100
    assert np.asarray(drawn).min() < 64


def test_groups_stand_one_below_the_other_each_from_a_row_of_its_own() -> None:
    mistakes = [
        [(Mistake(index=0, target=0, predicted=1, confidence=0.9), coloured(colour)) for colour in group]
        for group in (COLOURS[:2], COLOURS[2:5])
    ]
    drawn = Image.open(io.BytesIO(contact_sheets(mistakes, labels=LABELS)))
    one = sheet([coloured(COLOURS[0])])
    assert drawn.size == (one.width, 2 * one.height)
    lower = drawn.crop((0, one.height, one.width, 2 * one.height))
    assert cell(drawn, 0).getpixel((CELL // 2, CELL // 2)) == COLOURS[0]
    assert cell(lower, 2).getpixel((CELL // 2, CELL // 2)) == COLOURS[4]


def test_the_same_mistakes_make_the_same_file() -> None:
    mistake = Mistake(index=0, target=0, predicted=1, confidence=0.5)
    image = coloured((1, 2, 3))
    assert contact_sheet([(mistake, image)], labels=LABELS) == contact_sheet([(mistake, image)], labels=LABELS)
