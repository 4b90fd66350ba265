"""Says where Python looks for modules, so that a person's own files get along with everything else.

At first it imports only what Python itself has imported already: anything else might come from the current folder.
"""

import os
import sys

from training.errors import TrainingError

_STANDARD_LIBRARY = os.path.dirname(os.__file__)  # noqa: PTH120  pathlib is not imported yet
_PROJECT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120
_OURS = ("classifier", "training")


def current_folder_last() -> None:
    """Moves the current folder, where `python -m` looks first, behind everything else.

    A file there that is called like a module of Python's own or of a package, such as `http.py` or `classifier.py`,
    then does not take its place. If the project is not installed but in this folder, packages only come after it.
    """
    here = os.getcwd()  # noqa: PTH109
    if not sys.path or sys.path[0] not in ("", here):
        return
    del sys.path[0]
    if here == _PROJECT:
        look_in(here)
    else:
        import classifier  # noqa: F401  an installation for developers is asked last of all: now, or too late

        sys.path.append(here)


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
    import site
    from importlib.machinery import PathFinder
    from pathlib import Path

    name = Path(file).stem
    installed = PathFinder.find_spec(name, [*site.getsitepackages(), site.getusersitepackages()])
    if name in _OURS or (installed is not None and installed.loader is not None):
        raise TrainingError(
            f"{file} is called like the package {name}, which could not be imported any more: rename the file"
        )
