"""Files of every format are opened after their work was counted; others are left to Pillow."""

import io

import numpy as np
import pytest
from PIL import Image, TiffImagePlugin

from benchmarks.harness.slow_images import bmp_of_runs, jpeg_of_scans, png
from classifier.image_files.opening import necessary, open_file
from classifier.image_files.work import TooLarge
from tests.support.images import encoded, picture
from tests.support.opening import FORMATS, plainly, seen

EXIF = Image.Exif()
EXIF[0x0112] = 8
EXIF[0x0131] = "an editor" * 100


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_has_the_pixels_that_it_has_without_what_nobody_reads(kind: str) -> None:
    image = picture(20, 30)
    options = {} if kind in ("GIF", "BMP") else {"icc_profile": bytes(2_000_000), "exif": EXIF}
    data = encoded(image, kind, **options | ({"lossless": True} if kind == "WEBP" else {}))
    expected = plainly(Image.open(io.BytesIO(encoded(image, kind, **{"lossless": True} if kind == "WEBP" else {}))))
    found = open_file(data, formats=(kind,), max_pixels=600)
    assert found.size in ((30, 20), (20, 30))
    if kind == "TIFF":
        found.load()
        assert np.array_equal(np.asarray(found), np.rot90(expected))
    else:
        assert np.array_equal(seen(data), np.rot90(expected) if options else expected)


@pytest.mark.parametrize(
    "data", [jpeg_of_scans(1500, 1500, 300), png(4000, 500, depth=16, colour=6), bmp_of_runs(1500, 1000, b"\1\1")]
)
def test_too_much_work_for_the_most_pixels_is_refused_and_fits_where_more_are_allowed(data: bytes) -> None:
    with pytest.raises(TooLarge, match="times as long"):
        open_file(data, formats=FORMATS, max_pixels=2_500_000)
    assert necessary(data, max_pixels=50_000_000)


def test_without_a_limit_pillows_own_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(picture(20, 30), "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 500)
    with pytest.raises(TooLarge, match="30x20"):
        open_file(data, formats=None, max_pixels=None)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert open_file(data, formats=None, max_pixels=None).size == (30, 20)


def test_another_format_is_left_to_pillow() -> None:
    data = encoded(picture(20, 30), "PPM")
    assert necessary(data, max_pixels=1) is data
    with pytest.raises(TooLarge):
        open_file(data, formats=("PPM",), max_pixels=1)


@pytest.mark.parametrize("options", [{}, {"big_tiff": True}], ids=["TIFF", "BigTIFF"])
@pytest.mark.parametrize("order", [b"II", b"MM"])
@pytest.mark.slow
def test_work_is_counted_for_every_kind_of_tiff_that_pillow_reads(order: bytes, options: dict[str, bool]) -> None:
    tags = TiffImagePlugin.ImageFileDirectory_v2(prefix=order)
    data = encoded(picture(2000, 1500), "TIFF", tiffinfo=tags, **options)
    swapped = data[:2] + data[3:1:-1] + data[4:]
    for each in (data,) if options else (data, swapped):
        assert necessary(each, max_pixels=3_000_000)
        with pytest.raises(TooLarge, match="at most 2 million"):
            necessary(each, max_pixels=2_000_000)
