"""JPEG: the scans are counted, and what says nothing about the pixels decides nothing."""

import io
import struct

import numpy as np
import pytest
from PIL import ExifTags, Image

from benchmarks.harness.slow_images import jpeg_of_scans
from classifier.image_files.jpeg import necessary as necessary_of_jpeg
from classifier.image_files.opening import necessary
from classifier.image_files.work import TooLarge, Work
from classifier.preprocess import ImageError
from tests.support.images import encoded, picture
from tests.support.opening import plainly, seen

SEEN = picture(20, 30)
PLAIN = encoded(SEEN, "JPEG", quality=95)
PIXELS = plainly(Image.open(io.BytesIO(PLAIN)))
MOST = 50_000_000


def segment(marker: int, content: bytes) -> bytes:
    return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content


def with_segments(*segments: bytes, of: bytes = PLAIN) -> bytes:
    return of[:2] + b"".join(segments) + of[2:]


def accepted(data: bytes, most: int = MOST) -> bool:
    try:
        necessary_of_jpeg(data, Work("JPEG", most))
    except TooLarge:
        return False
    return True


class TestScans:
    @pytest.mark.parametrize(("edge", "scans"), [(4000, 1000), (4000, 200), (7000, 100), (2000, 2000), (1000, 10_000)])
    def test_many_of_many_pixels_are_too_much_work(self, edge: int, scans: int) -> None:
        data = jpeg_of_scans(edge, edge, scans)
        with pytest.raises(TooLarge, match=r"this JPEG would take more than 2 times as long .* save it as a baseline"):
            necessary(data, max_pixels=MOST)

    def test_also_of_a_picture_whose_colours_are_apart(self) -> None:
        assert not accepted(jpeg_of_scans(4000, 4000, 1000, frame=0xC0))

    def test_also_with_arithmetic_coding(self) -> None:
        assert not accepted(jpeg_of_scans(4000, 4000, 100, frame=0xCA))

    @pytest.mark.parametrize("refined", [True, False])
    def test_empty_ones_count_as_well(self, refined: bool) -> None:
        assert not accepted(jpeg_of_scans(8, 8, 100_000, filled=False, refined=refined), most=1_000_000)

    @pytest.mark.parametrize(("edge", "scans"), [(7000, 10), (4000, 20), (2000, 64), (64, 1000), (28, 10_000)])
    def test_few_of_many_pixels_and_many_of_few_are_decoded(self, edge: int, scans: int) -> None:
        assert accepted(jpeg_of_scans(edge, edge, scans))

    def test_a_small_picture_of_many_scans_has_its_pixels(self) -> None:
        assert seen(jpeg_of_scans(32, 32, 100), "L").shape == (32, 32, 1)

    @pytest.mark.parametrize(("subsampling", "height", "width"), [(0, 4900, 7350), (2, 5504, 8256)])
    def test_a_progressive_photo_of_45_million_pixels_is_accepted_and_of_36_with_all_colours(
        self, subsampling: int, height: int, width: int
    ) -> None:
        small = encoded(SEEN, "JPEG", progressive=True, quality=95, subsampling=subsampling)
        at = small.index(b"\xff\xc2") + 5
        data = small[:at] + struct.pack(">HH", height, width) + small[at + 4 :]
        photo = data[:-2] + bytes(18_000_000) + data[-2:]  # as many bytes as the last scan may have, in an upload
        assert small.count(b"\xff\xda") == 10
        assert accepted(photo)

    def test_those_of_a_preview_or_of_another_picture_behind_do_not_count(self) -> None:
        preview = jpeg_of_scans(4000, 4000, 1000)
        inside = with_segments(segment(0xE1, b"Exif\0\0" + preview[:60_000]))
        assert np.array_equal(seen(inside), PIXELS)
        assert np.array_equal(seen(PLAIN + preview), PIXELS)
        progressive = encoded(SEEN, "JPEG", progressive=True)
        assert np.array_equal(seen(progressive + preview), seen(progressive))

    def test_of_a_baseline_file_only_the_first_is_decoded(self) -> None:
        baseline = encoded(Image.new("L", (1000, 1000)), "JPEG")
        scan = segment(0xDA, b"\x01\x01\x00\x00\x3f\x00")
        assert accepted(baseline[:-2] + scan * 1000 + baseline[-2:], most=1_000_000)


UNREAD = {
    "a profile in the wrong number of parts": segment(0xE2, b"ICC_PROFILE\0\x01\x09" + bytes(50)),
    "a profile that is cut short": segment(0xE2, b"ICC_PROFILE\0"),
    "a large profile": b"".join(
        segment(0xE2, b"ICC_PROFILE\0" + bytes((i + 1, 40)) + bytes(65_000)) for i in range(40)
    ),
    "an index of several pictures that cannot be read": segment(0xE2, b"MPF\0MM\0*\xff\xff\xff\xff"),
    "Photoshop's data, cut short": segment(0xED, b"Photoshop 3.0\0008BIM\x04"),
    "Photoshop's data of a wrong length": segment(0xED, b"Photoshop 3.0\0008BIM\x03\xed\0\0\0\0\xff\xff"),
    "a header of JFIF that is cut short": segment(0xE0, b"JFIF\0"),
    "Adobe's mark, cut short": segment(0xEE, b"Adobe"),
    "EXIF that is none": segment(0xE1, b"Exif\0\0no EXIF"),
    "empty segments": b"".join(segment(0xE0 + i, b"") for i in range(16)) + segment(0xFE, b""),
    "a comment": segment(0xFE, b"\xff\xda\xff\xc0" * 1000),
    "bytes that belong to nothing": bytes(100),
    "a million fillers": b"\xff" * 1_000_000,
    "a million stuffed bytes": b"\xff\0" * 1_000_000,
}


class TestSegments:
    @pytest.mark.parametrize("what", UNREAD)
    def test_what_nobody_reads_decides_nothing(self, what: str) -> None:
        first_table = PLAIN.index(b"\xff\xdb")
        data = PLAIN[:first_table] + UNREAD[what] + PLAIN[first_table:]
        assert np.array_equal(seen(data), PIXELS)

    def test_the_orientation_is_honoured_beside_a_large_profile(self) -> None:
        exif = Image.Exif()
        exif[ExifTags.Base.Orientation] = 6
        data = encoded(SEEN, "JPEG", quality=95, exif=exif, icc_profile=bytes(3_000_000))
        assert np.array_equal(seen(data), np.rot90(PIXELS, -1))

    def test_that_of_xmp_too(self) -> None:
        xmp = segment(0xE1, b'http://ns.adobe.com/xap/1.0/\0<rdf tiff:Orientation="3"/>')
        assert np.array_equal(seen(with_segments(xmp)), PIXELS[::-1, ::-1])

    def test_inks_stay_as_adobe_stores_them(self) -> None:
        inks = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
        assert seen(encoded(inks, "JPEG", quality=100))[8, 8].tolist() == pytest.approx([255, 0, 0], abs=3)

    def test_tens_of_thousands_of_them_are_too_much_work(self) -> None:
        for empty in (segment(0xFE, b""), segment(0xE1, b"Exif\0\0"), b"\xff\x01"):
            assert not accepted(with_segments(empty * 20_000), most=5_000_000)

    def test_so_are_thousands_of_tables(self) -> None:
        table = segment(0xDB, bytes([0] + [1] * 64))
        assert accepted(with_segments(table * 100))
        assert not accepted(with_segments(table * 20_000), most=5_000_000)

    def test_a_file_without_pixels_is_damaged(self) -> None:
        for data in (PLAIN[:100], PLAIN[:2] + b"\xff\xd9", PLAIN[:20] + bytes(5_000_000), PLAIN[:3]):
            with pytest.raises(ImageError, match="ends before its pixels begin"):
                necessary(data, max_pixels=MOST)

    def test_a_file_with_two_sizes_is_damaged(self) -> None:
        at = PLAIN.index(b"\xff\xc0")
        with pytest.raises(ImageError, match="two sizes"):
            necessary(PLAIN[:at] + PLAIN[at : at + 19] + PLAIN[at:], max_pixels=MOST)

    @pytest.mark.parametrize("components", [0, 3, 255])
    def test_a_frame_header_of_a_wrong_length_is_damaged(self, components: int) -> None:
        frame = segment(0xC0, struct.pack(">BHHB", 8, 8, 8, components) + bytes(5))
        with pytest.raises(ImageError, match="frame header"):
            necessary(PLAIN[:2] + frame + PLAIN[2:], max_pixels=MOST)

    def test_a_file_that_needs_nothing_left_out_is_not_copied(self) -> None:
        assert necessary(PLAIN, max_pixels=None) is PLAIN
