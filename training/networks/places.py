"""Finds the line of a person's own code that something comes from: not torch's, not another library's, not ours."""

import linecache
import re
import traceback
from collections.abc import Iterable
from pathlib import Path

import torch

_OURS = Path(__file__).resolve().parents[2]
_FRAME = re.compile(r'File "(.+)", line (\d+)')
_LONGEST = 100  # characters of a line of code


def of_trace(text: str) -> str | None:
    """Returns the last place in a stack trace, as text, that is in a person's code: `my_net.py:12: x = x + 1`."""
    lines = text.split("\n")
    frames = ((_FRAME.search(line), following) for line, following in zip(lines, [*lines[1:], ""], strict=True))
    return _last((frame[1], int(frame[2]), "" if _FRAME.search(code) else code) for frame, code in frames if frame)


def of_error(error: BaseException) -> str | None:
    """Returns the last place in a person's code that an error went through, as `of_trace` does."""
    return _last(
        (frame.filename, frame.lineno or 0, frame.line or "") for frame in traceback.extract_tb(error.__traceback__)
    )


def of_now() -> str | None:
    """Returns the last place in a person's code that is being run now, as `of_trace` does."""
    return _last((frame.filename, frame.lineno or 0, frame.line or "") for frame in traceback.extract_stack())


def behind(place: str | None) -> str:
    """Returns a place as it stands behind a sentence, in brackets."""
    return f" ({place})" if place else ""


def _last(frames: Iterable[tuple[str, int, str]]) -> str | None:
    own = [frame for frame in frames if _is_own(frame[0])]
    if not own:
        return None
    file, line, code = own[-1]
    code = " ".join((code or linecache.getline(file, line)).split())[:_LONGEST]
    return f"{Path(file).name}:{line}" + (f": {code}" if code else "")


def _is_own(file: str) -> bool:
    if file.startswith("<") or {"site-packages", "dist-packages"} & set(Path(file).parts):
        return False
    return not any(Path(file).is_relative_to(folder) for folder in _NOT_OWN)


# The standard library, torch, the two packages here that call networks, and what starts them.
_NOT_OWN = (
    Path(traceback.__file__).parent,
    Path(torch.__file__).parent,
    *(_OURS / name for name in ("training", "classifier", "app", "tests/conftest.py")),
)
