"""Reads a path as a person types it. Imports no torch."""

import os
from pathlib import Path


def typed_path(text: str) -> Path:
    """Returns the path that `text` means, where `~` or `~user` at the beginning is a home folder.

    A shell replaces it only at the beginning of a word: not in `--store=~/models`, and in no file of settings.

    Raises: ValueError, if nobody knows that home folder.
    """
    expanded = os.path.expanduser(text)  # noqa: PTH111  a Path takes ./~ for ~
    if expanded.startswith("~"):
        raise ValueError(f"{text!r} begins with a home folder that is not known here; ./{text} means a name with ~")
    path = Path(expanded)
    return path.absolute() if str(path).startswith("~") else path  # so that whoever reads it again takes the same
