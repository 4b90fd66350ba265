"""The wheel holds every module and every page: a folder that packaging forgets is missing in the container alone."""

import shutil
import subprocess
import sys
import zipfile
from importlib.util import find_spec
from pathlib import Path

import pytest

from tests.support.server import PROJECT

PACKAGES = ("app", "classifier", "training")

pytestmark = pytest.mark.process

# Run by the folder of the unpacked wheel, with the names of its modules.
IMPORT_ALL = """
import importlib, sys
folder, *names = sys.argv[1:]
sys.path.insert(0, folder)
for name in names:
    assert importlib.import_module(name).__file__.startswith(folder), name
"""


# Modules that are imported only where the extra `ray` is wanted.
OF_RAY = {"app.processes.ray_serve", "app.scoring.ray_data"}


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel that the project's own files make, unpacked as an installation has it."""
    source, wheels, folder = (tmp_path_factory.mktemp(name) for name in ("source", "wheels", "unpacked"))
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(PROJECT / name, source)
    for package in PACKAGES:
        shutil.copytree(PROJECT / package, source / package, ignore=shutil.ignore_patterns("__pycache__"))
    build = ["-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--wheel-dir"]
    subprocess.run([sys.executable, *build, str(wheels), str(source)], check=True, timeout=110)
    (wheel,) = wheels.iterdir()
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


def files(folder: Path) -> set[Path]:
    return {
        path.relative_to(folder)
        for package in PACKAGES
        for path in (folder / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_it_holds_every_file_of_the_packages(unpacked: Path) -> None:
    assert files(unpacked) == files(PROJECT)


def test_every_module_can_be_imported_from_it(unpacked: Path, tmp_path: Path) -> None:
    modules = [path.with_suffix("") for path in files(unpacked) if path.suffix == ".py"]
    names = {".".join(path.parts).removesuffix(".__init__") for path in modules if path.name != "__main__"}
    assert names >= OF_RAY
    if find_spec("ray") is None:  # the extra brings it
        names -= OF_RAY
    ended = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, str(unpacked), *sorted(names)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
