"""Decoding less of a JPEG gives the same pixels, or a smaller image; and a damaged file is still found."""

import struct
from io import BytesIO
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile, JpegImagePlugin

from classifier.visible import to_mode
from tests.support.photo_files import picture
from training.data import jpeg

KINDS: dict[str, dict[str, Any]] = {
    "4:4:4": {"subsampling": 0},
    "4:2:2": {"subsampling": 1},
    "4:2:0": {"subsampling": 2},
    "progressive": {"progressive": True},
    "with restarts": {"restart_marker_rows": 1},
    "with a comment and EXIF": {"comment": b"x" * 300, "exif": Image.Exif()},
}


def encoded(mode: str = "RGB", size: tuple[int, int] = (150, 131), **options: Any) -> bytes:
    file = BytesIO()
    picture(7, size, mode).save(file, "JPEG", quality=97, **options)
    return file.getvalue()


def opened(data: bytes) -> JpegImagePlugin.JpegImageFile:
    image = Image.open(BytesIO(data))
    assert isinstance(image, JpegImagePlugin.JpegImageFile)
    return image


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_rows_that_are_decoded_are_those_of_the_whole(kind: str, mode: str) -> None:
    data = encoded(mode, **KINDS[kind])
    everything = np.asarray(opened(data))
    fewer = 0
    for bottom in range(1, 132):
        image = jpeg.down_to(bottom, opened(data), data)
        fewer += image.height < 131
        assert np.array_equal(np.asarray(image)[:bottom], everything[:bottom])
    assert fewer > 100


def test_an_image_that_is_not_upright_is_decoded_whole() -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    data = encoded(exif=exif)
    assert jpeg.down_to(10, opened(data), data).height == 131


@pytest.mark.parametrize("turn", range(1, 9))
def test_the_upright_size_is_that_of_what_is_seen_whatever_the_type_of_the_orientation(turn: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = turn
    whole_number = struct.pack("<HHIHH", 0x0112, 3, 1, turn, 0)
    fraction = struct.pack("<HHIf", 0x0112, 11, 1, turn)
    written = encoded(exif=exif)
    big_endian = struct.pack(">HHIHH", 0x0112, 3, 1, turn, 0)
    assert whole_number in written or big_endian in written
    odd = written.replace(whole_number, fraction).replace(big_endian, struct.pack(">HHIf", 0x0112, 11, 1, turn))
    for data in (written, odd):
        assert jpeg.upright_size(opened(data)) == to_mode(opened(data), mode="RGB", background=0).size


def test_what_is_not_understood_is_decoded_whole() -> None:
    data = encoded()
    whole = opened(data)
    for other in (b"", data[:2], b"\xff\xd8\xff\xda" + data[4:], b"\xff\xd8no marker", encoded(size=(150, 130))):
        assert jpeg.down_to(10, whole, other) is whole


def test_a_smaller_image_has_at_least_the_pixels_asked_for() -> None:
    data = encoded(size=(1001, 803))
    sizes = {most: jpeg.smaller(opened(data), most).size for most in (1, 2, 3, 4, 7, 8, 20)}
    assert sizes == {
        1: (1001, 803),
        2: (501, 402),
        3: (501, 402),
        4: (251, 201),
        7: (251, 201),
        8: (126, 101),
        20: (126, 101),
    }
    tiny = encoded(size=(3, 2))
    jpeg.smaller(opened(tiny), 8).load()


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_decoding_an_eighth_finds_a_cut_file_as_decoding_all_does(kind: str) -> None:
    data = encoded(size=(400, 300), **KINDS[kind])
    verdicts = {
        length: (_is_sound(data[:length], most=1), _is_sound(data[:length], most=8))
        for length in range(len(data) - 1500, len(data) + 1, 7)
    } | {
        length: (_is_sound(data[:length], most=1), _is_sound(data[:length], most=8)) for length in range(600, 9000, 501)
    }
    assert all(whole == eighth for whole, eighth in verdicts.values())
    assert not verdicts[len(data) - 1500][1]
    assert _is_sound(data, most=8)


def _is_sound(data: bytes, *, most: int) -> bool:
    assert not ImageFile.LOAD_TRUNCATED_IMAGES
    try:
        jpeg.smaller(opened(data), most).load()
    except (OSError, SyntaxError):
        return False
    return True
