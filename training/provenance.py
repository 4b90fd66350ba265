"""Where a run's weights come from: the code, the libraries, and the checkpoint they started from."""

import shutil
import subprocess
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Self

from classifier.checkpoint import Checkpoint, CheckpointError, Header
from training.errors import TrainingError
from training.recipes import Recipe

_LIBRARIES = ("flambeau", "torch", "torchvision", "numpy", "pillow", "safetensors")


@dataclass(frozen=True, slots=True)
class Parent:
    """A published checkpoint to start from, and its name in the manifests of its children."""

    name: str
    checkpoint: Checkpoint

    @classmethod
    def load(cls, path: Path) -> Self:
        """Raises: TrainingError if it is no sound checkpoint."""
        try:
            sha256 = Header.read(path).sha256
            checkpoint = Checkpoint.load(path)
        except FileNotFoundError as error:
            raise TrainingError(
                f"--from {path}: no such file; published ones are <store>/<model>/<n>.safetensors"
            ) from error
        except (CheckpointError, OSError) as error:
            raise TrainingError(f"--from {path}: {error}") from error
        return cls(f"{path.resolve().parent.name}/{path.resolve().stem} {sha256}", checkpoint)

    def check_fits(self, recipe: Recipe, labels: tuple[str, ...]) -> None:
        """Raises: TrainingError if the recipe trains something else."""
        manifest = self.checkpoint.manifest
        fits = {
            "architecture": (manifest.architecture, recipe.architecture),
            "labels": (manifest.labels, labels),
            "preprocess": (manifest.preprocess, recipe.preprocess),
        }
        for what, (theirs, ours) in fits.items():
            if theirs != ours:
                raise TrainingError(f"--from {self.name.split()[0]}: its {what} is {theirs}, this recipe's is {ours}")


def code_revision() -> str | None:
    """The git commit of this code, with "-dirty" if it was changed since; None outside a checkout of it."""
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
    """The installed versions of what decides the weights."""
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:  # flambeau itself, run from a folder
            continue
    return versions
