"""Publishes pretrained weights of torchvision's or timm's."""

from pathlib import Path

from classifier.progress import Progress
from training.commands.imported import Served, note_to, publish_network
from training.errors import TrainingError
from training.networks import timm_networks, timm_weights
from training.networks.pretrained import pretrained, source_of
from training.networks.spec import NetworkSpec
from training.publishing import sidecar
from training.publishing.publish import Address


def import_pretrained(
    architecture: str,
    *,
    labels: tuple[str, ...] | None = None,
    store: Address,
    name: str | None = None,
    examples: Path | None = None,
    progress: Progress | None = None,
) -> Address:
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
    return publish_network(
        NetworkSpec.of(architecture, own.preprocess),
        Served(architecture, own.weights, labels or own.labels or (), own.preprocess),
        own.source,
        sidecar.sha256_of(own.file),
        store=store,
        name=name,
        examples=examples,
        note=note_to(progress, architecture),
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
