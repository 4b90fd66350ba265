"""Batch norms folded into the convolutions before them: the same function, with less to compute.

What belongs together is seen by watching one batch on its way. (torch.fx would find it, too, but while it traces it
replaces nn.Module.__call__ for all threads, those that serve included.)
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.overrides import TorchFunctionMode


def fold(network: nn.Module, batch: torch.Tensor) -> int:
    """Changes `network`, which is in eval mode, and says how many of its batch norms are gone.

    Folded is a BatchNorm2d that alone takes the result of a Conv2d, where the network calls and names each of them
    once. All else stays as it is.

    Args:
        batch: a float one that the network takes; its values do not matter.
    """
    names = Counter(id(module) for _, module in network.named_modules(remove_duplicate=False))
    single = {name: module for name, module in network.named_modules() if names[id(module)] == 1}
    convolutions = {name: module for name, module in single.items() if type(module) is nn.Conv2d}
    norms = {name: module for name, module in single.items() if _is_foldable(module)}
    if not norms or not convolutions:
        return 0
    pairs = _pairs(network, batch, convolutions, norms)
    for convolution, norm in pairs:
        network.set_submodule(convolution, fuse_conv_bn_eval(convolutions[convolution], norms[norm]))
        network.set_submodule(norm, nn.Identity())
    return len(pairs)


def _is_foldable(module: nn.Module) -> bool:
    return type(module) is nn.BatchNorm2d and not module.training and module.running_mean is not None


def _pairs(
    network: nn.Module, batch: torch.Tensor, convolutions: Mapping[str, nn.Module], norms: Mapping[str, nn.Module]
) -> list[tuple[str, str]]:
    uses, results, inputs = _Uses(), _Calls(), _Calls()
    hooks = [module.register_forward_hook(results.after(name)) for name, module in convolutions.items()]
    hooks += [module.register_forward_pre_hook(inputs.before(name)) for name, module in norms.items()]
    try:
        with torch.inference_mode(), uses:
            network(batch)
    finally:
        for hook in hooks:
            hook.remove()
    made_by = {id(tensor): name for name, (tensor, *more) in results.tensors.items() if not more}
    taken_by = {name: id(tensor) for name, (tensor, *more) in inputs.tensors.items() if not more}
    return [(made_by[one], name) for name, one in taken_by.items() if one in made_by and uses.counts[one] == 1]


class _Calls:
    """The tensors that modules made or took, by the modules' names. Keeps them, so that no two have the same id."""

    def __init__(self) -> None:
        self.tensors: dict[str, list[torch.Tensor]] = {}

    def after(self, name: str) -> Callable[[nn.Module, Any, torch.Tensor], None]:
        return lambda module, taken, made: self.tensors.setdefault(name, []).append(made)  # noqa: ARG005

    def before(self, name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        return lambda module, taken: self.tensors.setdefault(name, []).append(taken[0])  # noqa: ARG005


class _Uses(TorchFunctionMode):
    """How many functions each tensor was given to, by its id; in this thread alone."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[int] = Counter()

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self._count((*args, *(kwargs or {}).values()))
        return function(*args, **(kwargs or {}))

    def _count(self, values: Sequence[Any]) -> None:
        for value in values:
            if isinstance(value, torch.Tensor):
                self.counts[id(value)] += 1
            elif isinstance(value, list | tuple):
                self._count(value)
