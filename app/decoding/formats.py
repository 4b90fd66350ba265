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
)


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
    known = next((name for signature, name in _NOT_ACCEPTED if data.lstrip().startswith(signature)), None)
    if data[4:8] == b"ftyp":
        known = "AVIF or HEIF"
    if known is not None:
        raise ImageProblem("unsupported_format", f"{known} is not accepted; send JPEG, PNG, WebP, GIF, BMP or TIFF")
    raise ImageProblem("bad_image", "these bytes are no image; send JPEG, PNG, WebP, GIF, BMP or TIFF")
