"""Makes networks of timm: `timm/<name>`, where the name may have a tag, such as `timm/resnet18.a1_in1k`.

The tag says which of timm's weights are meant, and so how images are prepared; without one, timm's first is meant. timm
is imported by nobody else but `timm_weights`, and only once such a network is asked for.
"""

import difflib
import importlib
import math
from functools import cache
from typing import Any

import torch
from pydantic import JsonValue
from torch import nn

from classifier.preprocess import Preprocess
from training.errors import TrainingError, one_line

PREFIX = "timm/"

Options = tuple[tuple[str, JsonValue], ...]

# Keywords of timm's `create_model` that are no person's to give, with what decides them.
_DECIDED = {
    "num_classes": "the data and the preprocess decide it",
    "in_chans": "the data and the preprocess decide it",
    **dict.fromkeys(
        ("pretrained", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path", "cache_dir"),
        "the recipe and the name decide which weights the network begins with",
    ),
    "features_only": "a classifier is trained, and that is none",
}


def is_timm(architecture: str) -> bool:
    """Whether a network of timm is meant; `timm/my_net.py:Net` is a file of a person's own."""
    return architecture.startswith(PREFIX) and ":" not in architecture


def check(architecture: str, options: Options = ()) -> None:
    """Checks that timm makes such a network, that it is a classifier, and that the options are a person's to give.

    Raises: TrainingError if not, or if timm cannot be imported.
    """
    for name, _ in options:
        if name in _DECIDED:
            raise TrainingError(f"network.{name}: {_DECIDED[name]}; set other values only")
    _head_tensors(architecture)


def build(architecture: str, num_classes: int, shape: tuple[int, int, int], options: Options = ()) -> nn.Module:
    """Returns the network with fresh weights, by torch's own random numbers.

    Args:
        shape: of an image as the network takes it: (channels, height, width). Networks that are made for one size get
            it as `img_size`.
        options: more keywords of timm's `create_model`, with their values.

    Raises: TrainingError if there is none such, or none for this shape.
    """
    check(architecture, options)
    return create(architecture, num_classes, shape, options)


def meta(architecture: str, num_classes: int, shape: tuple[int, int, int], options: Options = ()) -> nn.Module:
    """Returns what `build` returns, with names, types and shapes, but without values. It draws no random number.

    Raises: TrainingError if there is none such, or none for this shape.
    """
    check(architecture, options)
    return _meta(architecture, num_classes, shape, options)


def preprocess_of(architecture: str) -> Preprocess:
    """Returns how timm prepares images for this network, as data which makes the same pixels of an image.

    Raises: TrainingError if there is no such network, or if timm does with its images what cannot be said here.
    """
    config = configuration(architecture)
    channels, height, width = config.input_size
    scaled = math.floor(height / config.crop_pct), math.floor(width / config.crop_pct)
    if config.crop_mode not in ("center", "squash") or (config.crop_mode == "center" and height != width):
        raise TrainingError(
            f"{architecture}: timm prepares its images of {height}x{width} by the crop mode {config.crop_mode}, "
            "which the server cannot do: use another network"
        )
    if config.interpolation not in ("bilinear", "bicubic") or channels != 3:
        raise TrainingError(
            f"{architecture}: timm prepares its images with {channels} channels and interpolation "
            f"{config.interpolation}, which the server cannot do: use another network"
        )
    return Preprocess(
        mode="RGB",
        resize=scaled if config.crop_mode == "squash" else scaled[0],
        crop=(height, width),
        mean=tuple(config.mean),
        std=tuple(config.std),
        interpolation=config.interpolation,
    )


def without_tag(architecture: str) -> str:
    """Returns the architecture without timm's tag of its weights: two that then are equal have the same tensors."""
    return architecture.partition(".")[0] if is_timm(architecture) else architecture


def configuration(architecture: str) -> Any:
    """Returns timm's configuration of the network's weights, a `PretrainedCfg`.

    Raises: TrainingError if there is no such network.
    """
    name = name_of(architecture)
    found = library().get_pretrained_cfg(name)
    return importlib.import_module("timm.models").PretrainedCfg() if found is None else found


def name_of(architecture: str) -> str:
    """Returns timm's own name of the network, with its tag if one was given.

    Raises: TrainingError if timm has no such network, which names those of similar names.
    """
    timm = library()
    name = architecture.removeprefix(PREFIX)
    plain, dot, tag = name.partition(".")
    known = timm.list_models()
    if plain not in known:
        raise TrainingError(f"timm {timm.__version__} has no network {plain!r}: {_hint(plain, known)}")
    tags = [
        each.partition(".")[2] for each in timm.list_models(plain, include_tags=True) if each.startswith(plain + ".")
    ]
    if dot and tag not in tags:
        raise TrainingError(
            f"timm {timm.__version__} has no weights {tag!r} of {plain}: it has {', '.join(tags) or 'none'}"
        )
    return name


def create(
    architecture: str, num_classes: int, shape: tuple[int, int, int], options: Options, **more: Any
) -> nn.Module:
    """Calls timm's `create_model`.

    Args:
        more: keywords that are no option of the network, such as `pretrained`.

    Raises: TrainingError, which says why timm makes no such network.
    """
    timm, name = library(), name_of(architecture)
    channels, height, width = shape
    own = configuration(architecture).input_size
    arguments: dict[str, Any] = {"num_classes": num_classes, **more, **dict(options)}
    if channels != own[0]:
        arguments["in_chans"] = channels
    size = {} if (height, width) == tuple(own[1:]) else {"img_size": height if height == width else (height, width)}
    try:
        try:
            network: nn.Module = timm.create_model(name, **(size | arguments))
        except TypeError as error:
            if "img_size" in arguments or "img_size" not in str(error):
                raise
            network = timm.create_model(name, **arguments)  # it takes images of any size
    except Exception as error:  # nearly anything, by a network of somebody else's
        raise TrainingError(
            f"timm cannot make {name} for images of {height}x{width}x{channels}: {one_line(error)}"
        ) from error
    return network


def library() -> Any:
    """Returns timm. Raises: TrainingError, which says how to install it."""
    try:
        return importlib.import_module("timm")
    except ImportError as error:
        reason = "is not installed" if error.name == "timm" else f"cannot be imported ({error})"
        raise TrainingError(f"timm {reason}: pip install 'flambeau[timm]'") from error


def _hint(name: str, known: list[str]) -> str:
    now = importlib.import_module("timm.models").get_deprecated_models().get(name)
    if now is not None:
        return f"it is called {PREFIX}{now} now"
    near = difflib.get_close_matches(name, known, n=3)
    return f"did you mean {' or '.join(PREFIX + each for each in near)}?" if near else "timm.list_models() has all"


@cache
def _head_tensors(architecture: str) -> frozenset[str]:
    config = configuration(architecture)
    two, three = (_meta(architecture, classes, tuple(config.input_size), ()).state_dict() for classes in (2, 3))
    found = frozenset(name for name in two if name in three and two[name].shape != three[name].shape)
    if not found:
        raise TrainingError(f"{architecture} is no classifier: nothing in it depends on how many classes there are")
    return found


def _meta(architecture: str, num_classes: int, shape: tuple[int, int, int], options: Options) -> nn.Module:
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        return create(architecture, num_classes, shape, options)
