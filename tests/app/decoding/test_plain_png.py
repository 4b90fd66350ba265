"""A plain PNG is what Pillow makes of it; everything else is left to Pillow."""

import io
import struct
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import ExifTags, Image, PngImagePlugin

from app.decoding.plain_png import plain_png
from tests.support.checkpoints import png
from tests.support.images import encoded, png_chunk

MANY = 10_000


def by_pillow(data: bytes) -> Image.Image | None:
    try:
        image = Image.open(io.BytesIO(data), formats=("PNG",))
        image.load()
    except Exception:  # noqa: BLE001  its parsers raise nearly anything
        return None
    return image


def of_noise(size: tuple[int, int], mode: str) -> bytes:
    shape = (size[1], size[0]) if mode == "L" else (size[1], size[0], 3)
    pixels = np.random.default_rng(size[0]).integers(0, 256, shape, dtype=np.uint8)
    return encoded(Image.fromarray(pixels), "PNG")


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("size", [(28, 28), (1, 1), (3, 1), (1, 7), (33, 20), (90, 90)])
def test_grey_and_colour_have_pillows_pixels(size: tuple[int, int], mode: str) -> None:
    for data in (of_noise(size, mode), png(0, size, mode)):
        found, wanted = plain_png(data, max_pixels=MANY), by_pillow(data)
        assert found is not None
        assert wanted is not None
        assert (found.mode, found.size, found.tobytes()) == (wanted.mode, wanted.size, wanted.tobytes())


@pytest.mark.parametrize("filtering", range(5))
def test_every_filter_of_a_row_is_undone(filtering: int) -> None:
    rows = np.random.default_rng(0).integers(0, 256, (9, 12), dtype=np.uint8)
    data = zlib.compress(b"".join(bytes([filtering]) + row.tobytes() for row in rows))
    header = struct.pack(">IIBBBBB", 12, 9, 8, 0, 0, 0, 0)
    file = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", data) + png_chunk(b"IEND", b"")
    found, wanted = plain_png(file, max_pixels=MANY), by_pillow(file)
    assert found is not None
    assert wanted is not None
    assert found.tobytes() == wanted.tobytes()


def test_what_is_not_plain_is_left_to_pillow() -> None:
    image = Image.open(io.BytesIO(png()))
    text = PngImagePlugin.PngInfo()
    text.add_text("who", "me")
    upside_down = Image.Exif()
    upside_down[ExifTags.Base.Orientation] = 3
    others = {
        "palette": encoded(image.convert("P"), "PNG"),
        "transparency": encoded(image.convert("LA"), "PNG"),
        "one grey level that is transparent": encoded(image, "PNG", transparency=3),
        "text": encoded(image, "PNG", pnginfo=text),
        "16 bits": encoded(Image.new("I;16", (28, 28)), "PNG"),
        "1 bit": encoded(image.convert("1"), "PNG"),
        "orientation": encoded(image, "PNG", exif=upside_down),
        "another format": encoded(image, "BMP"),
        "nothing": b"",
    }
    assert {name for name, data in others.items() if plain_png(data, max_pixels=MANY) is not None} == set()


def test_more_pixels_than_wanted_are_not_decoded() -> None:
    assert plain_png(png(size=(10, 10)), max_pixels=100) is not None
    assert plain_png(png(size=(10, 10)), max_pixels=99) is None


def damaged(data: bytes) -> Iterator[bytes]:
    """Each byte changed in several ways, each length that is too short, and some that are too long."""
    for place in range(len(data)):
        for change in (1, 0x80, 0xFF):
            yield data[:place] + bytes([data[place] ^ change]) + data[place + 1 :]
        yield data[:place]
        yield data[:place] + data[place + 1 :]
        yield data[:place] + b"\x00" + data[place:]
    yield data + b"\x00"


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_of_a_damaged_file_it_says_nothing_that_pillow_does_not(mode: str) -> None:
    believed = 0
    for data in damaged(of_noise((9, 7), mode)):
        found = plain_png(data, max_pixels=MANY)
        if found is not None:
            wanted = by_pillow(data)
            assert wanted is not None
            assert (found.mode, found.size, found.tobytes()) == (wanted.mode, wanted.size, wanted.tobytes())
            believed += 1
    assert believed  # a changed check of the data, which Pillow does not look at either
