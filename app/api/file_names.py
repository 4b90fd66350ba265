"""The name of a file in a form, in the two forms beside plain text that clients write it in.

A name is only repeated in the answer, as it was sent: it is no path here, and JSON escapes what it holds.
"""

import re
from email.errors import HeaderParseError
from email.header import decode_header
from urllib.parse import unquote_to_bytes

from python_multipart.multipart import parse_options_header

# Other names are not even looked up: Python keeps each unknown name for ever, and some codecs take very long.
_CHARSETS = re.compile(
    r"utf-?8|(us-)?ascii|iso-8859-\d{1,2}|(windows-|cp)125\d|koi8-[ru]|gb2312|gbk|gb18030|big5|shift_jis"
    r"|euc-(jp|kr)|iso-2022-(jp|kr)",
    re.IGNORECASE,
)
_ENCODED_WORDS = re.compile(r"\s*(=\?[^?\s]+\?[bq]\?[^?]*\?=\s*)+", re.IGNORECASE)
_EXTENDED = re.compile(rb"filename\*\s*=", re.IGNORECASE)
# python-multipart passes over every parameter with an asterisk, so it is read under another name.
_RENAMED = b"extended-filename"


def filename_of(disposition: bytes, plain: bytes | None) -> str | None:
    """Returns the name of a part's file; None where it has none.

    `filename*` counts only where the plain name is missing or an encoded word: RFC 7578 wants the plain one.

    Args:
        disposition: the whole value of the header Content-Disposition.
        plain: its parameter `filename`, if there is one.
    """
    name = (plain or b"").decode(errors="replace")
    is_encoded = name.startswith("=?")
    if not name or is_encoded:
        extended = _extended_name(disposition)
        if extended:
            return extended
    return (_words(name) if is_encoded else None) or name or None


def _extended_name(disposition: bytes) -> str | None:
    """Reads `filename*=UTF-8''%E4%B8%83.png` (RFC 8187). Returns None if it is missing or cannot be read."""
    if b"*" not in disposition:
        return None
    value = parse_options_header(_EXTENDED.sub(_RENAMED + b"=", disposition))[1].get(_RENAMED, b"")
    charset, *rest = value.split(b"'", 2)
    if len(rest) < 2:
        return None
    return _text(unquote_to_bytes(rest[1]), charset.decode("latin-1"))


def _words(name: str) -> str | None:
    """Reads encoded words (RFC 2047), such as `=?utf-8?B?5LiDLnBuZw==?=`. Returns None for what is none."""
    if not _ENCODED_WORDS.fullmatch(name):
        return None
    try:
        words = [_text(data, charset or "") for data, charset in decode_header(name)]
    except (HeaderParseError, ValueError):
        return None
    return "".join(word for word in words if word) if all(words) else None


def _text(data: bytes, charset: str) -> str | None:
    if not _CHARSETS.fullmatch(charset):
        return None
    try:
        return data.decode(charset, errors="replace")
    except LookupError:  # a number of a family that was never given
        return None
