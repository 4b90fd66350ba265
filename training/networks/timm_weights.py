"""Gets the pretrained weights of timm's networks: safetensors files alone, and nothing that would have to be unpickled.

A file is looked for as `<tag>.safetensors` in `~/.cache/torch/hub/checkpoints` (TORCH_HOME says otherwise), where one
may be put by hand; then in the cache of the Hugging Face hub; then it is downloaded into that.
"""

import importlib
import os
from collections import Counter
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch
from torch import nn

from training.errors import TrainingError, one_line
from training.networks import timm_networks

_TIMEOUT = 10.0  # seconds, until the hub has to answer
_FILE = "model.safetensors"


def tag_of(architecture: str) -> str:
    """Returns timm's name of the weights that this network begins with, such as `resnet18.a1_in1k`.

    Raises: TrainingError if timm has none for it, or none as safetensors.
    """
    config = timm_networks.configuration(architecture)
    if not config.has_weights:
        raise TrainingError(
            f"timm has no pretrained weights for {architecture}: train it by --recipe scratch:{architecture}, "
            "or start from a checkpoint of your own (--from)"
        )
    if not config.hf_hub_id or (config.hf_hub_filename or _FILE) not in (_FILE, "pytorch_model.bin"):
        raise TrainingError(
            f"timm has the weights of {architecture} as a pickle only, at {config.url or config.hf_hub_id}: fetch it, "
            f"and import --architecture {architecture} FILE reads what is safe in it"
        )
    name = timm_networks.name_of(architecture)
    return name if "." in name or not config.tag else f"{name}.{config.tag}"


def classes_of(architecture: str) -> int:
    """Returns how many classes the pretrained weights tell apart; 0: they have no head.

    Raises: TrainingError if there is no such network.
    """
    return int(timm_networks.configuration(architecture).num_classes)


def labels_of(architecture: str) -> tuple[str, ...] | None:
    """Returns what ImageNet calls the classes of the pretrained weights; None: they are not those of ImageNet.

    Where two classes have the same words, each gets its number in WordNet as well.

    Raises: TrainingError if there is no such network.
    """
    config = timm_networks.configuration(architecture)
    data = importlib.import_module("timm.data")
    subset = data.infer_imagenet_subset(config.to_dict())
    if subset is None:
        return None
    known = data.ImageNetInfo(subset)
    words = known.label_descriptions()
    often = Counter(words)
    return tuple(
        word if often[word] == 1 else f"{word} ({number})"
        for word, number in zip(words, known.label_names(), strict=True)
    )


def file_of(architecture: str, *, progress: bool = False) -> Path:
    """Returns where the file of the weights lies. It is downloaded if it has to be.

    Args:
        progress: a download is shown on stderr.

    Raises: TrainingError, which says which file to put where.
    """
    tag = tag_of(architecture)
    hub_id, _, revision = timm_networks.configuration(architecture).hf_hub_id.partition("@")
    by_hand = Path(torch.hub.get_dir(), "checkpoints", f"{tag}.safetensors")
    if by_hand.exists():
        return by_hand
    try:
        hub = importlib.import_module("huggingface_hub")
        cached = hub.try_to_load_from_cache(hub_id, _FILE, revision=revision or None)
        return Path(cached) if isinstance(cached, str) else _downloaded(hub, hub_id, revision or None, progress)
    except Exception as error:  # a download may fail in many ways
        raise TrainingError(
            f"the weights {tag} cannot be downloaded: {one_line(error)}; fetch {_FILE} of {hub_id} from the Hugging "
            f"Face hub and put it at {by_hand}, or start from a checkpoint of your own (--from)"
        ) from error


def network_of(
    architecture: str, num_classes: int, shape: tuple[int, int, int], options: timm_networks.Options, file: Path
) -> nn.Module:
    """Returns the network with its pretrained weights, which timm itself adapts to the shape of the images.

    Args:
        num_classes: as many as the weights tell apart.

    Raises: TrainingError if the file is damaged, or the weights are of another network.
    """
    try:
        weights = safetensors.torch.load_file(file)
    except (safetensors.SafetensorError, OSError) as error:
        raise TrainingError(f"{file} cannot be read: {error}; remove it, and it will be downloaded again") from error
    try:
        # Where `file` or a place on the hub is not named, timm reads the state_dict that it is given.
        overlay = {"state_dict": weights}
        with torch.random.fork_rng(devices=[]):
            return timm_networks.create(
                architecture, num_classes, shape, options, pretrained=True, pretrained_cfg_overlay=overlay
            )
    except TrainingError as error:
        raise TrainingError(f"{file}: {error}") from error


def _downloaded(hub: Any, hub_id: str, revision: str | None, progress: bool) -> Path:
    # The hub's own client would ask for minutes, again and again: it is asked once whether it is there at all.
    hub.get_hf_file_metadata(hub.hf_hub_url(hub_id, _FILE, revision=revision), timeout=_TIMEOUT)
    before = os.environ.get("HF_HUB_DISABLE_PROGRESS_BARS")
    tools = importlib.import_module("huggingface_hub.utils")
    shown = not tools.are_progress_bars_disabled()
    try:
        if not progress and before is None:
            tools.disable_progress_bars()
        return Path(hub.hf_hub_download(hub_id, _FILE, revision=revision, etag_timeout=_TIMEOUT))
    finally:
        if shown and before is None:
            tools.enable_progress_bars()
