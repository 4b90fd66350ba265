"""Finds out which code and which libraries a run's weights come from."""

import shutil
import subprocess
from importlib import metadata
from pathlib import Path

_LIBRARIES = ("flambeau", "torch", "torchvision", "timm", "numpy", "pillow", "safetensors")


def code_revision() -> str | None:
    """Returns the git commit of this code, with "-dirty" if it was changed since; None outside a checkout of it."""
    git, here = shutil.which("git"), Path(__file__).resolve()
    if git is None:
        return None
    # First: is it this file's own repository, and not one that an environment with this package happens to lie in?
    for command in (
        ("ls-files", "--error-unmatch", here.name),
        ("describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"),
    ):
        try:
            answer = subprocess.run(  # noqa: S603  our own words
                [git, *command], cwd=here.parent, capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
    return answer.stdout.strip() or None


def library_versions() -> dict[str, str]:
    """Returns the installed versions of the libraries that decide the weights."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # flambeau itself, run from a folder
            continue
    return versions
