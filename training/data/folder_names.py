"""Knows the names of folders: which are those of splits, which mean the same, and how they are shown."""

import re
import unicodedata
from collections.abc import Sequence
from typing import Literal

Role = Literal["train", "val", "test"]

_ROLES: dict[Role, str] = {
    "train": "train|training",
    "val": "val|valid|validate|validation|dev|eval|evaluation",
    "test": "test|testing",
}
_AROUND = "(?:set|data|split|folder|dir|images?|imgs?|photos?|pictures?)"
_NAMES = {role: re.compile(rf"{_AROUND}*(?:{words}){_AROUND}*(?:\d{{4}})?") for role, words in _ROLES.items()}
_NEUTRAL = re.compile(f"{_AROUND}+")
_CONTROL = {code: repr(chr(code))[1:-1] for code in (*range(32), 127)}
_SHOWN = 5  # names that are listed where many are meant


def role_of(name: str) -> Role | None:
    """Returns which split a folder is called like, in any case and in the usual spellings, or None."""
    letters = _letters(name)
    return next((role for role, pattern in _NAMES.items() if pattern.fullmatch(letters)), None)


def role_in(name: str) -> tuple[Role, str] | None:
    """Returns which split the first or the last word of a folder's name means, and its other words; or None."""
    parts = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    words = [word for word in re.findall(r"[^\W\d_]+", parts) if not is_neutral(word)]
    for first in (True, False):
        if words and (role := role_of(words[0 if first else -1])) is not None:
            return role, " ".join(words[1:] if first else words[:-1])
    return None


def of_all(roles: Sequence[Role | None]) -> list[Role]:
    """Returns the splits if each is known; otherwise all are for training."""
    known = [role for role in roles if role is not None]
    return known if len(known) == len(roles) else ["train"] * len(roles)


def _letters(name: str) -> str:
    return re.sub(r"[\W_]+", "", name.lower())


def is_neutral(name: str) -> bool:
    """Tells whether nobody would call a class so, such as `images`."""
    return _NEUTRAL.fullmatch(_letters(name)) is not None


def composed(name: str) -> str:
    """Returns the name in Unicode's composed form (NFC): macOS and some archives write "é" as two characters."""
    return unicodedata.normalize("NFC", name)


def shown(name: str) -> str:
    """Returns a name that can be printed in a line, even of one that is not UTF-8 or has line ends in it."""
    return name.encode("utf-8", "backslashreplace").decode().translate(_CONTROL)


def folded(name: str) -> str:
    """Returns what is equal for names that a person may take for the same: in another case, width or spacing."""
    return " ".join(unicodedata.normalize("NFKC", name).lower().split())


def is_utf8(name: str) -> bool:
    """Tells whether a name can be a text. File systems take any bytes."""
    return name.encode("utf-8", "replace").decode() == name


def listed(names: Sequence[str], after: str = "") -> str:
    """Returns the names in a row, or the first of many. `after` stands behind each."""
    row = ", ".join(f"{shown(name)}{after}" for name in names[:_SHOWN])
    return f"{row} and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else row
