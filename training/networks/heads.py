"""Finds the parts of a network that train, and cuts the network in two there: frozen below, trained above.

Parts are names of modules; ("",) is the whole network. The head of an architecture is found, not listed: it is what
has another shape if there is one more class.
"""

from collections.abc import Callable, Collection, Mapping
from typing import Any, NoReturn

import torch
from torch import nn

from classifier import architectures
from training.errors import TrainingError
from training.networks import timm_networks
from training.networks.spec import NetworkSpec

WHOLE = ("",)

# Where AlexNet's features are in the networks that share them.
_ALEXNET_FEATURES = {"alexnet": "features.", "alexnet_transfer": "0.", "alexnet_finetune": "features."}


def parts(spec: NetworkSpec, trainable: str) -> tuple[str, ...]:
    """Returns the names of the modules that train, in the network's order.

    Args:
        trainable: "all"; or "head", which is the last layer and the layers without parameters around it, such as a
            dropout; or names of modules, e.g. "layer4,fc".

    Raises: TrainingError if the network or a name is not known, or there is nothing in it to train.
    """
    if trainable == "all":
        spec.check()
        return WHOLE
    network = spec.meta(2)
    if trainable == "head":
        return _head(network, spec)
    chosen = [word.strip() for word in trainable.split(",")]
    modules = [name for name, _ in network.named_modules() if name]
    for word in chosen:
        if word not in modules:
            near = ", ".join(name for name, _ in network.named_children())
            raise TrainingError(
                f"{spec} has no part {word!r}: trainable is all, head, or some of {near} or of what is in them"
            )
    found = tuple(name for name in modules if name in chosen and not any(name.startswith(f"{c}.") for c in chosen))
    if not any(list(network.get_submodule(name).parameters()) for name in found):
        raise TrainingError(f"there is nothing to train in {spec}'s {trainable}")
    return found


def freeze(network: nn.Module, parts: tuple[str, ...], fixed: Collection[str] = ()) -> None:
    """Makes only the parameters of these parts get gradients.

    Args:
        fixed: names of parameters that never train, wherever they are.
    """
    network.requires_grad_(False)
    for name in parts:
        network.get_submodule(name).requires_grad_(True)
    for name in fixed:
        network.get_parameter(name).requires_grad_(False)


def train_mode(network: nn.Module, parts: tuple[str, ...]) -> None:
    """Puts only these parts into training mode: frozen norms keep their statistics, frozen dropouts drop nothing."""
    network.eval()
    for name in parts:
        network.get_submodule(name).train()


def state_of(network: nn.Module, parts: tuple[str, ...]) -> dict[str, torch.Tensor]:
    """Returns the parameters and buffers of these parts by their full names."""
    prefixes = tuple(f"{part}." if part else "" for part in parts)
    return {name: tensor for name, tensor in network.state_dict().items() if name.startswith(prefixes)}


def features(network: nn.Module, parts: tuple[str, ...]) -> Callable[[torch.Tensor], torch.Tensor]:
    """Returns a function from images to what the first of these parts is given. What comes after is not computed.

    The caller sets the network's mode, gradients and autocast.
    """
    first = network.get_submodule(parts[0])

    def until_first(images: torch.Tensor) -> torch.Tensor:
        handle = first.register_forward_pre_hook(_stop)
        try:
            network(images)
        except _Reached as reached:
            return reached.features
        finally:
            handle.remove()
        raise TrainingError(f"the network does not use its part {parts[0]!r}")

    return until_first


def tail(network: nn.Module, parts: tuple[str, ...]) -> nn.Module:
    """Returns these parts in a row as a network of its own, from `features` to logits [n, classes].

    It shares its parameters with `network`.
    """
    return _Tail([network.get_submodule(name) for name in parts])


@torch.no_grad()
def separable(network: nn.Module, parts: tuple[str, ...], example: torch.Tensor) -> bool:
    """Finds out whether `tail` of `features` is what the network computes. Then features are needed only once.

    This is so if each part is used once, if it is given exactly what the part before it returns, and if the last part
    returns the logits.

    Args:
        example: a batch of real images, as the network takes them, on its device. The network is in eval mode for
            them, and afterwards in the mode it was in.
    """
    modules = [network.get_submodule(name) for name in parts]
    passed: list[tuple[nn.Module, torch.Tensor | None]] = []
    hooks = [module.register_forward_pre_hook(lambda m, x: passed.append((m, _alone(x)))) for module in modules]
    hooks += [module.register_forward_hook(lambda m, _, y: passed.append((m, _alone((y,))))) for module in modules]
    modes = [(module, module.training) for module in network.modules()]
    try:
        logits = network.eval()(example)
    finally:
        for hook in hooks:
            hook.remove()
        for module, training in modes:
            module.training = training
    tensors = [tensor for _, tensor in passed if tensor is not None]
    if [module for module, _ in passed] != [module for module in modules for _ in range(2)] or len(tensors) < len(
        passed
    ):
        return False
    returned, given = tensors[1::2], tensors[2::2]
    return all(map(torch.equal, [*returned[:-1], returned[-1].flatten(1)], [*given, logits]))


def head_weights(spec: NetworkSpec) -> frozenset[str]:
    """Returns the names, in the state_dict, of all tensors whose shape depends on the number of classes.

    Raises: TrainingError if the network is not known.
    """
    return _head_weights(spec.meta(2), spec)


def load_backbone(network: nn.Module, spec: NetworkSpec, weights: Mapping[str, torch.Tensor], source: str) -> None:
    """Loads all weights but those of the head, which stays as it is.

    Args:
        spec: the network's.
        source: the architecture of the weights. It is the same one, with any number of classes. For `alexnet_transfer`
            and `alexnet_finetune` it may be another one that has AlexNet's features: then only these are loaded.

    Raises: TrainingError if the source is of another kind, or the weights are not all there.
    """
    own = network.state_dict()
    names = _names_in_source(own, spec, source)
    wrong = [there for here, there in names.items() if there not in weights or weights[there].shape != own[here].shape]
    if wrong:
        raise TrainingError(
            f"the weights do not fill {spec} as those of {source} should: "
            f"{len(wrong)} are missing or of another shape, such as {wrong[0]}"
        )
    architectures.load_weights(network, own | {here: weights[there] for here, there in names.items()}, share=False)


def _names_in_source(own: Mapping[str, torch.Tensor], spec: NetworkSpec, source: str) -> dict[str, str]:
    """Returns the name in the weights for each name in the network that is to be loaded."""
    architecture = spec.architecture
    if timm_networks.without_tag(source) == timm_networks.without_tag(architecture):
        head = head_weights(spec)
        return {name: name for name in own if name not in head}
    if architecture == "alexnet" or not {architecture, source} <= _ALEXNET_FEATURES.keys():
        raise TrainingError(
            f"{architecture} cannot start from weights of {source}: only from its own, "
            "and alexnet_transfer and alexnet_finetune from those of each other and of alexnet"
        )
    here, there = _ALEXNET_FEATURES[architecture], _ALEXNET_FEATURES[source]
    return {name: there + name.removeprefix(here) for name in own if name.startswith(here)}


def _head_weights(of_two: nn.Module, spec: NetworkSpec) -> frozenset[str]:
    two, three = of_two.state_dict(), spec.meta(3).state_dict()
    return frozenset(name for name in two if two[name].shape != three[name].shape)


def _head(of_two: nn.Module, spec: NetworkSpec) -> tuple[str, ...]:
    weights = _head_weights(of_two, spec)
    layers = {name.rpartition(".")[0] for name in weights}
    if not weights or "" in layers:
        why = "is no module of its own" if weights else "cannot be found, for nothing in it depends on num_classes"
        last = next(reversed([name for name, _ in of_two.named_children()]), "fc")
        raise TrainingError(f"the head of {spec} {why}: name the parts that train, e.g. --set trainable={last}")
    around = {sibling for layer in layers for sibling in _with_bare_siblings(of_two, layer)}
    return tuple(name for name, _ in of_two.named_modules() if name in around)


def _with_bare_siblings(network: nn.Module, layer: str) -> list[str]:
    """Returns the layer and, if it stands in a Sequential, the layers without parameters directly around it."""
    parent, _, own_name = layer.rpartition(".")
    if not isinstance(network.get_submodule(parent), nn.Sequential):
        return [layer]
    children = list(network.get_submodule(parent).named_children())
    start = end = [name for name, _ in children].index(own_name)
    while start > 0 and _is_bare(children[start - 1][1]):
        start -= 1
    while end + 1 < len(children) and _is_bare(children[end + 1][1]):
        end += 1
    return [f"{parent}.{name}" if parent else name for name, _ in children[start : end + 1]]


def _is_bare(module: nn.Module) -> bool:
    return not module.state_dict()


class _Tail(nn.Module):
    def __init__(self, parts: list[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.Sequential(*parts)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        # A copy: some heads begin with a dropout or a ReLU that works in place, and the features are used again.
        logits: torch.Tensor = self.parts(features.clone())
        return logits.flatten(1)


class _Reached(Exception):
    def __init__(self, features: torch.Tensor) -> None:
        super().__init__()
        self.features = features


def _stop(_: nn.Module, given: tuple[torch.Tensor, ...]) -> NoReturn:
    raise _Reached(given[0])


def _alone(tensors: tuple[Any, ...]) -> torch.Tensor | None:
    """Returns a copy of the one tensor, which may be changed in place later; None if there is anything else."""
    return tensors[0].clone() if len(tensors) == 1 and isinstance(tensors[0], torch.Tensor) else None
