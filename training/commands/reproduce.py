"""Finds the exact command that makes a checkpoint again, from what its manifest says."""

import hashlib
import shlex
from pathlib import Path

from classifier import atomic_files
from classifier.manifest import Code, Provenance
from training.errors import TrainingError
from training.networks.code_files import is_own_code
from training.publishing.open_checkpoint import header_of
from training.recipes.builtin import base_of
from training.recipes.overrides import settings_from
from training.recipes.recipe import Recipe


def reproduce(path: Path, folder: Path = Path()) -> str:
    """Returns the command, below comment lines that say what else the same weights need, to the last bit.

    If the network is a person's own, the file with its code is written, unless it is there.

    Args:
        folder: where the code is written.

    Raises:
        TrainingError: the file is no checkpoint, or the checkpoint was not trained here.
        OSError: the code cannot be written.
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
    if recipe_of(provenance).all_reduce:
        lines.append("# sums were taken in whatever order was fast: the weights will be alike, and not the same")
    if provenance.parent is not None:
        lines.append(f"# starts from {provenance.parent}")
    command = _command(manifest.model, provenance)
    if "--network" in command:
        at = command.index("--network") + 1
        command[at], notes = _with_code(command[at], manifest.code, folder)
        lines += notes
    return "\n".join([*lines, shlex.join(command)])


def recipe_of(provenance: Provenance) -> Recipe:
    """Returns the recipe in a manifest. Raises: TrainingError if another version of the code wrote it."""
    return Recipe.checked(dict(provenance.recipe))


def _command(model: str, provenance: Provenance) -> list[str]:
    recipe = recipe_of(provenance)
    data = recipe.source.kind
    words = ["python", "-m", "training", data]
    # What a table and shards are called is not kept.
    places = {"photos": "", "table": "/labels.csv", "shards": "/*.tar"}
    if data in places:
        words.append(f"{provenance.dataset.name}{places[data]}")
    if is_own_code(recipe.architecture):
        words += ["--network", recipe.architecture]
    words += ["--recipe", recipe.name, "--name", model, "--seed", str(recipe.seed)]
    for setting in settings_from(base_of(recipe).replace(seed=recipe.seed), recipe):
        words += ["--set", setting]
    parent = provenance.parent
    if parent is not None and not parent.startswith(("torchvision ", "timm ")):
        words += ["--from", f"models_store/{parent.split()[0]}.safetensors"]
    return words


def _with_code(architecture: str, code: Code | None, folder: Path) -> tuple[str, list[str]]:
    """Writes out the code of a network, and returns how --network names it now, with comment lines about it."""
    if code is None:
        return architecture, [f"# the network's code is not in the checkpoint: {architecture}"]
    notes = [f"# it also imports {name}, which is not in the checkpoint" for name in code.imports or ()]
    if not code.file.endswith(".py"):
        return architecture, [f"# the network is in the module {code.file}, SHA-256 of its text {code.sha256}", *notes]
    if Path(code.file).name != code.file or not code.file.isprintable() or code.file.startswith("-"):
        raise TrainingError(f"the network's code is called {code.file!r}, which is no name of a file")
    file = _free_place(folder / code.file, code)
    if not file.exists():
        atomic_files.replace(file, code.text.encode())
    note = f"# the network's code is in {file}, as the checkpoint holds it: read it before you run it"
    return f"{file}:{architecture.rpartition(':')[2]}", [note, *notes]


def _free_place(file: Path, code: Code) -> Path:
    """Returns where the code may be written. If the file is there and is another, it is one in a folder of its own.

    It keeps its name, for a checkpoint calls the network by it.
    """
    for place in (file, file.parent / f"{file.stem}-{code.sha256[:12]}" / file.name):
        if not place.exists() or _hash_of(place) == hashlib.sha256(code.text.encode()).hexdigest():
            return place
    raise TrainingError(f"{file} and {place} are there, and are other files than the network's code: move one away")


def _hash_of(file: Path) -> str | None:
    return hashlib.sha256(file.read_bytes()).hexdigest() if file.is_file() else None
