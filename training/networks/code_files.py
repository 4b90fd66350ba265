"""Loads a person's own code: a file such as `my_net.py`, or a module of an installed package. Imports no torch."""

import hashlib
import importlib
import importlib.machinery
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import CodeType, ModuleType

from training import import_path
from training.errors import TrainingError, type_and_line

MAX_CHARACTERS = 1 << 20  # of a file; the manifest holds no more


@dataclass(frozen=True, slots=True, eq=False)
class CodeFile:
    """Holds a module that is loaded, and the text that it was made of.

    Args:
        typed: how a person named it: a path that ends in `.py`, or `package.module`.
        name: the same without a folder, as manifests have it.
        module: after its code was run.
        text: of the file; None: there is none, as for a module that is compiled.
        hashes: the SHA-256 of the text, and of each file beside it, by the paths in the folder.
        beside: files that it imports from its own folder, by their paths there.
    """

    typed: str
    name: str
    module: ModuleType
    text: str | None
    hashes: Mapping[str, str]
    beside: Mapping[str, Path] = field(default_factory=dict)

    @property
    def is_file(self) -> bool:
        """Whether a person named a file, and not a module."""
        return self.name.endswith(".py")

    def place_of(self, error: BaseException) -> str:
        """Returns the line of this code that an error comes from, as `my_net.py:14`; else how the file was named."""
        for frame, line in reversed(list(traceback.walk_tb(error.__traceback__))):
            place = self.line(frame.f_code, line)
            if place is not None:
                return place
        return self.typed

    def line(self, code: CodeType, number: int | None = None) -> str | None:
        """Returns a line of some code as `my_net.py:14`; None if the code is not in this module or beside it.

        Args:
            number: None: the first line of the code.
        """
        number = code.co_firstlineno if number is None else number
        if code.co_filename == getattr(self.module, "__file__", None):
            return f"{self.typed if self.is_file else Path(code.co_filename).name}:{number}"
        if any(code.co_filename == str(path) for path in self.beside.values()):
            return f"{Path(code.co_filename).name}:{number}"
        return None


def is_own_code(architecture: object) -> bool:
    """Tells the name of a network of a person's own, such as `my_net.py:Net`, from that of any other."""
    return isinstance(architecture, str) and ":" in architecture


def load(typed: str) -> CodeFile:
    """Runs the code of a file or a module.

    Raises: TrainingError, which says what is wrong with it, and in which line.
    """
    return _file(Path(typed)) if typed.endswith(".py") else _module(typed)


def in_words(error: BaseException) -> str:
    """Returns the type and the message of an error in one line."""
    if isinstance(error, SyntaxError):
        return error.msg
    return type_and_line(error)


def _file(path: Path) -> CodeFile:
    if not path.is_file():
        raise TrainingError(f"{path}: no such file")
    path_in_full = path.resolve()
    import_path.check_name(str(path))
    text = _text(path)
    import_path.look_in(str(path_in_full.parent))
    # It has a name that nothing else has: http.py would stand where Python's own http is.
    loader = _Loader(f"_own_code_{path.stem}", str(path_in_full), text)
    spec = importlib.util.spec_from_loader(loader.name, loader)
    if spec is None:
        raise AssertionError("there is a loader")
    module = importlib.util.module_from_spec(spec)
    sys.modules[loader.name] = module  # dataclasses look for it there
    before = set(sys.modules)
    try:
        loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise _cannot_load(str(path), path_in_full, error) from error
    beside = _beside(path_in_full, set(sys.modules) - before)
    hashes = _hashes({path.name: text.encode()} | {name: each.read_bytes() for name, each in beside.items()})
    return CodeFile(str(path), path.name, module, text, hashes, beside)


def _module(name: str) -> CodeFile:
    nothing = TrainingError(f"there is no module {name}; the name of a file ends in .py, as in --network my_net.py:Net")
    if name.startswith("."):  # Python would ask: beside which package?
        raise nothing
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
            raise nothing from error
        raise _cannot_load(name, None, error) from error
    except (Exception, SystemExit) as error:
        raise _cannot_load(name, None, error) from error
    try:
        text: str | None = inspect.getsource(module)
    except (OSError, TypeError):
        text = None
    hashes = {} if text is None else _hashes({name: text.encode()})
    return CodeFile(name, name, module, text if text is None or len(text) <= MAX_CHARACTERS else None, hashes)


def _hashes(texts: Mapping[str, bytes]) -> dict[str, str]:
    return {name: hashlib.sha256(text).hexdigest() for name, text in texts.items()}


def _text(path: Path) -> str:
    try:
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise TrainingError(f"{path} is no text as UTF-8: save it as such") from error
    if len(text) > MAX_CHARACTERS:
        raise TrainingError(f"{path} has {len(text):,} characters; at most {MAX_CHARACTERS:,} go into a checkpoint")
    return text


def _cannot_load(typed: str, file: Path | None, error: BaseException) -> TrainingError:
    """Returns the error for a person whose code cannot be run, with the line that is to blame."""
    if isinstance(error, SyntaxError) and error.filename is not None:
        where = typed if file is not None and error.filename == str(file) else Path(error.filename).name
        return TrainingError(f"{where}:{error.lineno}: {in_words(error)}")
    frames = [frame for frame in traceback.extract_tb(error.__traceback__) if not _is_ours(frame.filename)]
    inside = [frame.lineno for frame in frames if file is not None and frame.filename == str(file)]
    where = f"{typed}:{inside[-1]}" if inside else typed
    deepest = "" if not frames or (inside and frames[-1].filename == str(file)) else _short(frames[-1])
    if isinstance(error, SystemExit):
        return TrainingError(f"{where}: it ends Python where it should only define the network{deepest}")
    return TrainingError(f"{where}: {in_words(error)}{deepest}")


def _short(frame: traceback.FrameSummary) -> str:
    return f" ({Path(frame.filename).name}:{frame.lineno})"


def _is_ours(filename: str) -> bool:
    return filename == __file__ or "importlib" in filename


def _beside(file: Path, imported: set[str]) -> dict[str, Path]:
    """Returns the files of those imported modules that lie in the folder of the file, by their paths there."""
    found = {}
    for name in sorted(imported):
        origin = getattr(sys.modules.get(name), "__file__", None)
        if origin is None:
            continue
        path = Path(origin)
        top = path.parents[name.count(".") + (path.name == "__init__.py")] if path.suffix == ".py" else None
        if top is not None and top.resolve() == file.parent and path.resolve() != file:
            found[path.resolve().relative_to(file.parent).as_posix()] = path
    return found


class _Loader(importlib.machinery.SourceFileLoader):
    """Runs a text that was read before: the text that is kept is the one that was run, and no `.pyc` is used."""

    def __init__(self, name: str, path: str, text: str) -> None:
        super().__init__(name, path)
        self._text = text

    def get_code(self, fullname: str) -> CodeType:
        del fullname
        code: CodeType = compile(self._text, self.path, "exec", dont_inherit=True)
        return code
