"""The first bytes of a file tell its format: accepted, known and not accepted, or none at all."""

from base64 import b64encode, encodebytes, urlsafe_b64encode
from urllib.parse import quote

import pytest
from PIL import Image

from app.decoding.formats import ImageProblem, accepted_format, described, is_image
from tests.support.images import encoded, picture


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
        (b"\x00\x00\x00\x18ftypavci", "HEIF"),
        (b"\x00\x00\x00\x18ftypj2ki", "HEIF"),
        (b"\x00\x00\x00\x1cftypavif", "AVIF"),
        (b"\x00\x00\x00\x1cftypavio", "AVIF"),
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


SOUND = {kind: encoded(picture(), kind) for kind in ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF")}


@pytest.mark.parametrize("kind", SOUND)
def test_a_file_of_each_accepted_format_is_an_image(kind: str) -> None:
    assert is_image(SOUND[kind])


@pytest.mark.parametrize("data", [b"", b"BM", b"BMW", b"II*", b"text", b"%PDF\0", b"RIFF\0\0\0\0WAVE"])
def test_neither_text_nor_another_format_is_one(data: bytes) -> None:
    assert not is_image(data)


class TestDescribed:
    """What was sent instead of an image is called what it is."""

    @pytest.mark.parametrize("kind", SOUND)
    def test_text_that_stands_for_an_image(self, kind: str) -> None:
        data = SOUND[kind]
        base64 = b64encode(data)
        for text, said in [
            (base64, "base64"),
            (urlsafe_b64encode(data), "base64"),
            (encodebytes(data), "base64"),
            (b' "' + base64 + b'"\n', "base64"),
            (repr(base64).encode(), "base64"),
            (b"image=" + quote(base64, safe="").encode(), "base64"),
            (b"data:image/x;base64," + base64, "data: URL"),
            (b"image/x;base64," + base64, "data: URL"),
            (b"file=" + quote(b"data:image/x;base64," + base64, safe="").encode(), "data: URL"),
            (data.hex().encode(), "hexadecimal"),
            (b"0x" + data.hex(" ").upper().encode(), "hexadecimal"),
            (quote(data).encode(), "percent-encoding"),
            (repr(data).encode(), "notation of bytes in Python"),
            (b'{"image": "%s"}' % base64, "JSON"),
            (b'{"type":"Buffer","data":[137,80]}', "JSON"),
            (str(list(data)).encode(), "JSON"),
        ]:
            assert said in (described(text) or "nothing"), text[:60]

    @pytest.mark.parametrize("kind", ["PNG", "JPEG"])
    def test_an_image_that_was_handled_as_text(self, kind: str) -> None:
        data = SOUND[kind]
        for damaged, said in [
            (data.replace(b"\r", b"").replace(b"\n", b"").replace(b"\0", b""), "line ends"),
            (data.decode("utf-8", "replace").encode(), "read as text"),
            (data.decode("latin-1").encode(), "read as text"),
            (data.decode("ascii", "replace").encode("ascii", "replace"), "read as text"),
            (b"\r\n" + data, "before its first byte"),
        ]:
            assert said in (described(damaged) or "nothing"), damaged[:30]

    @pytest.mark.parametrize("data", [SOUND["PNG"].replace(b"\r\n", b"\n"), SOUND["PNG"].replace(b"\n", b"\r\n")])
    def test_a_png_whose_line_ends_were_translated(self, data: bytes) -> None:
        assert "line ends" in (described(data) or "nothing")

    @pytest.mark.parametrize(
        ("data", "said"),
        [
            (b"seven.png", "name of a file and"),
            (b"@seven.jpg\n", "name of a file and"),
            (b"/home/me/photo", "name of a file and"),
            (b"C:\\Users\\me\\a b.JPG", "name of a file and"),
            ("フォト.png".encode(), "name of a file and"),
            (b"image=%2Ftmp%2Fseven.png", "name of a file and"),
            (b"https://example.org/seven.png", "address"),
            (b"file:///seven.png", "address"),
            (b"<!DOCTYPE html><html>", "HTML"),
            (b"\xef\xbb\xbf<html>", "HTML"),
            (b"--b\r\nContent-Disposition: form-data", "form"),
            (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
            (b"\x1f\x8b\x08\x00", "gzip"),
            (b"PK\x03\x04", "ZIP"),
            (b"\x93NUMPY\x01", "NumPy"),
        ],
    )
    def test_other_things(self, data: bytes, said: str) -> None:
        assert said in (described(data) or "nothing")

    @pytest.mark.parametrize(
        "data",
        [
            *(b"", b"hello", b"BMW is a make of cars", b"a=1&b=2", b"%" * 5000, b"=" * 5000, b"\xff" * 5000, b"'"),
            *(b"a\nb.png", b"x" * 1020 + b".png", b"QUJDREVGR0hJSktMTU5P", b"00112233445566778899"),
        ],
    )
    def test_what_is_not_known_is_not_guessed(self, data: bytes) -> None:
        assert described(data) is None
