"""Where a store is: a folder, or a URL of an object store. Imports no torch and no fsspec."""

import re
from importlib.util import find_spec
from pathlib import Path
from urllib.parse import unquote, urlsplit

from classifier.paths import typed_path

# For each scheme of a URL: the module that fsspec opens it with, and the extra of ours that brings it.
_NEEDS = {
    "s3": ("s3fs", "s3"),
    "gs": ("gcsfs", "gcs"),
    "az": ("adlfs", "azure"),
    "hf": ("huggingface_hub", "hf"),
    "memory": ("fsspec", None),  # one process alone sees it
}
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(.*)", re.DOTALL)


class AddressError(ValueError):
    """Nothing can be a store at this address. The message is one line."""


def store_address(text: str) -> Path | str:
    """Returns the folder, or the URL without a slash at its end, that a person has typed.

    Raises: AddressError, where the URL has another scheme, names no place, or needs what is not installed.
    """
    match = _URL.fullmatch(text)
    if match is None:
        return typed_path(text)
    scheme, rest = match[1].lower(), match[2].rstrip("/")
    if scheme == "file":
        return _folder_of(text)
    if scheme not in _NEEDS:
        known = ", ".join(f"{each}://" for each in _NEEDS if each != "memory")
        raise AddressError(f"{scheme}:// is no store: give a folder, or a URL that begins with {known} or file://")
    module, extra = _NEEDS[scheme]
    if find_spec(module) is None:
        raise AddressError(f"{scheme}:// needs more than is installed: pip install 'flambeau[{extra}]'")
    if not rest.strip("/"):
        raise AddressError(f"{scheme}:// names no place: give {scheme}://<bucket>, and perhaps a folder in it")
    return f"{scheme}://{rest}"


def _folder_of(url: str) -> Path:
    parts = urlsplit(url)
    if parts.netloc not in ("", "localhost") or not parts.path:
        raise AddressError(f"{url} is no folder of this machine: give file:///<folder>")
    return Path(unquote(parts.path))
