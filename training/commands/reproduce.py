"""Finds the exact command that makes a checkpoint again, from what its manifest says."""

import shlex
from pathlib import Path

from classifier.manifest import Provenance
from training.errors import TrainingError
from training.publishing.open_checkpoint import header_of
from training.recipes.builtin import builtin
from training.recipes.overrides import settings_from
from training.recipes.recipe import Recipe


def reproduce(path: Path) -> str:
    """Returns the command, below comment lines that say what else the same weights need, to the last bit.

    Raises: TrainingError if the file is no checkpoint, or the checkpoint was not trained here.
    """
    manifest = header_of(path).manifest
    provenance = manifest.provenance
    if provenance is None:
        origin = "" if manifest.imported is None else f": it was imported from {manifest.imported.source}"
        raise TrainingError(f"{path} does not say how it was trained{origin}")
    versions = ", ".join(f"{name} {version}" for name, version in provenance.versions.items())
    dataset = provenance.dataset
    lines = [
        f"# code revision {provenance.code_revision or 'unknown'}; {versions}",
        f"# on {provenance.device or 'an unknown device'}; threads of torch: {provenance.threads or 'unknown'}",
        f"# data: {dataset.name}, {dataset.samples:,} training samples, fingerprint {dataset.fingerprint}",
    ]
    if provenance.parent is not None:
        lines.append(f"# starts from {provenance.parent}")
    return "\n".join([*lines, shlex.join(_command(manifest.model, provenance))])


def recipe_of(provenance: Provenance) -> Recipe:
    """Returns the recipe in a manifest. Raises: TrainingError if another version of the code wrote it."""
    return Recipe.checked(dict(provenance.recipe))


def _command(model: str, provenance: Provenance) -> list[str]:
    recipe = recipe_of(provenance)
    data = recipe.source.kind
    words = ["python", "-m", "training", data]
    if data == "photos":
        words.append(provenance.dataset.name)
    words += ["--recipe", recipe.name, "--name", model, "--seed", str(recipe.seed)]
    for setting in settings_from(builtin(data, recipe.name).replace(seed=recipe.seed), recipe):
        words += ["--set", setting]
    parent = provenance.parent
    if parent is not None and not parent.startswith(("torchvision ", "timm ")):
        words += ["--from", f"models_store/{parent.split()[0]}.safetensors"]
    return words
