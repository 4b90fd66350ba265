"""Says why something that lies in a store is no version of a model, so that nobody has to guess.

It is silent about what nobody expects to be served: what is hidden, folders that systems make, files on their way, and
whatever holds no weights.
"""

import os
import re
from collections.abc import Callable, Iterable
from enum import Enum
from itertools import islice
from pathlib import Path

from app.engine.model_info import PassedOver
from classifier.manifest import MODEL_NAME, VERSION_FILE

_SHOWN = 20  # of one folder
_LOOKED_INTO = 200  # entries of a folder, among which one with weights is looked for
_OF_SYSTEMS = {
    *("lost+found", "@eaDir", "#recycle", "#snapshot", "@Recycle", "$RECYCLE.BIN", "System Volume Information"),
    *("__MACOSX", "__pycache__"),
}
_WEIGHTS = re.compile(
    r".+\.(safetensors?|pth|pt|ckpt|bin|pkl|pickle|onnx|h5|keras|mar|npz|pb|tflite|tar|tgz|zip)"
    r"(\.(tar|gz|bz2|xz|zst|zip))?( ?\([0-9]+\))?",
    re.IGNORECASE | re.DOTALL,
)
_NUMBERED = re.compile(r"v?0*([1-9][0-9]{0,17})")  # as others call the folder of a version


class Kind(Enum):
    """What a name in a folder leads to."""

    FOLDER = "folder"
    FILE = "file"
    SPECIAL = "pipe, socket or device"
    NOTHING = "link that leads nowhere"


def is_silent(name: str) -> bool:
    """Says whether nothing is said of an entry of this name, whatever it is."""
    return name.startswith((".", "~")) or name.endswith("~") or name in _OF_SYSTEMS


def in_store(entries: Iterable[tuple[str, Kind]]) -> tuple[PassedOver, ...]:
    """Says why these entries of a store's own folder, which are not silent, are no models."""
    return _first(
        PassedOver(_text(name), reason) for name, kind in entries if (reason := _why_no_model(name, kind)) is not None
    )


def in_model(
    model: str, entries: Iterable[tuple[str, Kind]], names_in: Callable[[str], Iterable[str]]
) -> tuple[PassedOver, ...]:
    """Says why these entries of a model's folder, which are not silent, are no versions.

    Args:
        names_in: gives some names in a folder there; the first folders are looked into for weights.
    """
    found = []
    folders = 0
    for name, kind in sorted(entries, key=lambda entry: entry[0]):
        if kind is Kind.FOLDER and not re.fullmatch(VERSION_FILE, name):
            folders += 1
            within = _in_folder(model, name, names_in(name)) if folders <= _SHOWN else None
            if within is not None:
                found.append(within)
        elif (reason := _why_no_version(model, name, kind)) is not None:
            found.append(PassedOver(f"{model}/{_text(name)}", reason))
    return _first(found)


def _first(found: Iterable[PassedOver]) -> tuple[PassedOver, ...]:
    """Returns the first of them by their paths, and how many more there are."""
    ordered = sorted(found, key=lambda each: each.path)
    more = len(ordered) - _SHOWN
    return (*ordered[:_SHOWN], *([PassedOver("…", f"{more:,} more are passed over")] if more > 0 else []))


def _why_no_model(name: str, kind: Kind) -> str | None:
    if kind is Kind.FILE:
        if not _WEIGHTS.fullmatch(name):
            return None
        reason = "a checkpoint lies in the folder of its model, as <model>/1.safetensors"
        return f"{reason}; perhaps the store is the folder above" if re.fullmatch(VERSION_FILE, name) else reason
    if re.fullmatch(MODEL_NAME, name):  # and no folder
        return f"it is a {kind.value}"
    if re.fullmatch(MODEL_NAME, name.lower()):
        return f"the names of models are lower-case: call it {name.lower()}"
    return "the name of a model has 1 to 64 of a-z, 0-9, '.', '_' and '-', and begins with a letter or a digit"


def _why_no_version(model: str, name: str, kind: Kind) -> str | None:
    if re.fullmatch(VERSION_FILE, name):  # and no file
        return f"it is a {kind.value}; a version is a file"
    if not _WEIGHTS.fullmatch(name):
        return None
    if re.fullmatch(VERSION_FILE, name.lower()):
        return f"the names of versions are lower-case: call it {name.lower()}"
    if name.lower().endswith(".safetensors"):
        return f"a version is a number from 1 without zeros before it, as {model}/1.safetensors"
    return "a version is a .safetensors file; python -m training import makes one of other weights"


def names_in_folder(folder: Path) -> list[str]:
    """Lists the first names in a folder; none, where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in islice(entries, _LOOKED_INTO)]
    except OSError:
        return []


def _in_folder(model: str, name: str, names: Iterable[str]) -> PassedOver | None:
    """Says why a folder in a model's folder is passed over; None where nobody expects a version in it."""
    numbered = _NUMBERED.fullmatch(name)
    path = f"{model}/{_text(name)}"
    weights = next(filter(_WEIGHTS.fullmatch, sorted(name for name in names if not is_silent(name))), None)
    if weights is None and numbered is None:
        return None
    version = f"{model}/{numbered[1] if numbered else 1}.safetensors"
    reason = f"a version is a file in the folder of its model, as {version}"
    if weights is None:
        return PassedOver(path, reason)
    if numbered is None and re.fullmatch(VERSION_FILE, weights):
        reason += f"; perhaps the store is the folder {model}"
    return PassedOver(f"{path}/{_text(weights)}", reason)


def _text(name: str) -> str:
    """Escapes what is no text in a name."""
    return name.encode(errors="backslashreplace").decode()
