"""Draws the worst mistakes on one sheet: each image with its class and the predicted one. It needs only Pillow."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from classifier.preprocess import Pixels
from training.evaluation.metrics import Mistake
from training.png import png
from training.reports.label_text import Font, caption, font

_COLUMNS = 5
_SCALE = 2  # drawn larger than the 800 pixels at which it must be legible
_CELL, _GAP, _LINE, _TEXT = 144 * _SCALE, 13 * _SCALE, 17 * _SCALE, 13 * _SCALE
_INK = (32, 32, 32)
_PIXELS_SEEN = 4  # times as large: no photo needs it


def contact_sheet(mistakes: Sequence[tuple[Mistake, Pixels]], *, labels: Sequence[str]) -> bytes:
    """Returns a PNG file, about 1600 pixels wide, with five mistakes to a row in their order.

    Below each image stands "true -> predicted, confidence", on three lines if the labels are long.

    Args:
        mistakes: each with its image, uint8 [height, width, 1 or 3].
        labels: by class index.
    """
    return png(_sheet(mistakes, labels))


def contact_sheets(groups: Sequence[Sequence[tuple[Mistake, Pixels]]], *, labels: Sequence[str]) -> bytes:
    """Returns a PNG file with the sheet of each group, one below the other."""
    sheets = [_sheet(group, labels) for group in groups] or [_sheet((), labels)]
    whole = Image.new("RGB", (sheets[0].width, sum(sheet.height for sheet in sheets)))
    top = 0
    for sheet in sheets:
        whole.paste(sheet, (0, top))
        top += sheet.height
    return png(whole)


def _sheet(mistakes: Sequence[tuple[Mistake, Pixels]], labels: Sequence[str]) -> Image.Image:
    letters = font(_TEXT)
    texts = [_text(mistake, labels, letters) for mistake, _ in mistakes]
    lines = max((len(text) for text in texts), default=1)
    width, height = _CELL + _GAP, (_CELL if mistakes else 0) + lines * _LINE + _GAP
    rows = max(1, -(-len(mistakes) // _COLUMNS))
    sheet = Image.new("RGB", (_COLUMNS * width + _GAP, rows * height + _GAP), "white")
    pen = ImageDraw.Draw(sheet)
    if not mistakes:
        pen.text((_GAP, _GAP), "No mistakes.", fill=_INK, font=letters)
    for place, ((_, image), text) in enumerate(zip(mistakes, texts, strict=True)):
        left, top = _GAP + place % _COLUMNS * width, _GAP + place // _COLUMNS * height
        tile = _tile(image)
        sheet.paste(tile, (left + (_CELL - tile.width) // 2, top + (_CELL - tile.height) // 2))
        for number, line in enumerate(text):
            pen.text((left, top + _CELL + number * _LINE), line, fill=_INK, font=letters)
    return sheet


def _text(mistake: Mistake, labels: Sequence[str], letters: Font) -> list[str]:
    arrow, confidence = "-> ", f"{mistake.confidence:.1%}"
    true = caption(labels[mistake.target], mistake.target, font=letters, width=_CELL)
    room = _CELL - letters.getlength(arrow)
    predicted = caption(labels[mistake.predicted], mistake.predicted, font=letters, width=room)
    in_a_line = f"{true} {arrow}{predicted}, {confidence}"
    return [in_a_line] if letters.getlength(in_a_line) <= _CELL else [true, arrow + predicted, confidence]


def _tile(image: Pixels) -> Image.Image:
    """Returns the image as large as its cell allows. A small one grows by a whole factor, so that its pixels show."""
    height, width = image.shape[:2]
    picture = Image.fromarray(image[..., 0] if image.shape[2] == 1 else np.ascontiguousarray(image)).convert("RGB")
    scale = _CELL / max(height, width)
    if scale >= _PIXELS_SEEN:
        return picture.resize((width * int(scale), height * int(scale)), Image.Resampling.NEAREST)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    return picture.resize(size, Image.Resampling.LANCZOS)
