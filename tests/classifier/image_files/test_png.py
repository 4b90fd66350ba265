"""PNG: what says nothing about the pixels decides nothing, whatever it holds; what does is read as before."""

import struct
import zlib

import numpy as np
import pytest
from PIL import ExifTags, Image

from benchmarks.harness.slow_images import png as slow_png
from classifier.image_files.opening import necessary
from classifier.image_files.png import necessary as necessary_of_png
from classifier.image_files.work import TooLarge, Work
from classifier.preprocess import ImageError
from tests.support.images import encoded, noise, picture, png_chunk
from tests.support.opening import plainly, seen

SEEN = picture(20, 30)
PIXELS = np.asarray(SEEN)
PLAIN = encoded(SEEN)
HEADER_ENDS = 33
MUCH = 1_200_000  # bytes; Pillow takes one MiB for too much


def with_chunk(*chunks: bytes, of: bytes = PLAIN) -> bytes:
    """`of` with chunks behind its header."""
    return of[:HEADER_ENDS] + b"".join(chunks) + of[HEADER_ENDS:]


def with_last(*chunks: bytes) -> bytes:
    """A PNG with chunks behind its pixels."""
    return PLAIN[:-12] + b"".join(chunks) + PLAIN[-12:]


def damaged(chunk: bytes) -> bytes:
    return chunk[:-4] + bytes(4)


def letters(count: int) -> bytes:
    return noise(1, count, 1, seed=3).tobytes().hex().encode()[:count]


LARGE = zlib.compress(letters(MUCH))
BOMB = zlib.compress(bytes(100_000_000))
XMP = b"XML:com.adobe.xmp"
UNREAD = {
    "a large profile": png_chunk(b"iCCP", b"scanner\0\0" + LARGE),
    "a profile that inflates to 100 MB": png_chunk(b"iCCP", b"bomb\0\0" + BOMB),
    "a profile that cannot be inflated": png_chunk(b"iCCP", b"none\0\0" + b"not deflated"),
    "a profile of an unknown method": png_chunk(b"iCCP", b"none\0\7" + LARGE),
    "a profile without a name": png_chunk(b"iCCP", b""),
    "a large compressed text": png_chunk(b"zTXt", b"Raw profile type 8bim\0\0" + LARGE),
    "a compressed text of an unknown method": png_chunk(b"zTXt", b"Comment\0\7" + LARGE),
    "large compressed XMP": png_chunk(b"iTXt", XMP + b"\0\1\0\0\0" + LARGE),
    "XMP that inflates to 100 MB": png_chunk(b"iTXt", XMP + b"\0\1\0\0\0" + BOMB),
    "large plain XMP": png_chunk(b"iTXt", XMP + b"\0\0\0\0\0" + letters(MUCH)),
    "a large international text": png_chunk(b"iTXt", b"Description\0\1\0de\0\0" + LARGE),
    "a large EXIF profile": png_chunk(b"zTXt", b"Raw profile type exif\0\0" + LARGE),
    "an EXIF profile that is not one": png_chunk(
        b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(b"\n\n\nno hex")
    ),
    "a large text": png_chunk(b"tEXt", b"Comment\0" + letters(2 * MUCH)),
    "a text whose checksum is wrong": damaged(png_chunk(b"tEXt", b"Comment\0made by a scanner")),
    "XMP whose checksum is wrong": damaged(png_chunk(b"iTXt", XMP + b"\0\0\0\0\0<x/>")),
    "EXIF whose checksum is wrong": damaged(png_chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\0\0\0\0\0")),
    "a gamma that is cut short": png_chunk(b"gAMA", b"\0"),
    "colours that are cut short": png_chunk(b"cHRM", b"\0"),
    "a resolution that is cut short": png_chunk(b"pHYs", b"\0"),
    "a resolution whose checksum is wrong": damaged(png_chunk(b"pHYs", bytes(9))),
    "a private chunk whose checksum is wrong": damaged(png_chunk(b"prIv", b"private")),
    "a text with a name that Pillow uses": png_chunk(b"tEXt", b"transparency\0yes"),
    "another of these": png_chunk(b"tEXt", b"interlace\0yes"),
    "texts of 100 MB": b"".join(
        png_chunk(b"zTXt", b"Comment %d\0\0" % i + zlib.compress(bytes(1 << 20))) for i in range(100)
    ),
    "frames of an animation that is none": png_chunk(b"acTL", b"") + png_chunk(b"fcTL", b"\0"),
}


@pytest.mark.parametrize("what", UNREAD)
def test_what_nobody_reads_decides_nothing(what: str) -> None:
    assert np.array_equal(seen(with_chunk(UNREAD[what])), PIXELS)


@pytest.mark.parametrize("what", sorted(UNREAD.keys() - {"frames of an animation that is none"}))
def test_nor_does_it_behind_the_pixels(what: str) -> None:
    assert np.array_equal(seen(with_last(UNREAD[what])), PIXELS)


def test_an_ancillary_chunk_that_is_cut_short_behind_the_pixels_decides_nothing() -> None:
    assert np.array_equal(seen(PLAIN[:-12] + png_chunk(b"tEXt", b"Comment\0cut")[:-6]), PIXELS)


@pytest.mark.parametrize("name", [b"IHDR", b"PLTE", b"tRNS"])
def test_a_wrong_checksum_of_what_makes_the_pixels_is_damage(name: bytes) -> None:
    image = SEEN.quantize(100)
    data = bytearray(encoded(image, transparency=3))
    at = data.index(name)
    data[at + 4 + int.from_bytes(data[at - 4 : at], "big")] ^= 1
    with pytest.raises((ImageError, OSError)):
        seen(bytes(data))


def test_an_unknown_critical_chunk_keeps_its_check() -> None:
    with pytest.raises(OSError, match="identify"):
        seen(with_chunk(damaged(png_chunk(b"NEWc", b"unknown"))))


def turned(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif.tobytes()


def packet(orientation: int, filler: int = 0) -> bytes:
    return b"<x>" + letters(filler) + b'<rdf tiff:Orientation="%d"/>' % orientation + letters(filler) + b"</x>"


def raw_profile(orientation: int) -> bytes:
    exif = turned(orientation)
    return b"\nexif\n%8d\n" % len(exif) + exif.hex().encode() + b"\n"


TURNED = {
    "eXIf": png_chunk(b"eXIf", turned(6)[6:]),
    "XMP": png_chunk(b"iTXt", XMP + b"\0\0\0\0\0" + packet(6)),
    "compressed XMP": png_chunk(b"iTXt", XMP + b"\0\1\0\0\0" + zlib.compress(packet(6))),
    "large compressed XMP": png_chunk(b"iTXt", XMP + b"\0\1\0\0\0" + zlib.compress(packet(6, MUCH))),
    "a profile as text": png_chunk(b"tEXt", b"Raw profile type exif\0" + raw_profile(6)),
    "a compressed profile": png_chunk(b"zTXt", b"Raw profile type exif\0\0" + zlib.compress(raw_profile(6))),
}


@pytest.mark.parametrize("place", [with_chunk, with_last])
@pytest.mark.parametrize("kind", TURNED)
def test_the_orientation_is_honoured_wherever_it_stands(kind: str, place: object) -> None:
    assert callable(place)
    upright = np.asarray(SEEN.transpose(Image.Transpose.ROTATE_270))
    assert np.array_equal(seen(place(png_chunk(b"iCCP", b"scanner\0\0" + LARGE), TURNED[kind])), upright)


def test_a_file_that_holds_nothing_else_is_not_copied() -> None:
    assert necessary(PLAIN, max_pixels=None) is PLAIN


def test_nothing_else_is_kept() -> None:
    assert (
        necessary(with_chunk(*UNREAD.values())[:-12] + PLAIN[-12:] + b"behind the end", max_pixels=None)[-12:]
        == PLAIN[-12:]
    )
    assert necessary(with_chunk(UNREAD["a large profile"]), max_pixels=None) == PLAIN


def test_pixels_go_on_only_where_they_stopped() -> None:
    data = slow_png(40, 40, piece=50)
    at = data.index(b"IDAT", 60) - 4
    assert np.array_equal(seen(data), plainly(Image.fromarray(seen(slow_png(40, 40)))))
    with pytest.raises((ImageError, OSError)):  # as Pillow has it: they end at the first other chunk
        seen(data[:at] + png_chunk(b"tEXt", b"Comment\0between") + data[at:])


def test_the_first_frame_of_an_animation_is_the_image() -> None:
    others = [SEEN.rotate(90), SEEN.rotate(180)]
    data = encoded(SEEN, save_all=True, append_images=others)
    assert b"fdAT" in data
    assert np.array_equal(seen(data), PIXELS)
    apart = encoded(SEEN, save_all=True, append_images=others, default_image=True)
    assert np.array_equal(seen(apart), PIXELS)


def test_tens_of_thousands_of_chunks_are_too_much_work_and_a_few_thousand_are_not() -> None:
    few, many = png_chunk(b"tEXt", b"") * 2_000, png_chunk(b"tEXt", b"") * 20_000
    assert np.array_equal(seen(with_chunk(few)), PIXELS)
    for data in (with_chunk(many), with_last(many), with_chunk(png_chunk(b"IDAT", b"") * 20_000)):
        with pytest.raises(TooLarge, match="make it smaller"):
            necessary(data, max_pixels=5_000_000)


def claims(width: int, height: int, depth: int, colour: int, *, interlaced: bool = False) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, interlaced)
    return b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", header) + png_chunk(b"IDAT", b"") + png_chunk(b"IEND", b"")


@pytest.mark.parametrize(
    ("depth", "colour", "interlaced", "millions"),
    [(8, 0, False, 50), (8, 0, True, 50), (8, 3, False, 50), (8, 2, False, 40), (16, 2, False, 20), (16, 6, True, 12)],
)
def test_the_deeper_the_pixels_the_fewer_there_may_be(depth: int, colour: int, interlaced: bool, millions: int) -> None:
    necessary_of_png(claims(1000, 1000 * millions, depth, colour, interlaced=interlaced), Work("PNG", 50_000_000))


@pytest.mark.parametrize(("depth", "colour"), [(16, 6), (16, 2), (8, 6)])
def test_as_many_deep_pixels_as_of_a_jpeg_are_too_much_work(depth: int, colour: int) -> None:
    with pytest.raises(TooLarge, match="this PNG would take more than 2 times as long"):
        necessary_of_png(claims(1000, 50_000, depth, colour), Work("PNG", 50_000_000))


def test_of_two_headers_the_larger_counts() -> None:
    second = claims(5000, 10_001, 8, 0)[8:33]
    with pytest.raises(TooLarge, match="5000x10001"):
        necessary(with_chunk(second), max_pixels=50_000_000)
