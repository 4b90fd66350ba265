"""The files of one request: its body is read within a limit, and the images in it are found."""

import re
from typing import NamedTuple

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.types import Receive

from app.api.file_names import filename_of
from app.decoding.formats import ImageProblem, accepted_format, described, is_image
from app.http.disconnect import ClientDisconnect
from app.http.problems import Problem

FIELD = "file"
_HOW = f"send the image's bytes as the whole body, or a form (multipart/form-data) with the image in {FIELD!r}"

# Types that say no more than that these are bytes. What is wrong about the bytes, the decoder says.
_BYTES = frozenset(
    (
        b"",
        b"*/*",
        b"application/octet-stream",
        b"application/x-octet-stream",
        b"binary/octet-stream",
        b"application/binary",
        b"application/x-binary",
    )
)

# Fields beside the images. A body of many megabytes could hold hundreds of thousands of empty parts.
_MAX_OTHER_PARTS = 100

# The form that nearly every client sends: files with plain headers. All others are left to python-multipart.
_PLAIN_HEAD = re.compile(
    rb'(?i:content-disposition: form-data; name=)"file"(?i:; filename=)"((?!=\?)[^"\\;\x00-\x1f\x7f]+)"'
    rb"(?:\r\n(?i:content-type): [\x21-\x7e][\x20-\x7e]*)?"
)
_PLAIN_BOUNDARY = re.compile(rb"multipart/form-data; boundary=([A-Za-z0-9'()+_,./:=?-]{1,70})", re.IGNORECASE)


class File(NamedTuple):
    """One image as it was sent; `filename` is None where a body is the image itself, or a form names none."""

    filename: str | None
    data: bytes


async def read_body(receive: Receive, *, max_bytes: int) -> bytes:
    """Returns the whole body of a request.

    Raises: Problem (upload_too_large), ClientDisconnect.
    """
    pieces: list[bytes] = []
    size = 0
    while True:
        message = await receive()
        if message["type"] != "http.request":
            raise ClientDisconnect
        piece: bytes = message.get("body", b"")
        size += len(piece)
        if size > max_bytes:
            raise upload_too_large(max_bytes)
        pieces.append(piece)
        if not message.get("more_body", False):
            return piece if size == len(piece) else b"".join(pieces)


def upload_too_large(max_bytes: int) -> Problem:
    """Returns the problem of a body with more bytes than that."""
    return Problem("upload_too_large", f"a body may have {max_bytes:,} bytes at the most")


def files_in(body: bytes, content_type: bytes, *, max_files: int) -> list[File]:
    """Returns the images in a body: the files of a form, or the body itself.

    A form's files are the parts that are named `file`. If there is none, they are the parts that hold files, which must
    all have one name. A body that begins as an image is one, whatever its type says.

    Raises: Problem (bad_multipart, no_file, too_many_files, unsupported_content_type, unsupported_format).
    """
    files = _plain_files(body, content_type, max_files=max_files)
    if files is None:
        kind = _kind(content_type)
        if not body and kind != b"multipart/form-data":
            raise Problem("no_file", f"the body is empty; {_HOW}")
        if kind in _BYTES or kind.startswith(b"image/") or is_image(body):
            files = [File(None, body)]
        elif kind == b"multipart/form-data":
            files = _form_files(body, content_type, max_files=max_files)
        else:
            raise _no_image(body, content_type)
    return files


def _no_image(body: bytes, content_type: bytes) -> Problem:
    """The problem of a body that is no image that is accepted, and of which the client says that it is none."""
    try:
        accepted_format(body)
    except ImageProblem as problem:
        if problem.code == "unsupported_format":
            return Problem(problem.code, str(problem))
    sent, what = content_type.decode("latin-1"), described(body) or "no image"
    return Problem("unsupported_content_type", f"the content type is {sent}, and the body is {what}; {_HOW}")


def _kind(content_type: bytes) -> bytes:
    return content_type.split(b";", 1)[0].strip().lower()


def _plain_files(body: bytes, content_type: bytes, *, max_files: int) -> list[File] | None:
    """Returns the files of a body in the plain form; None for every other body, sound or not.

    Raises: Problem (too_many_files).
    """
    boundary = _PLAIN_BOUNDARY.fullmatch(content_type)
    if boundary is None or not body.startswith(b"--" + boundary[1] + b"\r\n"):
        return None
    delimiter = b"\r\n--" + boundary[1]
    start = len(delimiter)
    files: list[File] = []
    while True:
        head_end = body.find(b"\r\n\r\n", start, start + 2048)
        head = _PLAIN_HEAD.fullmatch(body, start, head_end) if head_end >= 0 else None
        end = body.find(delimiter, head_end + 4)
        if head is None or end < 0:
            return None
        _add_file(files, File(head[1].decode(errors="replace"), body[head_end + 4 : end]), max_files)
        start = end + len(delimiter)
        if body[start : start + 2] != b"\r\n":
            return files if body[start:] in (b"--\r\n", b"--") else None
        start += 2


def _add_file(files: list[File], file: File, max_files: int) -> None:
    if len(files) == max_files:
        raise _too_many_files(max_files)
    files.append(file)


def _too_many_files(max_files: int) -> Problem:
    return Problem("too_many_files", f"more than {max_files} images in one request")


def _form_files(body: bytes, content_type: bytes, *, max_files: int) -> list[File]:
    form = _Form(max_files)
    boundary = parse_options_header(content_type)[1].get(b"boundary", b"")
    if not boundary:
        raise Problem("bad_multipart", "the content type names no boundary; let the client set the header by itself")
    try:
        parser = MultipartParser(boundary, form.callbacks())  # type: ignore[arg-type]
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise Problem("bad_multipart", f"the multipart body cannot be read: {error}") from error
    if not form.ended:
        raise Problem("bad_multipart", "the multipart body ends before its last boundary")
    return form.files or form.files_of_another_name()


class _Form:
    """Collects what python-multipart finds in a form."""

    def __init__(self, max_files: int) -> None:
        self.files: list[File] = []
        self.ended = False
        self._max_files = max_files
        self._others: dict[bytes, list[File]] = {}  # the parts of other names that hold files, by name
        self._fields: dict[bytes, bytes] = {}  # the parts that hold none
        self._other_parts = 0
        self._headers: dict[bytes, bytes] = {}
        self._name = bytearray()
        self._value = bytearray()
        self._data = bytearray()

    def callbacks(self) -> dict[str, object]:
        """Returns what python-multipart is to call."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._name.extend(data[start:end]),
            "on_header_value": lambda data, start, end: self._value.extend(data[start:end]),
            "on_header_end": self._header,
            "on_part_data": lambda data, start, end: self._data.extend(data[start:end]),
            "on_part_end": self._end,
            "on_end": self._all,
        }

    def files_of_another_name(self) -> list[File]:
        """Returns the files of a form without a part named `file`. Raises: Problem (no_file, too_many_files)."""
        if len(self._others) > 1:
            names = ", ".join(map(_shown, self._others))
            raise Problem("no_file", f"the form has files of different names: {names}; name all of them {FIELD!r}")
        for files in self._others.values():
            if len(files) > self._max_files:
                raise _too_many_files(self._max_files)
            return files
        for name, data in self._fields.items():
            if (what := described(data)) is not None:
                raise Problem("no_file", f"the form has no file: the field {_shown(name)} is {what}; {_HOW}")
        names = ", ".join(map(_shown, self._fields)) or "none"
        raise Problem("no_file", f"the form has no file that is not empty (fields: {names}); {_HOW}")

    def _begin(self) -> None:
        self._headers, self._data = {}, bytearray()

    def _header(self) -> None:
        self._headers[bytes(self._name).lower()] = bytes(self._value)
        self._name, self._value = bytearray(), bytearray()

    def _end(self) -> None:
        disposition = self._headers.get(b"content-disposition", b"")
        kind, options = parse_options_header(disposition)
        name = options.get(b"name")
        if kind != b"form-data" or name is None:
            raise Problem("bad_multipart", "a part has no Content-Disposition: form-data with a name")
        filename = filename_of(disposition, options.get(b"filename"))
        file = File(filename, bytes(self._data))
        chosen = bool(filename or file.data)  # a browser sends an empty part where nothing was picked
        if name == FIELD.encode() and chosen:
            _add_file(self.files, file, self._max_files)
            return
        self._other_parts += 1
        if self._other_parts > _MAX_OTHER_PARTS:
            raise Problem("bad_multipart", f"more than {_MAX_OTHER_PARTS} parts of the form are not named {FIELD!r}")
        if chosen and (filename or b"filename" in options or is_image(file.data)):
            self._others.setdefault(name, []).append(file)
        else:
            self._fields[name] = file.data

    def _all(self) -> None:
        self.ended = True


def _shown(name: bytes) -> str:
    return repr(name.decode(errors="replace")[:40])
