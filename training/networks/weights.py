"""Adapts weights that were trained elsewhere to the names and types of a network."""

import re
from collections.abc import Callable, Iterable, Mapping

import torch

from training.errors import TrainingError
from training.networks.heads import head_weights
from training.networks.spec import NetworkSpec
from training.networks.words import listed

Weights = dict[str, torch.Tensor]

# Such as model_ema, ema.module, state_dict_ema, modelEMA.
_AVERAGED = re.compile(
    r"(?:^|[._])(?i:ema|swa|avg|average|averaged|polyak|shadow)(?:[._]|$)|[a-z](?:EMA|SWA)(?:[._]|$)"
)

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
# What trainers keep beside a network without a prefix: a loss, a metric, the counter of AveragedModel.
_BESIDE = re.compile(
    r"n_averaged|(?:(?:train|val|valid|test)_)?"
    r"(?:criterion|loss|losses|loss_fn|loss_func|loss_function|acc|accuracy|f1|metric|metrics)\..*"
)


def is_averaged(name: str) -> bool:
    """Tells whether a key or a prefix is one that running means of weights have."""
    return _AVERAGED.search(name) is not None


def bare_name(name: str) -> str:
    """Returns the name of a weight without what DataParallel and torch.compile put into it."""
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def without_wrappers(state_dict: Mapping[str, torch.Tensor]) -> Weights:
    """Returns the weights by the names that they have without DataParallel and torch.compile.

    Raises: TrainingError if two would then have the same name.
    """
    names = [bare_name(name) for name in state_dict]
    if len(set(names)) < len(names):
        raise TrainingError("it holds two sets of weights, with and without the prefix module. or _orig_mod.")
    return dict(zip(names, state_dict.values(), strict=True))


def adapt_state_dict(
    state_dict: Mapping[str, torch.Tensor],
    spec: NetworkSpec,
    num_classes: int,
    *,
    note: Callable[[str], None] = lambda _: None,
) -> Weights:
    """Returns exactly the weights that the network needs, in its types.

    A prefix that the names of the whole network share is taken off. What has another prefix is not of the network and
    is left out, and so are losses, metrics and auxiliary heads. Names from earlier versions of torchvision are brought
    up to date, and half precision is widened.

    Args:
        note: is told which prefix was taken off and what was left out.

    Raises: TrainingError, which names what is missing, unexpected, of another shape or type, or not finite.
    """
    expected = spec.meta(num_classes).state_dict()
    given = _of_the_network(state_dict, expected, note)
    auxiliary = [
        name for name in given if name.startswith(_AUXILIARY.get(spec.architecture, ())) and name not in expected
    ]
    if auxiliary:
        note(f"left out {len(auxiliary)} tensors of auxiliary heads, which only training needs")
    counters = {n: torch.zeros((), dtype=t.dtype, device="cpu") for n, t in expected.items() if n.endswith(_COUNTER)}
    given = counters | {name: tensor for name, tensor in given.items() if name not in auxiliary}
    _check_names(given, expected, spec)
    _check_shapes(given, expected, spec, num_classes)
    return {name: _converted(name, given[name], like.dtype) for name, like in expected.items()}


def _of_the_network(
    state_dict: Mapping[str, torch.Tensor], expected: Mapping[str, torch.Tensor], note: Callable[[str], None]
) -> Weights:
    """Returns the weights of the network, by its own names."""
    prefix, others = _prefix(state_dict, expected)
    inside = {name.removeprefix(prefix): name for name in state_dict if name.startswith(prefix)}
    names = {_up_to_date(name, expected): original for name, original in inside.items()}
    beside = {name for name in names if name not in expected and (_BESIDE.fullmatch(name) or name.startswith(others))}
    left_out = [name for name in state_dict if not name.startswith(prefix)] + [names[name] for name in beside]
    if prefix:
        note(f"took off the prefix {prefix!r} of the names")
    if left_out:
        note(f"left out {listed(sorted(left_out), most=8)}: {len(left_out)} tensors that are not of the network")
    for other in others:
        note(f"a running mean of the weights is under {other!r}: --weights {other.removesuffix('.')} takes that")
    return {name: state_dict[original] for name, original in names.items() if name not in beside}


def _prefix(given: Iterable[str], expected: Mapping[str, torch.Tensor]) -> tuple[str, tuple[str, ...]]:
    """Returns the prefix that the names of the network have in a file, and those of its running means beside it.

    Raises: TrainingError if the network is there more than once.
    """
    first = next(iter(expected))
    possible = {"": 0} | {name.removesuffix(first): 0 for name in given if name.endswith(f".{first}")}
    wanted = {name for name in expected if not name.endswith(_COUNTER)}
    for prefix in possible:
        inside = (name.removeprefix(prefix) for name in given if name.startswith(prefix))
        possible[prefix] = len(wanted & {_up_to_date(name, expected) for name in inside})
    whole = [prefix for prefix, count in possible.items() if count == len(wanted)]
    plain = [prefix for prefix in whole if not is_averaged(prefix)] or whole
    if len(plain) > 1:
        raise TrainingError(
            f"the network is there {len(plain)} times, under {listed(plain)}: choose by --weights PREFIX"
        )
    if plain:
        return plain[0], tuple(prefix for prefix in whole if prefix != plain[0])
    return max(possible, key=lambda prefix: possible[prefix]), ()


def _up_to_date(name: str, expected: Mapping[str, torch.Tensor]) -> str:
    for pattern, replacement in _RENAMED:
        renamed = pattern.sub(replacement, name)
        if name not in expected and renamed in expected:
            return renamed
    return name


def _check_names(given: Weights, expected: Weights, spec: NetworkSpec) -> None:
    missing, unexpected = sorted(expected.keys() - given.keys()), sorted(given.keys() - expected.keys())
    if not missing and not unexpected:
        return
    others = [name for name in _LOOK_ALIKE if NetworkSpec(name).meta(2).state_dict().keys() == given.keys()]
    hint = f"; they have the names of {others[0]}'s: --architecture {others[0]}" if others else ""
    differences = [
        f"{len(names)} {what}: {listed(names)}"
        for what, names in (("missing", missing), ("unexpected", unexpected))
        if names
    ]
    raise TrainingError(f"the weights do not fit {spec}: {'; '.join(differences)}{hint}")


def _check_shapes(given: Weights, expected: Weights, spec: NetworkSpec, num_classes: int) -> None:
    wrong = [name for name, like in expected.items() if given[name].shape != like.shape]
    if not wrong:
        return
    classes = _classes([given[name] for name in wrong], [expected[name] for name in wrong])
    if classes is not None and set(wrong) == head_weights(spec):
        raise TrainingError(f"the network in the file has {classes} classes, {num_classes} labels were given")
    name = wrong[0]
    raise TrainingError(
        f"the weights do not fit {spec}: {len(wrong)} of another shape, such as {name}, "
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
