"""Says what a file is that should hold weights and does not, by its first bytes."""

import re
import zipfile
from pathlib import Path

from training.networks.words import listed

_MAX_HEADER_BYTES = 100_000_000  # of a safetensors file: the format's own limit

# Where the bytes stand, the bytes, what the file is, and what to do.
_MAGIC = (
    (0, b"version https://git-lfs.github.com/spec/", "a git-LFS pointer, not the file itself", "run git lfs pull"),
    (0, b"\x1f\x8b", "compressed by gzip", "unpack it first"),
    (0, b"BZh", "compressed by bzip2", "unpack it first"),
    (0, b"\xfd7zXZ\0", "compressed by xz", "unpack it first"),
    (0, b"\x28\xb5\x2f\xfd", "compressed by zstd", "unpack it first"),
    (0, b"7z\xbc\xaf\x27\x1c", "a 7z archive", "unpack it first"),
    (0, b"Rar!", "a RAR archive", "unpack it first"),
    (257, b"ustar", "a tar archive", "unpack it first"),
    (0, b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes it", "weights of PyTorch are needed"),
    (4, b"TFL3", "a TensorFlow Lite file", "weights of PyTorch are needed"),
    (0, b"GGUF", "a GGUF file", "weights of PyTorch are needed"),
    (0, b"\x93NUMPY", "a NumPy array", "save a state_dict by torch.save"),
    (0, b"%PDF-", "a PDF document", "it holds no weights"),
    (0, b"\x89PNG\r\n\x1a\n", "a PNG image", "it holds no weights"),
    (0, b"\xff\xd8\xff", "a JPEG image", "it holds no weights"),
)
_AGAIN = "download or copy it again"
_PAGE = re.compile(rb"(?:<\?xml[^>]*>\s*)?<(!doctype\s+html|html|head|body|script|meta|title|!--)", re.IGNORECASE)
# A protobuf whose first field is a small number, and whose next is a text or a message.
_ONNX = re.compile(rb"\x08[\x01-\x20][\x12\x1a\x22\x2a\x32\x3a\x42]")
_TORCH_LEGACY = b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"


def is_safetensors(start: bytes) -> bool:
    """Tells whether a file that begins with these bytes, nine at least, means to be a safetensors file."""
    return start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= _MAX_HEADER_BYTES


def what_it_is(path: Path) -> str | None:
    """Returns in words what else a file is, and what to do; None if that cannot be said. Raises: OSError."""
    with path.open("rb") as file:
        start = file.read(512)
    if not start:
        return f"is empty: {_AGAIN}"
    if not start.strip(b"\0"):
        return f"begins with zeros only, as an unfinished download does: {_AGAIN}"
    for offset, magic, what, advice in _MAGIC:
        if start[offset : offset + len(magic)] == magic:
            return f"is {what}: {advice}"
    if start.startswith(b"PK\x03\x04"):
        return _zip(path)
    if re.match(rb"\x80[\x02-\x05]", start) and not _TORCH_LEGACY.startswith(start[: len(_TORCH_LEGACY)]):
        return "is a pickle that torch.save did not write: save the state_dict by torch.save"
    if _ONNX.match(start):
        return "seems to be an ONNX file: the state_dict of the PyTorch network is needed"
    return _text(start.removeprefix(b"\xef\xbb\xbf").lstrip())


def _text(start: bytes) -> str | None:
    if _PAGE.match(start):
        return "is an HTML page, which came in place of the file: open its address in a browser to see what it says"
    if not re.match(rb"[{\[<][\x20-\x7e\s]", start):
        return None
    return f"is {'an XML' if start.startswith(b'<') else 'a JSON'} document, not weights: read what it says"


def _zip(path: Path) -> str | None:
    if not zipfile.is_zipfile(path):
        return f"is cut short, a zip archive without its end: {_AGAIN}"
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (zipfile.BadZipFile, ValueError, NotImplementedError):
        return None
    if any(name.endswith("/models/model.json") for name in names):
        return "is an exported program: name it by --exported"
    if any(name == "data.pkl" or name.endswith("/data.pkl") for name in names):
        return None
    return f"is a zip archive without weights in it, of {listed(names)}: if the weights are inside, unpack it first"
