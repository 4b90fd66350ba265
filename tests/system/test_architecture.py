"""What the layout promises: the HTTP side runs without torch, and every file says its idea."""

import ast
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.support.server import PROJECT

PACKAGES = ("app", "classifier", "training")
# What may live in a process that has no torch, as the import contracts say it.
CONTRACTS = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
(WITHOUT_TORCH,) = (
    contract["source_modules"] for contract in CONTRACTS if "torch" in contract.get("forbidden_modules", ())
)


def _files(*packages: str) -> list[Path]:
    return sorted(path.relative_to(PROJECT) for package in packages for path in (PROJECT / package).rglob("*.py"))


def _modules(name: str) -> list[str]:
    """A module, or all that are in a folder."""
    path = name.replace(".", "/")
    if (PROJECT / f"{path}.py").is_file():
        return [name]
    return [".".join(each.with_suffix("").parts).removesuffix(".__init__") for each in _files(path)]


@pytest.mark.process
def test_what_is_said_to_import_no_torch_runs_without_it() -> None:
    modules = [module for name in WITHOUT_TORCH for module in _modules(name)]
    assert len(modules) > len(WITHOUT_TORCH)
    code = (
        "import importlib, sys\n"
        "for name in sys.argv[1:]:\n"
        "    importlib.import_module(name)\n"
        "    assert not {'torch', 'torchvision'} & sys.modules.keys(), name\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code, *modules], cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.process
def test_the_settings_are_read_and_help_is_shown_without_torch() -> None:
    code = "import sys, app.__main__ as m\nassert 'torch' not in sys.modules\nm.main(['--help'])"
    ended = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    assert "--port" in ended.stdout


FOLDERS = sorted({path.parent for path in _files(*PACKAGES, "tests", "benchmarks")})


@pytest.mark.parametrize("folder", FOLDERS, ids=str)
def test_a_folder_says_what_lives_in_it_and_does_nothing_else(folder: Path) -> None:
    (docstring,) = ast.parse((PROJECT / folder / "__init__.py").read_text()).body
    assert isinstance(docstring, ast.Expr)
    assert isinstance(docstring.value, ast.Constant)
    assert isinstance(docstring.value.value, str)


@pytest.mark.parametrize(
    "path", [path for path in _files("tests") if path.parts[1] not in ("system", "support")], ids=str
)
def test_a_test_stands_where_what_it_tests_stands(path: Path) -> None:
    """`tests/app/http/test_protocol.py` tests `app/http/protocol.py`."""
    if path.name.startswith("test_"):
        tested = Path(*path.parts[1:-1], path.name.removeprefix("test_"))
        assert (PROJECT / tested).is_file()
    else:
        assert path.name in ("__init__.py", "conftest.py"), f"what tests share stands in tests/support, not in {path}"


@pytest.mark.parametrize("path", _files(*PACKAGES, "tests", "benchmarks", "examples"), ids=str)
def test_every_file_says_its_idea_first(path: Path) -> None:
    assert ast.get_docstring(ast.parse((PROJECT / path).read_text()))


@pytest.mark.parametrize("path", _files(*PACKAGES), ids=str)
def test_no_file_is_named_for_what_it_is_not(path: Path) -> None:
    assert path.stem not in {"utils", "helpers", "common", "core", "base", "types", "manager", "service", "handler"}
