"""Makes of labels text that a font can draw in a given width: a label may hold any letter of any script."""

import unicodedata
from pathlib import Path

from PIL import ImageFont

Font = ImageFont.FreeTypeFont
_LEFT_TO_RIGHT = "\u200e"  # an invisible mark: what stands before and after a label stays there
_NO_CHARACTER = "\U0010ffff"  # what every font draws its box for


def font(size: float) -> Font:
    """Returns Matplotlib's own font, which knows more letters, if it is installed; else Pillow's.

    Args:
        size: of the letters, in pixels.
    """
    try:
        import matplotlib as mpl
    except ImportError:
        return _truetype(ImageFont.load_default(size))
    return ImageFont.truetype(Path(mpl.get_data_path()) / "fonts" / "ttf" / "DejaVuSans.ttf", size)


def caption(label: str, number: int, *, font: Font, width: float) -> str:
    """Returns the label on one line of at most `width` pixels.

    A letter that the font does not have loses its accent, or is left out. Then the class's number stands before the
    rest, because two labels of another script must not look the same.

    Args:
        number: the class index.
    """
    one_line = " ".join(label.split())
    drawn = "".join(_drawable(character, font) for character in one_line)
    left = " ".join(drawn.split())
    if not left:
        left = f"class {number}"
    elif sum(not character.isspace() for character in one_line) > sum(not character.isspace() for character in drawn):
        left = f"{number}: {left}"
    short = shortened(left, font=font, width=width)
    return f"{_LEFT_TO_RIGHT}{short}{_LEFT_TO_RIGHT}" if any(map(_is_right_to_left, short)) else short


def shortened(text: str, *, font: Font, width: float) -> str:
    """Returns the text, or as much of its beginning as fits into `width` pixels, with an ellipsis."""
    if font.getlength(text) <= width:
        return text
    kept = text
    while kept and font.getlength(f"{kept}…") > width:
        kept = kept[:-1]
    return f"{kept.rstrip()}…"


def _drawable(character: str, font: Font) -> str:
    """Returns the character, or the character without its accent, or nothing."""
    plain = unicodedata.normalize("NFKD", character)[0]
    return next((one for one in (character, plain) if one.isprintable() and _has(font, one)), "")


def _has(font: Font, character: str) -> bool:
    return character.isspace() or bytes(font.getmask(character)) != bytes(font.getmask(_NO_CHARACTER))


def _is_right_to_left(character: str) -> bool:
    return unicodedata.bidirectional(character) in ("R", "AL")


def _truetype(font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> Font:
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("Pillow without FreeType gave a font of fixed size, though a size was asked for")
    return font
