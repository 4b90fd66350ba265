"""Publishes weights that were trained elsewhere: in a file, of torchvision's own, or made by a person's own code."""

import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from pydantic import JsonValue

from classifier.architectures import load_weights
from classifier.checkpoint import Checkpoint, CheckpointError
from classifier.manifest import Calibration, Code, Imported, Manifest, OutOfDistribution
from classifier.normalize import normalizer
from classifier.preprocess import Preprocess
from training.commands.preprocess_choice import chosen_preprocess
from training.data.folder_names import composed
from training.errors import TrainingError
from training.networks import foreign, own_code, timm_networks, timm_weights
from training.networks.code_files import is_own_code
from training.networks.image_size import SIZE_ERRORS, cannot_take
from training.networks.pretrained import pretrained, source_of
from training.networks.served import ServedNetwork, served_network
from training.networks.spec import NetworkSpec
from training.networks.weights import Weights, adapt_state_dict
from training.networks.words import in_words, listed
from training.progress import Progress
from training.publishing import example_images, sidecar
from training.publishing.provenance import library_versions
from training.publishing.publish import check_name, publish
from training.publishing.reference import reference
from training.recipes.builtin import builtin
from training.recipes.dataset_table import PHOTO
from training.recipes.overrides import network_values
from training.runs.try_program import check_answers


@dataclass(frozen=True, slots=True)
class Served:
    """Holds what is published, but its source and its name."""

    architecture: str
    weights: Weights
    labels: tuple[str, ...]
    preprocess: Preprocess
    calibration: Calibration | None = None
    out_of_distribution: OutOfDistribution | None = None
    code: Code | None = None


def import_weights(
    path: Path,
    *,
    architecture: str | None = None,
    network: str | None = None,
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

    What the file does not say is taken from `<path>.json`, if `export` wrote one there. A file never decides which code
    is run: a network of somebody's own is made only if the caller names it.

    Args:
        architecture: None: `network`, or else the one that the file names.
        network: a person's own code, such as `my_net.py:Net` or `package.module:factory`; None: it is none.
        labels: by class index; None: those that the file holds.
        name: the model's name; None: it is called as its architecture is.
        entry: the key of the weights in the file, or a prefix of their names; None: what is usual.
        preprocess: None: what the file says; else what is usual for the architecture, with a word.
        settings: changes of the form `preprocess.key=value`, and `network.key=value` for the constructor's keywords.
        examples: a folder of images for the reference batch; None: pictures are drawn.
        progress: is told what was taken, left out, and guessed.

    Raises:
        TrainingError: the file, the code, the labels, the preprocess or the name cannot be used.
        TorchvisionError: torchvision is needed and cannot be imported.
        OSError: the store cannot be written to.
    """
    note = _note(progress, path.name)
    content = foreign.read(path, entry)
    for line in content.notes:
        note(line)
    sha256 = sidecar.sha256_of(path)
    beside = None if content.manifest else sidecar.read(path, sha256, note=note)
    known = sidecar.Sidecar.of(content.manifest) if content.manifest else beside
    named = _named(architecture, network)
    architecture = named or _said(path, known.architecture if known else content.architecture)
    said = dict(content.labels) | ({sidecar.path_of(path).name: beside.labels} if beside else {})
    labels = agreed(path, said, labels)
    chosen, options = _chosen(architecture, preprocess, known.preprocess if known else None, settings, note)
    spec = NetworkSpec.of(architecture, chosen, options)
    weights = adapt_state_dict(content.state_dict, spec, len(labels), note=note)
    if named is None:
        note(f"says that it is of {architecture}")
    served = Served(architecture, weights, labels, chosen)
    if known and known.preprocess == chosen:
        served = replace(served, calibration=known.calibration, out_of_distribution=known.out_of_distribution)
    elif known and (known.calibration or known.out_of_distribution):
        note("left out the temperature and the threshold for strange images: they belong to another preprocess")
    return _published(
        spec, served, source=path.name, sha256=sha256, store=store, name=name, examples=examples, note=note
    )


def import_network(
    network: str,
    *,
    labels: tuple[str, ...],
    store: Path,
    name: str | None = None,
    preprocess: Preprocess | None = None,
    settings: Sequence[str] = (),
    examples: Path | None = None,
    progress: Progress | None = None,
) -> Path:
    """Publishes a network of somebody's own code with the weights that its constructor gives it.

    The arguments are those of `import_weights`. The constructor may read or download the weights.

    Returns: the path of the new version.

    Raises:
        TrainingError: the code, the labels, the preprocess or the name cannot be used, or the constructor draws its
            weights at random.
        OSError: the store cannot be written to.
    """
    architecture = own_code.known(network).architecture
    note = _note(progress, architecture)
    chosen, options = _chosen(architecture, preprocess, None, settings, note)
    spec = NetworkSpec.of(architecture, chosen, options)
    weights, others = (_made(spec, len(labels), seed) for seed in (0, 1))
    if any(not tensor.equal(others[name]) for name, tensor in weights.items()):
        raise TrainingError(f"{architecture} draws its weights at random: name the file that holds trained ones")
    served = Served(architecture, adapt_state_dict(weights, spec, len(labels), note=note), labels, chosen)
    return _published(
        spec, served, source=architecture, sha256=None, store=store, name=name, examples=examples, note=note
    )


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
        NetworkSpec.of(architecture, own.preprocess),
        Served(architecture, own.weights, labels or own.labels or (), own.preprocess),
        own.source,
        sidecar.sha256_of(own.file),
        store=store,
        name=name,
        examples=examples,
        note=_note(progress, architecture),
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


def _note(progress: Progress | None, source: str) -> Callable[[str], None]:
    said = progress or Progress.silent()
    return lambda line: said.say(f"{source}: {line}")


def _named(architecture: str | None, network: str | None) -> str | None:
    """Returns the architecture that the caller names. Raises: TrainingError if it is code that cannot be loaded."""
    if network is None:
        if architecture is not None and is_own_code(architecture):
            raise TrainingError(f"--architecture {architecture}: --network names code of your own")
        return architecture
    if architecture is not None:
        raise TrainingError("--architecture and --network: name one network")
    return own_code.known(network).architecture


def _said(path: Path, architecture: str | None) -> str:
    """Returns the architecture that a file names. Raises: TrainingError if it names none, or somebody's own code."""
    if architecture is None:
        raise TrainingError(f"{path} does not say which network it is of: --architecture is needed, or --network")
    if is_own_code(architecture):
        raise TrainingError(
            f"{path} says that it is of {in_words(architecture)}. Code is run only if you name it: --network, and "
            "where that code lies, e.g. --network my_net.py:Net"
        )
    return architecture


def _chosen(
    architecture: str,
    named: Preprocess | None,
    said: Preprocess | None,
    settings: Sequence[str],
    note: Callable[[str], None],
) -> tuple[Preprocess, dict[str, JsonValue]]:
    """Returns the preprocess, and the values for the network's constructor."""
    of_network = [setting for setting in settings if setting.strip().startswith("network")]
    others = [setting for setting in settings if setting not in of_network]
    own = is_own_code(architecture)
    preprocess = chosen_preprocess(
        "ImageNet" if own else architecture,
        named=named,
        said=said,
        settings=others,
        note=note,
        usual=PHOTO if own else None,
    )
    return preprocess, network_values(of_network)


def _made(spec: NetworkSpec, num_classes: int, seed: int) -> Weights:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return spec.build(num_classes).state_dict()


def agreed(path: Path, said: Mapping[str, tuple[str, ...]], labels: tuple[str, ...] | None) -> tuple[str, ...]:
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
    spec: NetworkSpec,
    served: Served,
    source: str,
    sha256: str | None,
    *,
    store: Path,
    name: str | None,
    examples: Path | None,
    note: Callable[[str], None],
) -> Path:
    name = _name_of(spec.architecture) if name is None else name
    check_name(name)
    pngs = example_pngs(examples, served.preprocess)
    code = spec.code
    if code is None:
        own = served_network(spec, served.weights, len(served.labels))
        return publish_served(served, own, pngs, source=source, sha256=sha256, store=store, name=name)
    if code.file.beside:
        names = listed(path.name for path in code.file.beside.values())
        note(f"imports {names}: the checkpoint holds the text of {code.file.name} alone")
    served = replace(served, code=code.manifest())
    own = _of_own_code(spec, served, pngs, note)
    return publish_served(served, own, pngs, source=source, sha256=sha256, store=store, name=name)


def _name_of(architecture: str) -> str:
    """Returns a name for the model: `my_net-net` for `my_net.py:Net`."""
    plain = architecture.lower().replace(".py:", "-")
    return re.sub(r"[^a-z0-9._-]+", "-", plain).strip("-._")[:64]


def _of_own_code(
    spec: NetworkSpec, served: Served, pngs: tuple[bytes, ...], note: Callable[[str], None]
) -> ServedNetwork:
    """Returns a network of somebody's own as it will be served. What it answers is checked, before and after.

    Raises: TrainingError, which names the line of the code.
    """
    classes = len(served.labels)
    network = spec.build(classes)
    load_weights(network, served.weights, share=False)
    recipe = builtin("photos", "scratch", network=spec.architecture).replace(
        preprocess=served.preprocess.model_dump(), network=dict(spec.options)
    )
    pixels = np.stack([served.preprocess.to_pixels(Image.open(io.BytesIO(png))) for png in (pngs * 2)[:2]])
    images = normalizer(served.preprocess, device=torch.device("cpu"))(torch.from_numpy(pixels))
    check_answers(network.eval(), recipe, images, classes)
    own = served_network(spec, served.weights, classes, images=images)
    for line in own.notes:
        note(line)
    return own


def example_pngs(folder: Path | None, preprocess: Preprocess) -> tuple[bytes, ...]:
    """Returns the images of a reference batch, of a folder or, without one, drawn. Raises: TrainingError."""
    return example_images.drawn(preprocess) if folder is None else example_images.from_folder(folder, preprocess)


def publish_served(
    served: Served,
    own: ServedNetwork,
    pngs: tuple[bytes, ...],
    *,
    source: str,
    sha256: str | None,
    store: Path,
    name: str,
) -> Path:
    """Publishes a network that was trained elsewhere, and returns the path of the new version.

    Args:
        pngs: the images of the reference batch.
        source: the file's name, or another one for where the weights come from.
        sha256: of the file; None: there is none.
        name: the model's name.

    Raises: TrainingError if it cannot be served; OSError.
    """
    try:
        manifest = Manifest(
            model=name,
            architecture=served.architecture,
            labels=served.labels,
            preprocess=served.preprocess,
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
            code=served.code,
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
