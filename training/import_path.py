"""Says where Python looks for modules, so that a person's own files get along with everything else.

At first it imports only what Python itself has imported already: anything else might come from the current folder.
"""

import os
import sys

from training.errors import TrainingError

_STANDARD_LIBRARY = os.path.dirname(os.__file__)  # noqa: PTH120  pathlib is not imported yet


def current_folder_behind_the_standard_library() -> None:
    """Moves the current folder, where `python -m` looks first, behind Python's own modules.

    A file there that is called like one of them, such as `http.py` or `random.py`, then does not take its place.
    """
    here = os.getcwd()  # noqa: PTH109
    if sys.path and sys.path[0] in ("", here):
        look_in(here)


def look_in(folder: str) -> None:
    """Lets modules of this folder be imported: behind Python's own ones, before installed packages."""
    sys.path[:] = [entry for entry in sys.path if entry not in ("", folder)]
    own = (_STANDARD_LIBRARY, os.path.join(_STANDARD_LIBRARY, "lib-dynload"))  # noqa: PTH118
    sys.path.insert(max((i for i, entry in enumerate(sys.path) if entry in own), default=-1) + 1, folder)


def check_name(file: str) -> None:
    """Checks that a person's file is not called like an installed package, as `torch.py` would be.

    Whatever imports that package would get the file.

    Raises: TrainingError if it is.
    """
    from importlib.machinery import PathFinder
    from pathlib import Path

    path = Path(file)
    elsewhere = [entry for entry in sys.path if Path(entry).resolve() != path.parent.resolve()]
    found = None if path.stem in sys.stdlib_module_names else PathFinder.find_spec(path.stem, elsewhere)
    if found is not None and found.loader is not None:
        raise TrainingError(
            f"{file} is called like the package {path.stem}, which could not be imported any more: rename the file"
        )
