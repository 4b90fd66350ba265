"""WebP: the first frame is counted; frames and profiles beside it are not."""

import struct

import numpy as np
import pytest
from PIL import Image

from classifier.image_files.webp import necessary
from classifier.image_files.work import TooLarge, Work
from tests.support.images import encoded, picture
from tests.support.opening import seen

MOST = 50_000_000


def chunk(kind: bytes, content: bytes) -> bytes:
    return kind + struct.pack("<I", len(content)) + content + bytes(len(content) % 2)


def webp(*chunks: bytes) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def lossy(width: int, height: int, length: int = 0) -> bytes:
    return chunk(b"VP8 ", b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", width, height) + bytes(length))


def lossless(width: int, height: int, length: int = 0, alpha: int = 0) -> bytes:
    bits = (width - 1) | (height - 1) << 14 | alpha << 28
    return chunk(b"VP8L", b"\x2f" + struct.pack("<I", bits) + bytes(length))


def canvas(width: int, height: int, flags: int = 0) -> bytes:
    return chunk(
        b"VP8X", bytes((flags, 0, 0, 0)) + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    )


@pytest.mark.parametrize("frame", [lossy, lossless])
def test_all_pixels_are_accepted_with_as_many_bytes_as_such_a_picture_has(frame: object) -> None:
    assert callable(frame)
    necessary(webp(frame(8000, 6250, 5_000_000)), Work("WebP", MOST))
    necessary(webp(canvas(8000, 6250), chunk(b"ICCP", bytes(9_000_000)), frame(8000, 6250)), Work("WebP", MOST))


def test_many_bytes_of_a_lossy_frame_and_alpha_of_a_lossless_one_count() -> None:
    with pytest.raises(TooLarge, match="this WebP"):
        necessary(webp(lossy(8000, 6250, 19_000_000)), Work("WebP", MOST))
    with pytest.raises(TooLarge, match="this WebP"):
        necessary(webp(lossless(8000, 6250, alpha=1)), Work("WebP", MOST))


def test_many_chunks_are_too_much_work() -> None:
    with pytest.raises(TooLarge, match="this WebP"):
        necessary(webp(canvas(8, 8), chunk(b"none", b"") * 40_000, lossless(8, 8)), Work("WebP", 5_000_000))


def test_of_an_animation_the_first_frame_counts() -> None:
    frames = [picture(40, 60).rotate(angle) for angle in range(0, 360, 6)]
    data = encoded(frames[0], "WEBP", save_all=True, append_images=frames[1:], lossless=True)
    assert np.array_equal(seen(data, max_pixels=2400), np.asarray(frames[0]))
    with pytest.raises(TooLarge, match="16000x16000"):
        necessary(webp(canvas(16_000, 16_000, 2), chunk(b"ANMF", bytes(16) + lossless(8, 8))), Work("WebP", MOST))


def test_a_profile_that_is_none_decides_nothing() -> None:
    image = picture(20, 30)
    data = encoded(image, "WEBP", lossless=True, icc_profile=b"no profile" * 200_000, xmp=b"<" * 1_500_000)
    assert np.array_equal(seen(data), np.asarray(image))


@pytest.mark.parametrize("length", [12, 15, 20, 24, 29])
def test_a_file_that_is_cut_short_is_left_to_pillow(length: int) -> None:
    for data in (webp(canvas(8, 8), lossless(8, 8)), webp(lossless(8, 8)), webp(lossy(8, 8))):
        assert necessary(data[:length], Work("WebP", MOST)) == data[:length]


def test_a_picture_of_pillows_has_its_size() -> None:
    data = encoded(Image.new("RGB", (300, 200)), "WEBP")
    with pytest.raises(TooLarge, match="300x200"):
        necessary(data, Work("WebP", 59_999))
