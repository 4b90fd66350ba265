"""Gets pretrained weights of torchvision's and timm's, with the preprocessing and the labels that belong to them.

Those of timm are fetched by `timm_weights`. torchvision downloads its own into torch's hub cache, and checks their
hash; what already lies there is used. The cache is `~/.cache/torch/hub/checkpoints`, unless TORCH_HOME says otherwise.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from classifier.preprocess import Preprocess
from classifier.torchvision_parts import torchvision_part
from training.errors import TrainingError, shortened
from training.networks import timm_networks, timm_weights
from training.networks.spec import NetworkSpec
from training.networks.weights import Weights, adapt_state_dict

# For each built-in network the one whose weights it begins with; None: torchvision has none for it.
_SOURCES = {"mnist_cnn": None, "alexnet_transfer": "alexnet", "alexnet_finetune": "alexnet"}


@dataclass(frozen=True, slots=True)
class Pretrained:
    """Holds weights of torchvision's or timm's, and all that belongs to them.

    Args:
        library: `torchvision` or `timm`.
        name: the library's name of them, such as `ResNet50_Weights.IMAGENET1K_V2` or `resnet18.a1_in1k`.
        architecture: of the weights; for AlexNet with another head it is `alexnet`.
        labels: the classes of ImageNet, as the library calls them; None: the classes are others, or there is no head.
        file: where the weights lie in the cache.
    """

    library: str
    name: str
    architecture: str
    weights: Weights
    labels: tuple[str, ...] | None
    preprocess: Preprocess
    file: Path

    @property
    def source(self) -> str:
        """The library and its name of the weights."""
        return f"{self.library} {self.name}"


def pretrained(spec: NetworkSpec, *, progress: bool = False) -> Pretrained:
    """Returns the pretrained weights for this network, or for the network whose features it begins with.

    Args:
        progress: a download is shown on stderr.

    Raises:
        TrainingError: there are no such weights, or they are not in the cache and cannot be downloaded.
        TorchvisionError: torchvision cannot be imported.
    """
    if spec.is_timm:
        return _of_timm(spec, progress=progress)
    source = source_of(spec.architecture)
    if source is None:
        raise TrainingError(f"torchvision has no weights for {spec}: start from a checkpoint of your own (--from)")
    best = _best(source)
    labels = tuple(best.meta["categories"])
    return Pretrained(
        library="torchvision",
        name=str(best),
        architecture=source,
        weights=adapt_state_dict(_downloaded(best, progress=progress), NetworkSpec(source), len(labels)),
        labels=labels,
        preprocess=as_preprocess(best.transforms()),
        file=_in_cache(best),
    )


def source_of(architecture: str) -> str | None:
    """Returns the architecture of the weights that `pretrained` gives: this one, or the one whose features it has.

    None: torchvision has no weights for it.
    """
    return _SOURCES.get(architecture, architecture)


def preprocess_of(architecture: str) -> Preprocess | None:
    """Returns how pretrained weights for this architecture want their images. It downloads nothing.

    None: torchvision has no weights for it.

    Raises: TrainingError if the architecture is not known; TorchvisionError.
    """
    if timm_networks.is_timm(architecture):
        return timm_networks.preprocess_of(architecture)
    source = source_of(architecture)
    return None if source is None else as_preprocess(_best(source).transforms())


def as_preprocess(transform: Any) -> Preprocess:
    """Returns torchvision's preset `ImageClassification` as data, which makes the same pixels of an image."""
    (resize,), (crop,) = transform.resize_size, transform.crop_size
    return Preprocess(
        mode="RGB",
        resize=resize,
        crop=(crop, crop),
        mean=tuple(transform.mean),
        std=tuple(transform.std),
        interpolation=transform.interpolation.value,
    )


def _of_timm(spec: NetworkSpec, *, progress: bool) -> Pretrained:
    """Returns timm's weights, adapted to the size and the channels of the images that the spec names."""
    timm_networks.check(spec.architecture, spec.options)
    name, classes = timm_weights.tag_of(spec.architecture), timm_weights.classes_of(spec.architecture)
    file = timm_weights.file_of(spec.architecture, progress=progress)
    network = timm_weights.network_of(spec.architecture, classes, spec.shape, spec.options, file)
    return Pretrained(
        library="timm",
        name=name,
        architecture=spec.architecture,
        weights={key: tensor.detach() for key, tensor in network.state_dict().items()},
        labels=timm_weights.labels_of(spec.architecture),
        preprocess=timm_networks.preprocess_of(spec.architecture),
        file=file,
    )


def _best(architecture: str) -> Any:
    """Returns torchvision's default weights, an enum member with `url`, `meta`, `transforms` and `get_state_dict`."""
    NetworkSpec(architecture).check()
    every = torchvision_part("models").get_model_weights(architecture)
    # Vision transformers have a position for each patch of 224x224 pixels: the weights for larger images do not fit.
    patches = architecture.startswith("vit_")
    return next(w for w in (every.DEFAULT, *every) if not patches or w.meta["min_size"] == (224, 224))


def _in_cache(weights: Any) -> Path:
    return Path(torch.hub.get_dir(), "checkpoints", weights.url.rsplit("/", 1)[1])


def _downloaded(weights: Any, *, progress: bool) -> Weights:
    path = _in_cache(weights)
    try:
        state_dict: Weights = weights.get_state_dict(
            progress=progress, check_hash=True, map_location="cpu", weights_only=True
        )
    except Exception as error:  # a download may fail in as many ways as the reading of a damaged file
        reason = shortened(str(getattr(error, "reason", error))) or type(error).__name__
        if path.exists():
            raise TrainingError(
                f"{path} cannot be read: {reason}; remove it, and it will be downloaded again"
            ) from error
        raise TrainingError(
            f"{weights.url} cannot be downloaded: {reason}; "
            f"put {path.name} into {path.parent}, or start from a checkpoint of your own (--from)"
        ) from error
    return state_dict
