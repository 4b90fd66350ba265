"""Labels of any script become text that the font can draw, and that fits."""

import sys

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageDraw

from training.reports.label_text import Font, caption, font, shortened


@pytest.fixture(params=["with Matplotlib's font", "with Pillow's alone"])
def letters(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Font:
    if request.param == "with Pillow's alone":
        monkeypatch.setitem(sys.modules, "matplotlib", None)  # as where it is not installed
    return font(20)


def test_matplotlibs_font_is_taken_where_it_is_and_pillows_elsewhere(letters: Font) -> None:
    assert letters.getname()[0] == ("Aileron" if sys.modules.get("matplotlib") is None else "DejaVu Sans")


@pytest.mark.parametrize("label", ["7", "Labrador retriever", "a -> b, 95.0% (c)"])
def test_a_plain_label_stays_as_it_is(letters: Font, label: str) -> None:
    assert caption(label, 3, font=letters, width=1000) == label


def test_letters_of_other_languages_are_kept_or_lose_their_accents(letters: Font) -> None:
    drawn = caption("Bär, čáp, école", 3, font=letters, width=1000)
    assert drawn in ("Bär, čáp, école", "Bar, cap, ecole")


@pytest.mark.parametrize("label", ["猫", "\U0010fffd\U0010fffe", "\x00\x1b", "  \u2028", "\ud800"])
def test_a_label_of_which_nothing_can_be_drawn_is_named_by_its_number(letters: Font, label: str) -> None:
    assert caption(label, 12, font=letters, width=1000) == "class 12"


def test_a_label_that_loses_letters_is_told_from_others_by_its_number(letters: Font) -> None:
    assert caption("猫 cat", 3, font=letters, width=1000) == "3: cat"
    assert caption("犬 cat", 4, font=letters, width=1000) == "4: cat"


def test_what_stands_around_a_label_that_runs_from_right_to_left_stays_where_it_is() -> None:
    letters = font(20)
    label = caption("قطة", 0, font=letters, width=1000)
    assert label.strip("\u200e") == "قطة"
    line, after = inked(f"{label} -> b, 90.0%", letters), inked("-> b, 90.0%", letters)
    apart = np.abs(line[:, -after.shape[1] :] - after).sum() / after.sum()
    assert apart < 0.4  # letters stand at parts of pixels; 1 or more would be other ones


def inked(text: str, letters: Font) -> npt.NDArray[np.int64]:
    """[40, width]: cut to its ink on the left and right."""
    canvas = Image.new("L", (500, 40))
    ImageDraw.Draw(canvas).text((0, 0), text, fill=255, font=letters)
    ink = np.asarray(canvas, np.int64)
    columns = np.flatnonzero(ink.any(0))
    return ink[:, columns[0] : columns[-1] + 1]


def test_a_label_is_one_line(letters: Font) -> None:
    assert caption(" two\n\twords ", 0, font=letters, width=1000) == "two words"


def test_a_long_label_ends_in_an_ellipsis_and_fits(letters: Font) -> None:
    drawn = caption("W" * 256, 0, font=letters, width=100)
    assert drawn.startswith("WW")
    assert drawn.endswith("…")
    assert letters.getlength(drawn) <= 100 < letters.getlength(f"W{drawn}")


def test_where_nothing_fits_there_is_an_ellipsis(letters: Font) -> None:
    assert shortened("Wombat", font=letters, width=1) == "…"
