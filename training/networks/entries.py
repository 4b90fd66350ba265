"""Finds the weights in what `torch.save` wrote, and what else such a file says of them.

Scripts save a dictionary with the weights under one of a few usual keys, or one level deeper.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from classifier.architectures import known
from training.errors import TrainingError
from training.networks.labels import LabelError, labels_of
from training.networks.stand_ins import Array, StandIn
from training.networks.weights import bare_name, is_averaged
from training.networks.words import in_words, listed

_USUAL = {
    *("state_dict", "model_state_dict", "model_state", "model", "net", "net_state_dict", "network"),
    *("network_state_dict", "weights", "model_weights", "params", "module"),
}
_LONGEST = 100  # characters of an architecture's name
_SETTINGS = (
    *("args", "hyper_parameters", "datamodule_hyper_parameters", "hparams"),
    *("config", "cfg", "opt", "opts", "meta"),
)
_ARCHITECTURE = ("architecture", "model", "model_name", "arch")
_LABELS = (
    *("class_to_idx", "label2id", "label_to_idx", "idx_to_class", "id2label", "idx_to_label"),
    *("classes", "CLASSES", "class_names", "labels", "label_names", "categories"),
)


@dataclass(frozen=True, slots=True)
class Entry:
    """Holds one set of weights of a file.

    Args:
        weights: the entry as it is in the file.
        path: the keys that lead to it, one or two; none: it is the whole file.
        notes: what was taken and what was left out, in words.
    """

    weights: Mapping[Any, Any]
    path: tuple[str, ...]
    notes: tuple[str, ...]


def plain(content: Mapping[Any, Any]) -> dict[Any, Any]:
    """Returns the items alone: a file may have given the dictionary attributes that hide its methods."""
    return dict(dict.items(content)) if isinstance(content, dict) else dict(content)


def find(content: Mapping[Any, Any], wanted: str | None) -> Entry:
    """Returns the entry that holds the weights.

    Args:
        wanted: its key; None: the only one under a usual key. Running means are taken only if there is nothing else.

    Raises: TrainingError if it is not there, or if it is not certain which one is meant.
    """
    sets = {".".join(path): path for path in _sets(content)}
    if wanted is not None:
        return _taken(content, sets, wanted) if wanted in sets else _inside(content, sets, wanted)
    keys = [key for key in sets if key in _USUAL]
    keys = keys or [key for key, path in sets.items() if path[-1] in _USUAL and not is_averaged(key)]
    candidates = keys or [key for key in sets if is_averaged(key)]
    if len(candidates) == 1:
        return _taken(content, sets, candidates[0])
    if candidates:
        raise TrainingError(f"several sets of weights, under {listed(candidates)}: choose by --weights KEY")
    if sets and not _is_set(content):
        raise TrainingError(f"no weights under a usual key, but tensors under {listed(sets)}: choose by --weights KEY")
    return Entry(content, (), ())


def state_dict_of(entry: Entry) -> dict[str, torch.Tensor]:
    """Returns the weights as tensors by name. Raises: TrainingError, which names what is no tensor."""
    weights = {name: _as_tensor(value) for name, value in plain(entry.weights).items()}
    odd = [name for name, value in weights.items() if not (isinstance(name, str) and _is_dense(value))]
    if odd or not weights:
        what = f"{odd[0]!r} is {in_words(weights[odd[0]])}" if odd else "it is empty"
        where = f"under {'.'.join(entry.path)!r}" if entry.path else "nor one under a usual key such as 'state_dict'"
        raise TrainingError(f"it holds no state_dict of tensors, {where}: {what}")
    return weights


def architecture_of(content: Mapping[Any, Any], path: tuple[str, ...]) -> str | None:
    """Returns the name of the network that a file says it is of.

    That is what the ImageNet example saves as "arch", or the one name of a known network among its settings.

    Raises: TorchvisionError if torchvision cannot be imported.
    """
    places = [place for _, place in _places(content, path)]
    said = [arch for place in places if isinstance(arch := place.get("arch"), str) and len(arch) < _LONGEST]
    if said:
        return str(said[0])
    names = {place[key] for place in places for key in _ARCHITECTURE if isinstance(place.get(key), str)}
    names &= set(known()) if names else set()
    return str(names.pop()) if len(names) == 1 else None


def labels_in(content: Mapping[Any, Any], path: tuple[str, ...]) -> tuple[dict[str, tuple[str, ...]], list[str]]:
    """Returns the labels by class index under the key of each entry that holds some, and what cannot be used."""
    found: dict[str, tuple[str, ...]] = {}
    notes: list[str] = []
    for name, value in _label_entries(content, path):
        try:
            found[name] = labels_of(value)
        except LabelError as error:
            notes.append(f"its {name} cannot be used: {error}")
    return found, notes


def _label_entries(content: Mapping[Any, Any], path: tuple[str, ...]) -> Iterator[tuple[str, Any]]:
    for prefix, place in _places(content, path):
        for name in _LABELS:
            value = place.get(name)
            value = value.values.tolist() if isinstance(value, Array) and value.values is not None else value
            if isinstance(value, dict) and value and not _is_set(value):
                yield f"{prefix}{name}", plain(value)
            elif isinstance(value, list | tuple) and value and all(isinstance(label, str) for label in value):
                yield f"{prefix}{name}", value


def _places(content: Mapping[Any, Any], path: tuple[str, ...]) -> Iterator[tuple[str, dict[Any, Any]]]:
    """Gives the dictionaries that may say something of the weights at this path, each with the prefix of its keys."""
    top = plain(content)
    holders = [("", top), *((f"{outer}.", plain(top[outer])) for outer in path[:-1])]
    for prefix, holder in holders:
        yield prefix, holder
        for name in _SETTINGS:
            value = holder.get(name)
            value = value.fields if isinstance(value, StandIn) else value
            if isinstance(value, dict):
                yield f"{prefix}{name}.", plain(value)


def _sets(content: Mapping[Any, Any]) -> Iterator[tuple[str, ...]]:
    """Gives the paths to the dictionaries of tensors in a file: of the first level, or one level deeper."""
    for key, value in plain(content).items():
        if isinstance(key, str) and isinstance(value, dict):
            if _is_set(value):
                yield (key,)
            else:
                yield from (
                    (key, inner)
                    for inner, deeper in plain(value).items()
                    if isinstance(inner, str) and isinstance(deeper, dict) and _is_set(deeper)
                )


def _is_set(value: Mapping[Any, Any]) -> bool:
    """Tells whether a dictionary holds a tensor of 2 dimensions, as each network has one."""
    tensors = (_as_tensor(each) for each in plain(value).values())
    return any(isinstance(tensor, torch.Tensor) and tensor.dim() > 1 for tensor in tensors)


def _as_tensor(value: Any) -> Any:
    """Returns a tensor of the same memory for an array of numbers, and anything else as it is."""
    is_numbers = isinstance(value, Array) and value.values is not None and value.values.dtype.kind in "biuf"
    return torch.from_numpy(value.values) if is_numbers else value


def _is_dense(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_meta


def _at(content: Mapping[Any, Any], path: tuple[str, ...]) -> Mapping[Any, Any]:
    for key in path:
        content = plain(content)[key]
    return content


def _taken(content: Mapping[Any, Any], sets: Mapping[str, tuple[str, ...]], key: str) -> Entry:
    path = sets[key]
    rest = [name for name in plain(content) if name not in (path[0], "arch", *_LABELS)]
    rest += [f"{path[0]}.{name}" for name in plain(_at(content, path[:1])) if name != path[1]] if path[1:] else []
    of_mean = ", which are a running mean" if is_averaged(key) else ""
    notes = [f"took the weights under {key!r}{of_mean}" + (f"; left out {listed(rest, most=8)}" if rest else "")]
    others = [name for name in sets if is_averaged(name) and name != key]
    if others:
        notes.append(f"it holds a running mean of the weights, too: --weights {others[0]} takes that")
    return Entry(_at(content, path), path, tuple(notes))


def _inside(content: Mapping[Any, Any], sets: Mapping[str, tuple[str, ...]], wanted: str) -> Entry:
    """Takes the weights with a prefix: Lightning keeps a network and its running mean side by side in one set."""
    prefix = f"{bare_name(wanted.removesuffix('.'))}."
    for path in sets.values() or [()]:
        every = {bare_name(name): value for name, value in plain(_at(content, path)).items() if isinstance(name, str)}
        chosen = {name.removeprefix(prefix): value for name, value in every.items() if name.startswith(prefix)}
        if chosen:
            return Entry(chosen, path, (f"took the {len(chosen)} of {len(every)} weights under {prefix!r}",))
    there = f"weights are under {listed(sets)}" if sets else f"its entries are {listed(plain(content))}"
    raise TrainingError(f"no weights under --weights {wanted!r}: {there}")
