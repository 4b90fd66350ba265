"""One file becomes pixels, or a problem whose code and words tell the client what to do."""

import numpy as np
import pytest
from PIL import Image

from app.decoding.formats import ImageProblem
from app.decoding.image import decode, is_small_file, open_image
from benchmarks.harness.slow_images import bmp_of_runs, gif, jpeg_of_scans, png, png_chunk, tiff
from tests.support.checkpoints import DIGITS
from tests.support.checkpoints import png as digit

MOST = 50_000_000
BOMB = b"\x78\xda" + bytes(2000)
SLOW = {
    "a progressive JPEG of a thousand scans": jpeg_of_scans(4000, 4000, 1000),
    "such a JPEG with arithmetic coding": jpeg_of_scans(4000, 4000, 100, frame=0xCA),
    "a JPEG of a million comments": b"\xff\xd8" + b"\xff\xfe\0\2" * 1_000_000 + jpeg_of_scans(8, 8, 0)[2:],
    "a JPEG within a TIFF": tiff(7000, 7000, {259: (3, [7])}, jpeg_of_scans(7000, 7000, 90)),
    "a TIFF of 200,000 strips": tiff(1, 200_000, {278: (4, [1]), 273: (4, (8).to_bytes(4, "little") * 200_000)}, b"0"),
    "a BMP of many runs": bmp_of_runs(5000, 5000, b"\1\5"),
    "a GIF behind a million blocks": gif(8, 8, before=b"!\xfe" + b"\1a" * 1_000_000 + b"\0"),
    "a deep PNG": png(100, 50, depth=16, colour=6).replace((100).to_bytes(4, "big"), (500_000).to_bytes(4, "big"), 1),
}


@pytest.mark.parametrize("what", SLOW)
def test_what_would_take_long_is_refused_before_it_is_decoded(what: str) -> None:
    with pytest.raises(
        ImageProblem, match="times as long to decode as a baseline JPEG of 50 million pixels; "
    ) as raised:
        open_image(SLOW[what], max_pixels=MOST)
    assert raised.value.code == "too_many_pixels"


def test_a_header_that_lies_about_a_size_is_refused_with_the_size() -> None:
    with pytest.raises(ImageProblem, match="the image has 60000x50 pixels; at most 1 million are accepted") as raised:
        open_image(png(100, 50).replace((100).to_bytes(4, "big"), (60_000).to_bytes(4, "big"), 1), max_pixels=1_000_000)
    assert raised.value.code == "too_many_pixels"


def test_damage_that_is_found_before_pillow_looks_is_a_bad_image() -> None:
    for data in (b"\xff\xd8\xff\xe0", b"II*\0\x08\0\0\0", b"MM\0*\xff\xff\xff\xff" + bytes(100)):
        with pytest.raises(ImageProblem, match="the image is damaged") as raised:
            open_image(data, max_pixels=MOST)
        assert raised.value.code == "bad_image"


def test_a_profile_leaves_a_small_file_small_but_a_text_that_may_be_inflated_does_not() -> None:
    plain = digit()
    profile = plain[:33] + png_chunk(b"iCCP", b"scanner\0\0" + BOMB) + plain[33:]
    text = plain[:33] + png_chunk(b"zTXt", b"Raw profile type exif\0\0" + BOMB) + plain[33:]
    assert is_small_file(profile)
    assert not is_small_file(text)
    for data in (profile, text):
        assert np.array_equal(decode(data, DIGITS), decode(plain, DIGITS))


def test_the_first_read_of_a_plain_small_png_is_not_slowed_by_a_second() -> None:
    assert type(open_image(digit(), max_pixels=MOST)) is Image.Image  # no file of Pillow's: it was decoded at once
