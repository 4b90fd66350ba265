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
    ],
)
def test_a_known_format_that_is_not_accepted_is_named(start: bytes, name: str) -> None:
    with pytest.raises(ImageProblem) as raised:
        accepted_format(start + bytes(100))
    assert raised.value.code == "unsupported_format"
    assert name in str(raised.value)
    assert "JPEG, PNG, WebP, GIF, BMP or TIFF" in str(raised.value)


@pytest.mark.parametrize(
    "data", [b"", b"\x00", b"hello", b"<!doctype html>", b"RIFF\x00\x00\x00\x00WAVE", bytes(range(256)) * 200]
)
def test_bytes_that_are_no_image_are_a_bad_one(data: bytes) -> None:
    with pytest.raises(ImageProblem) as raised:
        accepted_format(data)
    assert raised.value.code == "bad_image"
