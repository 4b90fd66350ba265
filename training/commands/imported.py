"""Publishes a network that was trained elsewhere: what all ways to import one share."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from pydantic import JsonValue

from classifier.architectures import load_weights
from classifier.checkpoint import Checkpoint, CheckpointError
from classifier.manifest import Calibration, Code, Imported, Manifest, OutOfDistribution
from classifier.preprocess import Preprocess
from classifier.progress import Progress
from training.commands.preprocess_choice import chosen_preprocess
from training.data.folder_names import composed
from training.errors import TrainingError
from training.networks.code_files import is_own_code
from training.networks.image_size import SIZE_ERRORS, cannot_take
from training.networks.served import ServedNetwork, served_network
from training.networks.spec import NetworkSpec
from training.networks.timm_networks import PREFIX
from training.networks.weights import Weights
from training.networks.words import listed
from training.publishing import example_images
from training.publishing.provenance import library_versions
from training.publishing.publish import Address, check_name, publish
from training.publishing.reference import images_of, reference
from training.publishing.sidecar import Sidecar
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

    def with_measured(self, known: Sidecar, note: Callable[[str], None]) -> "Served":
        """Returns it with the temperature and the threshold for strange images that were measured, if they still hold.

        Args:
            known: what is known of the weights.
            note: is told if something was left out.
        """
        if known.preprocess == self.preprocess:
            return replace(self, calibration=known.calibration, out_of_distribution=known.out_of_distribution)
        if known.calibration or known.out_of_distribution:
            note("left out the temperature and the threshold for strange images: they belong to another preprocess")
        return self


def note_to(progress: Progress | None, source: str) -> Callable[[str], None]:
    """Returns what tells the progress a line about a source."""
    said = progress or Progress.silent()
    return lambda line: said.say(f"{source}: {line}")


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


def prepared(
    architecture: str,
    named: Preprocess | None,
    said: Preprocess | None,
    settings: Sequence[str],
    note: Callable[[str], None],
) -> tuple[Preprocess, dict[str, JsonValue]]:
    """Returns the preprocess, and the values for the network's constructor.

    Args:
        named: what the person named as a whole.
        said: what the file, or what lies beside it, says.
        settings: changes of the form `preprocess.key=value` or `network.key=value`.
        note: is told what was guessed.

    Raises: TrainingError if a setting makes no sense.
    """
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


def publish_network(
    spec: NetworkSpec,
    served: Served,
    source: str,
    sha256: str | None,
    *,
    store: Address,
    name: str | None,
    examples: Path | None,
    note: Callable[[str], None],
) -> Address:
    """Publishes a network that can be made here, and returns the path of the new version.

    Args:
        source: the file's name, or another one for where the weights come from.
        sha256: of the file; None: there is none.
        name: the model's name; None: it is called as its architecture is.
        examples: a folder of images for the reference batch; None: pictures are drawn.
        note: is told what was changed.

    Raises: TrainingError if it cannot be served, or gives no logits; OSError.
    """
    name = _name_of(spec) if name is None else name
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


def publish_served(
    served: Served,
    own: ServedNetwork,
    pngs: tuple[bytes, ...],
    *,
    source: str,
    sha256: str | None,
    store: Address,
    name: str,
) -> Address:
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
            format=own.format,
            program=own.info,
            code=served.code,
        )
        return publish(_proved(manifest, own, pngs), store)
    except CheckpointError as error:
        raise TrainingError(f"{source}: {error}") from error


def example_pngs(folder: Path | None, preprocess: Preprocess) -> tuple[bytes, ...]:
    """Returns the images of a reference batch, of a folder or, without one, drawn. Raises: TrainingError."""
    return example_images.drawn(preprocess) if folder is None else example_images.from_folder(folder, preprocess)


def _name_of(spec: NetworkSpec) -> str:
    """Returns a name for the model: `my_net-net` for `my_net.py:Net`, `resnet18.a1_in1k` for timm's of that name."""
    plain = spec.architecture.removeprefix(PREFIX if spec.is_timm else "").lower().replace(".py:", "-")
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
    images = images_of((pngs * 2)[:2], served.preprocess)
    check_answers(network.eval(), spec, served.preprocess, images, classes)
    own = served_network(spec, served.weights, classes, images=images)
    for line in own.notes:
        note(line)
    return own


def _proved(manifest: Manifest, own: ServedNetwork, pngs: tuple[bytes, ...]) -> Checkpoint:
    try:
        proof = reference(own.network, pngs, manifest.preprocess)
    except SIZE_ERRORS as error:
        raise cannot_take(manifest.architecture, manifest.preprocess, error) from error
    return own.checkpoint(manifest, proof)
