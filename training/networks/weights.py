"""Reads weights that were trained elsewhere, without running anything that a file may hold, and adapts them.

It reads safetensors files, and what `torch.save` wrote: a state_dict, or a dictionary with one under "state_dict".
"""

import pickle
import re
import warnings
import zipfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from classifier.checkpoint import Checkpoint, CheckpointError
from classifier.preprocess import Preprocess
from training.errors import TrainingError
from training.networks.heads import head_weights, meta_network

Weights = dict[str, torch.Tensor]

# What DataParallel and torch.compile put into the names; PyTorch's ImageNet example has it in the middle too.
_WRAPPERS = {"module", "_orig_mod"}

# Names from earlier versions of torchvision, which its own files still hold.
_RENAMED = (
    (re.compile(r"(denselayer\d+\.(?:norm|conv))\.([12]\.)"), r"\1\2"),
    (re.compile(r"\.mlp\.linear_1\."), ".mlp.0."),
    (re.compile(r"\.mlp\.linear_2\."), ".mlp.3."),
)
_AUXILIARY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
_COUNTER = ".num_batches_tracked"  # of a norm; files of before 2018 have none
_LOOK_ALIKE = ("alexnet", "alexnet_transfer", "alexnet_finetune")


@dataclass(frozen=True, slots=True)
class Foreign:
    """Holds what a file holds, as far as the file says it.

    Args:
        state_dict: the weights by name, without the prefixes of wrappers.
        labels, preprocess: None unless the file is a checkpoint of ours.
    """

    state_dict: Weights
    architecture: str | None = None
    labels: tuple[str, ...] | None = None
    preprocess: Preprocess | None = None


def read(path: Path) -> Foreign:
    """Reads a file of weights. Raises: TrainingError if it is none, or if only a full unpickling could read it."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
        return _from_safetensors(path) if start[8:] == b"{" else _from_torch(path, _unpickled(path))
    except OSError as error:
        raise TrainingError(f"{path}: {error.strerror or error}") from error


def adapt_state_dict(
    state_dict: Mapping[str, torch.Tensor],
    architecture: str,
    num_classes: int,
    *,
    note: Callable[[str], None] = lambda _: None,
) -> Weights:
    """Returns exactly the weights that the network needs, in its types.

    Names from earlier versions of torchvision are brought up to date, auxiliary heads are left out, and half precision
    is widened.

    Args:
        note: is told what was left out.

    Raises: TrainingError, which names what is missing, unexpected, of another shape or type, or not finite.
    """
    expected = meta_network(architecture, num_classes).state_dict()
    given = {_up_to_date(name, expected): tensor for name, tensor in state_dict.items()}
    auxiliary = [name for name in given if name.startswith(_AUXILIARY.get(architecture, ())) and name not in expected]
    if auxiliary:
        note(f"left out {len(auxiliary)} tensors of auxiliary heads, which only training needs")
    counters = {n: torch.zeros((), dtype=t.dtype, device="cpu") for n, t in expected.items() if n.endswith(_COUNTER)}
    given = counters | {name: tensor for name, tensor in given.items() if name not in auxiliary}
    _check_names(given, expected, architecture)
    _check_shapes(given, expected, architecture, num_classes)
    return {name: _converted(name, given[name], like.dtype) for name, like in expected.items()}


def _from_safetensors(path: Path) -> Foreign:
    try:
        with safetensors.safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
        if metadata.keys() == {"manifest", "sha256"}:
            own = Checkpoint.load(path)
            manifest = own.manifest
            return Foreign(dict(own.network), manifest.architecture, manifest.labels, manifest.preprocess)
        return Foreign(_unwrapped(path, safetensors.torch.load_file(path)))
    except (safetensors.SafetensorError, CheckpointError, ValueError, KeyError) as error:
        raise TrainingError(f"{path} is not a sound safetensors file: {error}") from error


def _unpickled(path: Path) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # of pickle's protocols; an error follows, or all is well
            if zipfile.is_zipfile(path):
                with zipfile.ZipFile(path) as archive:
                    if archive.testzip() is not None:  # torch does not look at the sums
                        raise _no_weights(path)
            return torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, TrainingError):
        raise
    except pickle.UnpicklingError as error:
        foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
        if foreign is None:
            raise _no_weights(path) from error
        raise TrainingError(
            f"{path} is refused: it holds {foreign[1]}, and reading it could run any code that is in the file. If "
            "you trust it, save the weights alone: torch.save({'arch': ..., 'state_dict': network.state_dict()}, FILE)"
        ) from error
    except Exception as error:  # nearly anything, where the file is another one or cut short
        if "TorchScript" in str(error):
            raise TrainingError(f"{path} is a TorchScript archive: save its state_dict() by torch.save") from error
        raise _no_weights(path) from error


def _no_weights(path: Path) -> TrainingError:
    return TrainingError(
        f"{path} is damaged, or not a file of weights: neither torch.save nor safetensors wrote it like this"
    )


def _from_torch(path: Path, content: Any) -> Foreign:
    if not isinstance(content, Mapping) or not content:
        raise TrainingError(f"{path} holds no state_dict: it holds {_in_words(content)}")
    inner = content.get("state_dict")
    if not isinstance(inner, Mapping):
        return Foreign(_unwrapped(path, content))
    architecture = content.get("arch")
    return Foreign(_unwrapped(path, inner), architecture if isinstance(architecture, str) else None)


def _unwrapped(path: Path, state_dict: Mapping[Any, Any]) -> Weights:
    """The state_dict with the names that it has without wrappers."""
    odd = [name for name, value in state_dict.items() if not (isinstance(name, str) and _is_plain(value))]
    if odd or not state_dict:
        what = f"{odd[0]!r} is {_in_words(state_dict[odd[0]])}" if odd else "it is empty"
        raise TrainingError(f"{path} holds no state_dict of tensors, nor one under 'state_dict': {what}")
    names = [".".join(part for part in name.split(".") if part not in _WRAPPERS) for name in state_dict]
    if len(set(names)) < len(names):
        raise TrainingError(f"{path} holds two sets of weights, with and without the prefix module. or _orig_mod.")
    return dict(zip(names, state_dict.values(), strict=True))


def _is_plain(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_meta


def _in_words(value: Any) -> str:
    if isinstance(value, torch.Tensor):
        return f"a tensor of {list(value.shape)}, {value.layout} on {value.device}"
    return f"{type(value).__name__} {' '.join(repr(value).split())[:60]}"


def _up_to_date(name: str, expected: Mapping[str, torch.Tensor]) -> str:
    for pattern, replacement in _RENAMED:
        renamed = pattern.sub(replacement, name)
        if name not in expected and renamed in expected:
            return renamed
    return name


def _check_names(given: Weights, expected: Weights, architecture: str) -> None:
    missing, unexpected = sorted(expected.keys() - given.keys()), sorted(given.keys() - expected.keys())
    if not missing and not unexpected:
        return
    others = [name for name in _LOOK_ALIKE if meta_network(name, 2).state_dict().keys() == given.keys()]
    hint = f"; they have the names of {others[0]}'s: --architecture {others[0]}" if others else ""
    differences = [_listed(what, names) for what, names in (("missing", missing), ("unexpected", unexpected)) if names]
    raise TrainingError(f"the weights do not fit {architecture}: {'; '.join(differences)}{hint}")


def _listed(what: str, names: list[str]) -> str:
    return f"{len(names)} {what}: {', '.join(map(repr, names[:5]))}{', …' if len(names) > 5 else ''}"


def _check_shapes(given: Weights, expected: Weights, architecture: str, num_classes: int) -> None:
    wrong = [name for name, like in expected.items() if given[name].shape != like.shape]
    if not wrong:
        return
    classes = _classes([given[name] for name in wrong], [expected[name] for name in wrong])
    if classes is not None and set(wrong) == head_weights(architecture):
        raise TrainingError(f"the network in the file has {classes} classes, {num_classes} labels were given")
    name = wrong[0]
    raise TrainingError(
        f"the weights do not fit {architecture}: {len(wrong)} of another shape, such as {name}, "
        f"which is {list(given[name].shape)} where {list(expected[name].shape)} is needed"
    )


def _classes(given: Iterable[torch.Tensor], expected: Iterable[torch.Tensor]) -> int | None:
    """Returns the given length of the first dimension, if only that differs, and in all tensors alike; else None."""
    lengths = {
        len(theirs) if theirs.shape[1:] == like.shape[1:] and theirs.dim() == like.dim() else None
        for theirs, like in zip(given, expected, strict=True)
    }
    return lengths.pop() if len(lengths) == 1 else None


def _converted(name: str, tensor: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    if tensor.is_floating_point() != dtype.is_floating_point:
        raise TrainingError(f"{name} holds {tensor.dtype} where {dtype} is needed")
    converted = tensor.detach().to(dtype)
    if dtype.is_floating_point and not bool(torch.isfinite(converted).all()):
        raise TrainingError(f"{name} holds values that are not finite")
    return converted
