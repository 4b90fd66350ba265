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
from training.networks import foreign, timm_networks, timm_weights
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
    said = dict(content.labels) | ({sidecar.path_of(path).name: beside.labels} if beside else {})
    labels = _agreed(path, said, labels)
    if named is None:
        note(f"says that it is of {architecture}")
    chosen = chosen_preprocess(
        architecture, named=preprocess, said=known.preprocess if known else None, settings=settings, note=note
    )
    weights = adapt_state_dict(content.state_dict, NetworkSpec.of(architecture, chosen), len(labels), note=note)
    served = _Served(architecture, weights, labels, chosen)
    if known and known.preprocess == chosen:
        served = replace(served, calibration=known.calibration, out_of_distribution=known.out_of_distribution)
    elif known and (known.calibration or known.out_of_distribution):
        note("left out the temperature and the threshold for strange images: they belong to another preprocess")
    return _published(served, source=path.name, sha256=sha256, store=store, name=name, examples=examples)


def import_pretrained(
    architecture: str,
    *,
    labels: tuple[str, ...] | None = None,
    store: Path,
    name: str | None = None,
    examples: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Publishes pretrained weights of torchvision's or timm's, and returns the path of the new version.

    Args:
        labels: by class index, for weights of timm's whose classes are not those of ImageNet.
        name: the model's name; None: it is called as its architecture is.
        examples: a folder of images for the reference batch; None: pictures are drawn.

    Raises:
        TrainingError: there are no such weights, they cannot be downloaded, or the labels do not belong to them.
        TorchvisionError: torchvision cannot be imported.
        OSError: the store cannot be written to.
    """
    source = source_of(architecture)
    if source not in (None, architecture):
        raise TrainingError(
            f"{architecture} begins with {source}'s features, but nobody has trained its head: "
            f"train it by --recipe {architecture}, or import --pretrained {source}"
        )
    spec = NetworkSpec(architecture)
    if spec.is_timm:
        labels = _labels_for_timm(architecture, labels)
        spec = NetworkSpec.of(architecture, timm_networks.preprocess_of(architecture))
    elif labels is not None:
        raise TrainingError("--labels: --pretrained brings its own; name it for weights in a file only")
    own = pretrained(spec, progress=progress is not None and progress.console.is_terminal)
    return _published(
        _Served(architecture, own.weights, labels or own.labels or (), own.preprocess),
        source=own.source,
        sha256=sidecar.sha256_of(own.file),
        store=store,
        name=name,
        examples=examples,
    )


def _labels_for_timm(architecture: str, given: tuple[str, ...] | None) -> tuple[str, ...]:
    classes = timm_weights.classes_of(architecture)
    own = timm_weights.labels_of(architecture)
    if classes < 2:
        raise TrainingError(
            f"the pretrained weights of {architecture} have no head: train one by --recipe transfer:{architecture}"
        )
    if own is not None and given is not None:
        raise TrainingError(f"--labels: {architecture} brings those of ImageNet")
    if own is None and (given is None or len(given) != classes):
        raise TrainingError(
            f"the {classes} outputs of {architecture} are no classes of ImageNet: "
            + ("--labels has to name them" if given is None else f"--labels names {len(given)}")
        )
    return own or given or ()


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


def _difference(ours: tuple[str, ...], theirs: tuple[str, ...]) -> str:
    if len(ours) != len(theirs):
        return f"{len(ours)} labels and {len(theirs)}"
    pairs = zip(map(composed, ours), map(composed, theirs), strict=True)
    i = next(i for i, (one, other) in enumerate(pairs) if one != other)
    return f"class {i} is {ours[i]!r} and {theirs[i]!r}"


def _published(
    served: _Served, *, source: str, sha256: str, store: Path, name: str | None, examples: Path | None
) -> Path:
    name = timm_networks.model_name(served.architecture) if name is None else name
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
