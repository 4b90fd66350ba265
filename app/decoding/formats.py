"""Which image formats are accepted, and how the first bytes of a file tell which one it has."""

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


# What `ftyp`, the first box of a file of ISO's, names as the file's brand. Nearly all other brands are of videos.
_BRANDS = {
    b"avif": "AVIF",
    b"avis": "AVIF",
    b"mif1": "AVIF or HEIF",
    b"msf1": "AVIF or HEIF",
    b"miaf": "AVIF or HEIF",
    **dict.fromkeys((b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"hevm", b"hevs"), "HEIF"),
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
    for signature, name in _ACCEPTED:
        if data.startswith(signature):
            return name
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "WEBP"
    if not data:
        raise ImageProblem("bad_image", f"the file is empty; {_SEND}")
    known = next((name for signature, name in _NOT_ACCEPTED if data.lstrip().startswith(signature)), None)
    if data[4:8] == b"ftyp":
        known = _BRANDS.get(data[8:12], _VIDEO)
    elif data[4:8] in _BOXES and data[:1] < b"\t":  # its length stands before it: no text begins so
        known = _VIDEO
    elif data[:4] == b"RIFF" and data[8:12] == b"AVI ":
        known = "video (AVI)"
    if known is not None:
        raise ImageProblem("unsupported_format", f"{known} is not accepted; {_SEND}")
    raise ImageProblem("bad_image", f"these bytes are no image; {_SEND}")
