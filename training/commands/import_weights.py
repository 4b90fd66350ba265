"""Publishes weights that were trained elsewhere."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from classifier.checkpoint import Checkpoint, CheckpointError
from classifier.manifest import Calibration, Imported, Manifest, OutOfDistribution
from classifier.preprocess import Preprocess
from training.commands.preprocess_choice import chosen_preprocess
from training.data.folder_names import composed
from training.errors import TrainingError
from training.networks import foreign
from training.networks.image_size import SIZE_ERRORS, cannot_take
from training.networks.pretrained import pretrained, source_of
from training.networks.served import ServedNetwork, served_network
from training.networks.spec import NetworkSpec
from training.networks.weights import Weights, adapt_state_dict
from training.progress import Progress
from training.publishing import example_images, sidecar
from training.publishing.provenance import library_versions
from training.publishing.publish import check_name, publish
from training.publishing.reference import reference


@dataclass(frozen=True, slots=True)
class _Served:
    """Holds what is published, but its source and its name."""

    architecture: str
    weights: Weights
    labels: tuple[str, ...]
    preprocess: Preprocess
    calibration: Calibration | None = None
    out_of_distribution: OutOfDistribution | None = None


def import_weights(
    path: Path,
    *,
    architecture: str | None = None,
    labels: tuple[str, ...] | None = None,
    store: Path,
    name: str | None = None,
    entry: str | None = None,
    preprocess: Preprocess | None = None,
    settings: Sequence[str] = (),
    examples: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Publishes the weights in a .pth, .pth.tar, .ckpt or .safetensors file, and returns the path of the new version.

    What the file does not say is taken from `<path>.json`, if `export` wrote one there.

    Args:
        architecture: None: the one that the file names.
        labels: by class index; None: those that the file holds.
        name: the model's name; None: it is called as its architecture is.
        entry: the key of the weights in the file, or a prefix of their names; None: what is usual.
        preprocess: None: what the file says; else what is usual for the architecture, with a word.
        settings: changes to the preprocess of the form `preprocess.key=value`.
        examples: a folder of images for the reference batch; None: pictures are drawn.
        progress: is told what was taken, left out, and guessed.

    Raises:
        TrainingError: the file, the labels, the preprocess or the name cannot be used.
        TorchvisionError: torchvision is needed and cannot be imported.
        OSError: the store cannot be written to.
    """
    progress = progress or Progress.silent()

    def note(line: str) -> None:
        progress.say(f"{path.name}: {line}")

    content = foreign.read(path, entry)
    for line in content.notes:
        note(line)
    sha256 = sidecar.sha256_of(path)
    beside = None if content.manifest else sidecar.read(path, sha256, note=note)
    known = sidecar.Sidecar.of(content.manifest) if content.manifest else beside
    named = architecture
    if architecture is None:
        architecture = known.architecture if known else content.architecture
        if architecture is None:
            raise TrainingError(f"{path} does not say which network it is of: --architecture is needed")
        _check_is_no_code(path, architecture)
    said = dict(content.labels) | ({sidecar.path_of(path).name: beside.labels} if beside else {})
    labels = _agreed(path, said, labels)
    weights = adapt_state_dict(content.state_dict, NetworkSpec(architecture), len(labels), note=note)
    if named is None:
        note(f"says that it is of {architecture}")
    chosen = chosen_preprocess(
        architecture, named=preprocess, said=known.preprocess if known else None, settings=settings, note=note
    )
    served = _Served(architecture, weights, labels, chosen)
    if known and known.preprocess == chosen:
        served = replace(served, calibration=known.calibration, out_of_distribution=known.out_of_distribution)
    elif known and (known.calibration or known.out_of_distribution):
        note("left out the temperature and the threshold for strange images: they belong to another preprocess")
    return _published(served, source=path.name, sha256=sha256, store=store, name=name, examples=examples)


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
        _Served(architecture, own.weights, own.labels, own.preprocess),
        source=f"torchvision {own.name}",
        sha256=sidecar.sha256_of(own.file),
        store=store,
        name=name,
        examples=examples,
    )


def _agreed(path: Path, said: Mapping[str, tuple[str, ...]], labels: tuple[str, ...] | None) -> tuple[str, ...]:
    """Returns the labels. Raises: TrainingError if there are none, or if two sources contradict each other.

    Two forms of Unicode of the same label are no contradiction.
    """
    every = dict(said) | ({} if labels is None else {"--labels": labels})
    if not every:
        raise TrainingError(f"{path} does not say what its classes are called: --labels is needed")
    first, agreed = next(iter(every.items()))
    for source, others in every.items():
        if tuple(map(composed, others)) != tuple(map(composed, agreed)):
            raise TrainingError(f"{path}: {first} and {source} contradict each other: {_difference(agreed, others)}")
    return agreed


def _check_is_no_code(path: Path, architecture: str) -> None:
    """Checks that a file names no code. Code runs only if a person names it. Raises: TrainingError."""
    if ":" in architecture:
        raise TrainingError(
            f"{path} is of {architecture}, which is code, and code that a file names is not run: if you have it and "
            f"trust it, name it by --network {architecture}"
        )


def _difference(ours: tuple[str, ...], theirs: tuple[str, ...]) -> str:
    if len(ours) != len(theirs):
        return f"{len(ours)} labels and {len(theirs)}"
    pairs = zip(map(composed, ours), map(composed, theirs), strict=True)
    i = next(i for i, (one, other) in enumerate(pairs) if one != other)
    return f"class {i} is {ours[i]!r} and {theirs[i]!r}"


def _published(
    served: _Served, *, source: str, sha256: str, store: Path, name: str | None, examples: Path | None
) -> Path:
    name = served.architecture if name is None else name
    check_name(name)
    preprocess = served.preprocess
    own = served_network(NetworkSpec.of(served.architecture, preprocess), served.weights, len(served.labels))
    pngs = example_images.drawn(preprocess) if examples is None else example_images.from_folder(examples, preprocess)
    try:
        manifest = Manifest(
            model=name,
            architecture=served.architecture,
            labels=served.labels,
            preprocess=preprocess,
            imported=Imported(
                source=source,
                sha256=sha256,
                versions=library_versions(),
                created=datetime.now(UTC).replace(microsecond=0),
            ),
            calibration=served.calibration,
            out_of_distribution=served.out_of_distribution,
            format=1 if own.info is None else 2,
            program=own.info,
        )
        return publish(_proved(manifest, own, pngs), store)
    except CheckpointError as error:
        raise TrainingError(f"{source}: {error}") from error


def _proved(manifest: Manifest, own: ServedNetwork, pngs: tuple[bytes, ...]) -> Checkpoint:
    try:
        proof = reference(own.network, pngs, manifest.preprocess)
    except SIZE_ERRORS as error:
        raise cannot_take(manifest.architecture, manifest.preprocess, error) from error
    return Checkpoint(
        manifest=manifest, network=own.weights, reference=proof, program=own.program, constants=own.constants
    )
