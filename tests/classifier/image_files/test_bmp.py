"""BMP: what is run-length encoded counts for much, for it is decoded in Python."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.harness.slow_images import bmp_of_runs
from classifier.image_files.bmp import necessary
from classifier.image_files.work import TooLarge, Work
from tests.support.images import encoded, picture
from tests.support.opening import seen

MOST = 50_000_000


def test_a_plain_one_may_have_all_pixels() -> None:
    header = encoded(Image.new("L", (8, 8)), "BMP")
    data = header[:18] + (8000).to_bytes(4, "little") + (6250).to_bytes(4, "little") + header[26:]
    assert necessary(data, Work("BMP", MOST)) is data


@pytest.mark.parametrize("row", [b"\x01\x05", b"\x01\x05" * 3000], ids=["rows that end at once", "runs of one"])
def test_many_pixels_of_runs_are_too_much_work(row: bytes) -> None:
    with pytest.raises(TooLarge, match="this BMP"):
        necessary(bmp_of_runs(5000, 5000, row), Work("BMP", MOST))


def test_a_picture_of_runs_as_large_as_a_screen_is_read() -> None:
    necessary(bmp_of_runs(2560, 1440, b"\xff\x05" * 10 + b"\x0a\x06"), Work("BMP", MOST))
    assert seen(bmp_of_runs(40, 30, b"\x28\x05")).shape == (30, 40, 3)


def test_rows_from_top_to_bottom_and_the_old_header_are_read() -> None:
    assert np.array_equal(seen(encoded(picture(20, 30), "BMP")), np.asarray(picture(20, 30)))
    old = b"BM" + bytes(8) + (26).to_bytes(4, "little") + (12).to_bytes(4, "little")
    old += b"".join(value.to_bytes(2, "little") for value in (2, 1, 1, 24)) + bytes((1, 2, 3, 4, 5, 6, 0, 0))
    assert seen(old).tolist() == [[[3, 2, 1], [6, 5, 4]]]
