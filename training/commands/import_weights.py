"""Publishes weights that were trained elsewhere."""

import hashlib
from datetime import UTC, datetime
from pathlib import Path

from classifier.architectures import load_weights
from classifier.checkpoint import Checkpoint, CheckpointError
from classifier.manifest import Imported, Manifest
from classifier.preprocess import Preprocess
from training.errors import TrainingError
from training.networks.heads import meta_network
from training.networks.pretrained import pretrained, source_of
from training.networks.weights import Weights, adapt_state_dict, read
from training.progress import Progress
from training.publishing import example_images
from training.publishing.provenance import library_versions
from training.publishing.publish import check_name, publish
from training.publishing.reference import reference
from training.recipes.builtin import usual_preprocess

_MAX_LABEL = 256  # characters


def import_weights(
    path: Path,
    *,
    architecture: str | None = None,
    labels: tuple[str, ...] | None = None,
    store: Path,
    name: str | None = None,
    preprocess: Preprocess | None = None,
    examples: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Publishes the weights in a .pth, .pth.tar or .safetensors file, and returns the path of the new version.

    Args:
        architecture: None: the one that the file names.
        labels: by class index; None: those that the file holds, and only a checkpoint of ours holds any.
        name: the model's name; None: it is called as its architecture is.
        preprocess: None: what the file says; else what torchvision's weights of this architecture want.
        examples: a folder of images for the reference batch; None: pictures are drawn.

    Raises:
        TrainingError: the file, the labels or the name cannot be used.
        TorchvisionError: torchvision is needed and cannot be imported.
        OSError: the store cannot be written to.
    """
    foreign = read(path)
    architecture = architecture or foreign.architecture
    if architecture is None:
        raise TrainingError(f"{path} does not say which network it is of: --architecture is needed")
    labels = labels or foreign.labels
    if labels is None:
        raise TrainingError(f"{path} does not say what its classes are called: --labels is needed")
    say = (progress or Progress.silent()).say
    weights = adapt_state_dict(
        foreign.state_dict, architecture, len(labels), note=lambda note: say(f"{path.name}: {note}")
    )
    return _published(
        weights,
        architecture,
        labels,
        preprocess or foreign.preprocess or usual_preprocess(architecture),
        source=path.name,
        file=path,
        store=store,
        name=name,
        examples=examples,
    )


def import_pretrained(
    architecture: str,
    *,
    store: Path,
    name: str | None = None,
    examples: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Publishes torchvision's own ImageNet weights, and returns the path of the new version.

    Args:
        name: the model's name; None: it is called as its architecture is.
        examples: a folder of images for the reference batch; None: pictures are drawn.

    Raises:
        TrainingError: torchvision has no such weights, or they cannot be downloaded.
        TorchvisionError: torchvision cannot be imported.
        OSError: the store cannot be written to.
    """
    source = source_of(architecture)
    if source not in (None, architecture):
        raise TrainingError(
            f"{architecture} begins with {source}'s features, but nobody has trained its head: "
            f"train it by --recipe {architecture}, or import --pretrained {source}"
        )
    own = pretrained(architecture, progress=progress is not None and progress.console.is_terminal)
    return _published(
        own.weights,
        architecture,
        own.labels,
        own.preprocess,
        source=f"torchvision {own.name}",
        file=own.file,
        store=store,
        name=name,
        examples=examples,
    )


def labels_from(path: Path) -> tuple[str, ...]:
    """Returns the lines of a text file in UTF-8, without blank ones at the end.

    Raises: TrainingError, which names a line that is empty, too long, not printable, or there twice.
    """
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise TrainingError(f"{path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise TrainingError(
            f"{path} is not a text in UTF-8: byte {error.start + 1} is {error.object[error.start]:#x}"
        ) from error
    labels = [line.strip() for line in text.rstrip().split("\n")]
    for i, label in enumerate(labels, start=1):
        if not label:
            raise TrainingError(f"{path}: line {i} is empty")
        if not label.isprintable():
            raise TrainingError(f"{path}: line {i} holds characters that cannot be printed: {label!r}")
        if len(label) > _MAX_LABEL:
            raise TrainingError(f"{path}: line {i} has {len(label)} characters, {_MAX_LABEL} are the most")
        if label in labels[: i - 1]:
            raise TrainingError(f"{path}: lines {labels.index(label) + 1} and {i} are the same: {label!r}")
    if len(labels) < 2:
        raise TrainingError(f"{path} has one label, {labels[0]!r}: at least two are needed, one on each line")
    return tuple(labels)


def _published(
    weights: Weights,
    architecture: str,
    labels: tuple[str, ...],
    preprocess: Preprocess,
    *,
    source: str,
    file: Path,
    store: Path,
    name: str | None,
    examples: Path | None,
) -> Path:
    name = architecture if name is None else name
    check_name(name)
    network = meta_network(architecture, len(labels))
    load_weights(network, weights, share=True)
    pngs = example_images.drawn(preprocess) if examples is None else example_images.from_folder(examples, preprocess)
    manifest = Manifest(
        model=name,
        architecture=architecture,
        labels=labels,
        preprocess=preprocess,
        imported=Imported(
            source=source,
            sha256=_sha256(file),
            versions=library_versions(),
            created=datetime.now(UTC).replace(microsecond=0),
        ),
    )
    try:
        proof = reference(network.eval(), pngs, preprocess)
        return publish(Checkpoint(manifest=manifest, network=weights, reference=proof), store)
    except CheckpointError as error:
        raise TrainingError(f"{source}: {error}") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
