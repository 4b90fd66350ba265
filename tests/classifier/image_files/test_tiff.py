"""TIFF: pieces, tags and samples are counted, and what says nothing about the pixels decides nothing."""

import io
import itertools
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, TiffImagePlugin

from benchmarks.harness.slow_images import jpeg_of_scans, tiff
from classifier.image_files.opening import necessary
from classifier.image_files.tiff import necessary as necessary_of_tiff
from classifier.image_files.work import TooLarge, Work
from classifier.preprocess import ImageError
from tests.support.images import encoded, noise, picture
from tests.support.opening import plainly, seen

GREY = noise(6, 8, 1)
PIXELS = GREY.tobytes()
STRIP = {278: (4, [6]), 279: (4, [48])}
MOST = 50_000_000

Tags = dict[int, tuple[int, Any]]

UNREAD: dict[str, Tags] = {
    "a large profile": {34675: (7, bytes(2_000_000))},
    "500,000 resolutions": {282: (5, struct.pack("<II", 1, 1) * 500_000)},
    "a resolution of no length": {282: (5, bytes(8)), 283: (5, bytes(8))},
    "a resolution as bytes": {282: (1, b"\1"), 296: (7, b"\7")},
    "a description of odd bytes": {270: (7, b"\xff\0" * 1000)},
    "a software that is a number": {305: (4, [1])},
    "EXIF that is nowhere": {34665: (4, [4_000_000_000])},
    "EXIF within the pixels": {34665: (4, [8])},
    "Photoshop's data": {34377: (7, b"8BIM" + bytes(100_000))},
    "a lot of XMP": {700: (1, b"<x>" * 1_000_000)},
    "private tags": dict.fromkeys(range(50000, 50400), (7, b"abc")),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("what", UNREAD)
def test_what_nobody_reads_decides_nothing(what: str) -> None:
    assert np.array_equal(seen(tiff(8, 6, {**STRIP, **UNREAD[what]}, PIXELS), "L"), GREY)


@pytest.mark.parametrize("kind", [0, 14, 255, 65_535])
def test_a_tag_of_an_unknown_type_decides_nothing(kind: int) -> None:
    data = bytearray(tiff(8, 6, {**STRIP, 34675: (7, b"ICC")}, PIXELS))
    at = data.index(struct.pack("<HH", 34675, 7))
    struct.pack_into("<H", data, at + 2, kind)
    assert np.array_equal(seen(bytes(data), "L"), GREY)


@pytest.mark.parametrize(
    ("mode", "compression"),
    [
        *itertools.product(
            ["L", "RGB", "RGBA", "CMYK", "P", "1", "I;16"],
            ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd"],
        ),
        ("L", "jpeg"),
        ("RGB", "jpeg"),
    ],
)
def test_pixels_are_those_that_pillow_finds(mode: str, compression: str) -> None:
    image = Image.new("I;16", (30, 20), 30_000) if mode == "I;16" else picture(20, 30).convert(mode)
    exif = Image.Exif()
    exif[ExifTags.Base.Software] = "an editor" * 50
    data = encoded(image, "TIFF", compression=compression, icc_profile=bytes(5000), exif=exif)
    with Image.open(io.BytesIO(data)) as expected:
        assert np.array_equal(seen(data), plainly(expected))


def test_the_orientation_is_honoured() -> None:
    for tags in ({274: (3, [6])}, {700: (1, b'<rdf tiff:Orientation="6"/>')}):
        data = tiff(8, 6, {**STRIP, **tags, 34675: (7, bytes(2_000_000))}, PIXELS)
        assert np.array_equal(seen_turned(data), np.rot90(GREY, -1))


def seen_turned(data: bytes) -> Any:
    image = Image.open(io.BytesIO(necessary(data, max_pixels=MOST)))
    image.load()
    return np.asarray(image)[..., None]


def test_big_ones_of_other_order_are_read_as_well() -> None:
    image = picture(20, 30)
    for options in ({"big_tiff": True}, {"tiffinfo": TiffImagePlugin.ImageFileDirectory_v2(prefix=b"MM")}):
        assert np.array_equal(seen(encoded(image, "TIFF", icc_profile=bytes(100), **options)), np.asarray(image))


def test_of_many_pages_only_the_first_is_looked_at() -> None:
    image = picture(20, 30)
    data = encoded(image, "TIFF", save_all=True, append_images=[image.rotate(90)] * 50)
    assert np.array_equal(seen(data), np.asarray(image))
    assert not getattr(Image.open(io.BytesIO(necessary(data, max_pixels=None))), "is_animated", True)


def test_a_directory_that_is_cut_short_is_damage() -> None:
    data = tiff(8, 6, STRIP, PIXELS)
    for length in (6, 9, 60, 80):
        with pytest.raises(ImageError, match="damaged"):
            necessary(data[:length], max_pixels=MOST)


def accepted(data: bytes, most: int = MOST) -> bool:
    try:
        necessary_of_tiff(data, Work("TIFF", most))
    except TooLarge:
        return False
    return True


def strips(height: int, **tags: Any) -> bytes:
    one, eight = (struct.pack("<I", value) * height for value in (1, 8))
    return tiff(
        1, height, {278: (4, [1]), 279: (4, one), 273: (4, eight)} | {int(k[1:]): v for k, v in tags.items()}, b"\0"
    )


def test_hundreds_of_thousands_of_strips_are_too_much_work_and_thousands_are_not() -> None:
    assert accepted(strips(10_000))
    assert not accepted(strips(400_000))


def test_a_tile_counts_whole_however_small_the_picture_is() -> None:
    def tiled(edge: int) -> bytes:
        data = zlib.compress(bytes(100))
        return tiff(
            10, 10, {259: (3, [8]), 322: (4, [edge]), 323: (4, [edge]), 324: (4, [8]), 325: (4, [len(data)])}, data
        )

    assert accepted(tiled(4096))
    assert not accepted(tiled(32_768))


@pytest.mark.parametrize("compression", [5, 8, 34925])
def test_samples_that_are_many_and_deep_count(compression: int) -> None:
    def deep(samples: int, bits: int) -> bytes:
        return tiff(8000, 6250, {258: (3, [bits] * samples), 259: (3, [compression]), 277: (3, [samples]), **STRIP})

    assert accepted(deep(1, 8))
    assert not accepted(deep(6, 16))


class TestJpegInside:
    @staticmethod
    def holding(edge: int, jpeg: bytes, **tags: Any) -> bytes:
        inside = {259: (3, [7]), 278: (4, [edge]), 279: (4, [len(jpeg)])}
        return tiff(edge, edge, inside | {int(name[1:]): value for name, value in tags.items()}, jpeg)

    def test_its_scans_count(self) -> None:
        assert not accepted(self.holding(7000, jpeg_of_scans(7000, 7000, 90)))
        assert accepted(self.holding(7000, jpeg_of_scans(7000, 7000, 10)))

    def test_many_strips_of_one_scan_each_are_no_scans(self) -> None:
        jpeg = jpeg_of_scans(7000, 70, 0)
        places = struct.pack("<100I", *range(8, 8 + 100 * len(jpeg), len(jpeg)))
        sizes = struct.pack("<100I", *[len(jpeg)] * 100)
        assert accepted(self.holding(7000, jpeg * 100, t273=(4, places), t278=(4, [70]), t279=(4, sizes)))

    def test_strips_that_lie_on_each_other_have_all_scans_of_the_file(self) -> None:
        jpeg = jpeg_of_scans(7000, 70, 90)
        places, sizes = (struct.pack("<100I", *range(start, start + 100)) for start in (8, len(jpeg) - 100))
        assert not accepted(self.holding(7000, jpeg, t273=(4, places), t278=(4, [70]), t279=(4, sizes)))


def test_what_is_read_of_a_tag_has_few_values() -> None:
    with pytest.raises(ImageError, match="tag 258 has 100000 values"):
        necessary(tiff(8, 6, {**STRIP, 258: (3, [8] * 100_000)}, PIXELS), max_pixels=MOST)
