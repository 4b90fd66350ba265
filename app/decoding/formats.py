"""Which image formats are accepted, how the first bytes of a file tell which one it has, and what else it may be."""

import re
from base64 import b64decode
from urllib.parse import unquote_to_bytes

_ACCEPTED = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"BM", "BMP"),
    (b"II*\x00", "TIFF"),
    (b"MM\x00*", "TIFF"),
)
_NOT_ACCEPTED = (
    (b"%PDF", "PDF"),
    (b"8BPS", "Photoshop"),
    (b"\x00\x00\x01\x00", "ICO"),
    (b"\x00\x00\x00\x0cjP", "JPEG 2000"),
    (b"\x00\x00\x00\x0cJXL", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"<svg", "SVG"),
    (b"<?xml", "XML"),
    (b"II+\x00", "BigTIFF"),
    (b"MM\x00+", "BigTIFF"),
    (b"\x1aE\xdf\xa3", "video (MKV or WebM)"),
    (b"FLV\x01", "video (FLV)"),
    (b"0&\xb2u\x8ef\xcf\x11", "video (WMV)"),
    (b"\x00\x00\x01\xba", "video (MPEG)"),
    (b"\x00\x00\x01\xb3", "video (MPEG)"),
)

_LINE_ENDS = "an image whose line ends were changed on the way (curl: --data-binary, or -T, instead of -d)"
_RECODED = "an image that was read as text and written anew; it must be read as bytes"
# What people send instead of a file, by how it begins.
_MISTAKEN = tuple(
    (re.compile(pattern, re.IGNORECASE), words)
    for pattern, words in (
        (rb"\x89PNG(\x1a|\n|\r\r|\r\n\x1a\r)", _LINE_ENDS),
        (rb"(\xef\xbf\xbd|\xc2\x89|\?)PNG|(\xef\xbf\xbd){3}|\?{4}\x00|\xc3\xbf\xc3\x98\xc3\xbf", _RECODED),
        (rb"b['\"](\\x89PNG|\\xff\\xd8|GIF8|RIFF|BM|II|MM)", "the notation of bytes in Python, not the bytes"),
        (
            rb"--\S+\s+content-disposition",
            "a form, but the Content-Type does not say so (the client must set it itself)",
        ),
        (rb"[{\[]\s*[\"\d{\[\]}]", "JSON, out of which no image is read, neither base64 nor numbers"),
        (rb"<!doctype html|<html", "an HTML page"),
        (rb"(https?|ftp|file|s3|gs)://", "an address, from which nothing is fetched here"),
        (rb"version https://git-lfs", "a pointer of Git LFS, not the file that it stands for (git lfs pull)"),
        (rb"\x1f\x8b", "compressed with gzip"),
        (rb"PK\x03\x04", "a ZIP archive"),
        (rb"\x93NUMPY", "an array of NumPy"),
    )
)
_FIELD_NAME = re.compile(rb"\A[\w.\[\]%-]{1,40}=(?=.)")
_QUOTED = re.compile(rb"\Ab?[\"']|[\"']\Z")
_DATA_URL = re.compile(rb"data:|[\w.+/-]{0,80};base64,", re.IGNORECASE)
_PATH = re.compile(
    rb"[^\x00-\x1f]{1,500}\.(png|jpe?g|jfif|webp|gif|bmp|tiff?|heic|avif)|(@|~?/|\.\.?/|[a-z]:[\\/])[^\x00-\x1f]{1,500}",
    re.IGNORECASE,
)
_URL_SAFE = bytes.maketrans(b"-_", b"+/")


# What `ftyp`, the first box of a file of ISO's, names as the file's brand. Nearly all other brands are of videos.
_BRANDS = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"avio": "AVIF",
    b"mif1": "AVIF or HEIF",
    b"msf1": "AVIF or HEIF",
    b"miaf": "AVIF or HEIF",
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), "HEIF"),
    **dict.fromkeys((b"avci", b"avcs", b"j2ki", b"j2is", b"jpeg", b"jpgs"), "HEIF"),  # with other codecs in it
    b"crx ": "a raw image of a camera",
    b"M4A ": "sound (M4A)",
    b"M4B ": "sound (M4B)",
}
_SEND = "send JPEG, PNG, WebP, GIF, BMP or TIFF"
_VIDEO = "video (MP4 or MOV)"
_BOXES = (b"moov", b"mdat", b"wide", b"free", b"skip", b"pnot")  # with which old MOV files begin


class ImageProblem(Exception):
    """An upload that cannot become pixels. `code` is one of `app.http.problems.PROBLEMS`."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code


def accepted_format(data: bytes) -> str:
    """Returns Pillow's name of a file's format, by its first bytes. What a client says of it is not trusted.

    Raises: ImageProblem (unsupported_format, bad_image).
    """
    accepted = _accepted(data)
    if accepted is not None:
        return accepted
    if not data:
        raise ImageProblem("bad_image", f"the file is empty; {_SEND}")
    head = data[:1024].lstrip()  # not of megabytes of spaces, once for each signature
    known = next((name for signature, name in _NOT_ACCEPTED if head.startswith(signature)), None)
    if data[4:8] == b"ftyp":
        known = _BRANDS.get(data[8:12], _VIDEO)
    elif data[4:8] in _BOXES and data[:1] < b"\t":  # its length stands before it: no text begins so
        known = _VIDEO
    elif data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        known = "video (AVI)"
    if known is not None:
        raise ImageProblem("unsupported_format", f"{known} is not accepted; {_SEND}")
    raise ImageProblem("bad_image", f"these bytes are {described(data) or 'no image'}; {_SEND}")


def is_image(data: bytes) -> bool:
    """Says whether a file, of which nothing else is known, begins as one of an accepted format.

    Each of those formats has a NUL somewhere, and text has none: "BM" may also begin a word.
    """
    return _accepted(data) is not None and b"\0" in data


def described(data: bytes) -> str | None:
    """Returns what bytes are that should be an image, in words that follow "is" or "are"; None where that is unknown.

    It says only what the bytes themselves show, for people who have sent something else than they meant to.
    """
    head = data[:1024].removeprefix(b"\xef\xbb\xbf").strip()
    for pattern, words in _MISTAKEN:
        if pattern.match(head):
            return words
    if _accepted(data) is not None and len(data) > 64 and not data.isascii():  # but no NUL, as a whole one has
        return _LINE_ENDS
    if _accepted(head) is not None and _accepted(data) is None:
        return "an image with something before its first byte"
    return _text_described(head)


def _text_described(text: bytes) -> str | None:
    text = _FIELD_NAME.sub(b"", text)
    if b"%" in text and text.isascii():
        text = unquote_to_bytes(text)
        if _accepted(text) is not None:
            return "an image in percent-encoding, which must be decoded first"
    text = _QUOTED.sub(b"", text)
    if _DATA_URL.match(text):
        return "a data: URL, whose base64 text must be decoded first"
    start = b"".join(text[:128].split()).removeprefix(b"0x").replace(b"\\x", b"")[:64]
    for name, decode in (("base64", _from_base64), ("hexadecimal", _from_hexadecimal)):
        if _accepted(decode(start)) is not None:
            return f"an image as {name} text, which must be decoded first"
    if _PATH.fullmatch(text):
        return f"the name of a file and not what is in it: {text.decode(errors='replace')[:80]!r} (curl: -F file=@NAME)"
    return None


def _from_base64(text: bytes) -> bytes:
    try:
        return b64decode(text[: len(text) // 4 * 4].translate(_URL_SAFE), validate=True)
    except ValueError:
        return b""


def _from_hexadecimal(text: bytes) -> bytes:
    try:
        return bytes.fromhex(text.decode("ascii"))
    except ValueError:
        return b""


def _accepted(data: bytes) -> str | None:
    for signature, name in _ACCEPTED:
        if data.startswith(signature):
            return name
    return "WEBP" if data[:4] == b"RIFF" and data[8:12] == b"WEBP" else None
