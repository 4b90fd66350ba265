"""The first bytes of a file tell its format: accepted, known and not accepted, or none at all."""

import pytest
from PIL import Image

from app.decoding.formats import ImageProblem, accepted_format
from tests.support.images import encoded


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"])
def test_an_accepted_format_has_the_name_that_pillow_knows_it_by(kind: str) -> None:
    assert accepted_format(encoded(Image.new("L", (8, 8)), kind)) == kind


@pytest.mark.parametrize(
    ("start", "name"),
    [
        (b"%PDF-1.7", "PDF"),
        (b"8BPS\x00\x01", "Photoshop"),
        (b"\x00\x00\x01\x00\x01\x00", "ICO"),
        (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
        (b"\xff\x0a\x00", "JPEG XL"),
        (b"<svg xmlns=''>", "SVG"),
        (b"\n  <?xml version='1.0'?><svg>", "XML"),
        (b"II+\x00\x08\x00", "BigTIFF"),
        (b"MM\x00+\x00\x08", "BigTIFF"),
        (b"\x00\x00\x00\x18ftypheic", "HEIF"),
        (b"\x00\x00\x00\x1cftypavif", "AVIF"),
        (b"\x00\x00\x00\x1cftypmif1", "AVIF or HEIF"),
        (b"\x00\x00\x00\x18ftypcrx ", "raw image of a camera"),
        (b"\x00\x00\x00\x18ftypM4A ", "sound"),
        (b"RIFF\x00\x01\x00\x00AVI LIST", "video (AVI)"),
        (b"\x1aE\xdf\xa3\x9fB", "video (MKV or WebM)"),
        (b"FLV\x01\x05", "video (FLV)"),
        (b"0&\xb2u\x8ef\xcf\x11\xa6\xd9", "video (WMV)"),
        (b"\x00\x00\x01\xba\x44", "video (MPEG)"),
    ],
)
def test_a_known_format_that_is_not_accepted_is_named(start: bytes, name: str) -> None:
    with pytest.raises(ImageProblem) as raised:
        accepted_format(start + bytes(100))
    assert raised.value.code == "unsupported_format"
    assert name in str(raised.value)
    assert "JPEG, PNG, WebP, GIF, BMP or TIFF" in str(raised.value)


@pytest.mark.parametrize(
    "brand",
    [
        "isom",
        "iso2",
        "iso6",
        "mp41",
        "mp42",
        "avc1",
        "qt  ",
        "M4V ",
        "3gp4",
        "3gp5",
        "3g2a",
        "MSNV",
        "dash",
        "f4v ",
        "XAVC",
    ],
)
def test_a_video_of_a_phone_or_a_camera_is_called_one(brand: str) -> None:
    with pytest.raises(ImageProblem, match=r"^video \(MP4 or MOV\) is not accepted; send JPEG") as raised:
        accepted_format(b"\x00\x00\x00\x20ftyp" + brand.encode() + bytes(100))
    assert raised.value.code == "unsupported_format"


@pytest.mark.parametrize("box", [b"moov", b"mdat", b"wide", b"free", b"skip"])
def test_so_is_an_old_one_without_a_brand(box: bytes) -> None:
    with pytest.raises(ImageProblem, match=r"^video"):
        accepted_format(b"\x00\x00\x00\x08" + box + bytes(100))


def test_an_empty_file_is_called_empty() -> None:
    with pytest.raises(ImageProblem, match=r"^the file is empty; send JPEG") as raised:
        accepted_format(b"")
    assert raised.value.code == "bad_image"


@pytest.mark.parametrize(
    "data",
    [
        b" \n",
        b"\x00",
        b"hello",
        b"Get free images",
        b"A   moov",
        b"<!doctype html>",
        b"RIFF\x00\x00\x00\x00WAVE",
        bytes(range(256)) * 200,
    ],
)
def test_bytes_that_are_no_image_are_a_bad_one(data: bytes) -> None:
    with pytest.raises(ImageProblem) as raised:
        accepted_format(data)
    assert raised.value.code == "bad_image"
