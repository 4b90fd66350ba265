"""Folds batch norms into the convolutions before them: the same function, with less to compute.

One batch is watched on its way, to see which of them belong together. (torch.fx would find out as well. But while it
traces, it replaces nn.Module.__call__ for all threads, also for those that serve.)
"""

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torch.overrides import TorchFunctionMode

# They say how a tensor is made and nothing of what is in it, so to ask them is no use of a convolution's result.
_OF_THE_FORM = frozenset(
    (
        *(torch.Tensor.size, torch.Tensor.dim, torch.Tensor.stride, torch.Tensor.numel, torch.Tensor.__len__),
        *(getattr(torch.Tensor, name).__get__ for name in ("shape", "ndim", "dtype", "device", "is_cuda")),
    )
)


def fold_batch_norm(network: nn.Module, batch: torch.Tensor) -> int:
    """Changes `network`, which is in eval mode, and says how many of its batch norms are gone.

    A norm goes if it alone takes the result of a convolution, if the network names both of them once, and if it calls
    the norm once. All else stays as it is.

    Args:
        batch: floats of the shape that the network takes. Its values do not matter.

    Raises: whatever the network raises on its way. The network is as it was then.
    """
    named = Counter(id(module) for _, module in network.named_modules(remove_duplicate=False))
    once = {name: module for name, module in network.named_modules() if named[id(module)] == 1}
    convolutions = {name: module for name, module in once.items() if type(module) is nn.Conv2d}
    norms = {name: module for name, module in once.items() if _is_fixed(module)}
    if not convolutions or not norms:
        return 0
    pairs = _Watch().pairs(network, batch, convolutions, norms)
    for convolution, norm in pairs:
        network.set_submodule(convolution, fuse_conv_bn_eval(convolutions[convolution], norms[norm]))
        network.set_submodule(norm, nn.Identity())
    return len(pairs)


def _is_fixed(module: nn.Module) -> bool:
    return type(module) is nn.BatchNorm2d and not module.training and module.running_mean is not None


class _Watch(TorchFunctionMode):
    """Watches what becomes of the results of convolutions, in this thread alone."""

    def __init__(self) -> None:
        super().__init__()
        self._results: dict[int, tuple[str, torch.Tensor]] = {}  # by id; kept, so that no later tensor has the same
        self._norms: dict[str, str] = {}  # that took a convolution's result first
        self._calls: Counter[str] = Counter()  # of norms
        self._otherwise: set[str] = set()  # convolutions whose results something else has taken
        self._in_norm = False  # what that does with its input is no other use of it

    def pairs(
        self,
        network: nn.Module,
        batch: torch.Tensor,
        convolutions: Mapping[str, nn.Module],
        norms: Mapping[str, nn.Module],
    ) -> list[tuple[str, str]]:
        """Finds the names of convolutions and of the norms that can be folded into them."""
        hooks = [module.register_forward_hook(self._made(name)) for name, module in convolutions.items()]
        hooks += [module.register_forward_pre_hook(self._taken(name)) for name, module in norms.items()]
        hooks += [module.register_forward_hook(self._normed) for module in norms.values()]
        try:
            with torch.inference_mode(), self:
                self._use(network(batch))
        finally:
            for hook in hooks:
                hook.remove()
        return [
            (convolution, norm)
            for convolution, norm in self._norms.items()
            if convolution not in self._otherwise and self._calls[norm] == 1
        ]

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        if not self._in_norm and function not in _OF_THE_FORM:
            self._use((args, kwargs or {}))
        return function(*args, **(kwargs or {}))

    def _use(self, value: Any) -> None:
        if isinstance(value, torch.Tensor):
            if id(value) in self._results:
                self._otherwise.add(self._results[id(value)][0])
        elif isinstance(value, list | tuple):
            for each in value:
                self._use(each)
        elif isinstance(value, dict):
            self._use(tuple(value.values()))

    def _made(self, name: str) -> Callable[[nn.Module, Any, torch.Tensor], None]:
        def note(module: nn.Module, taken: Any, made: torch.Tensor) -> None:  # noqa: ARG001
            self._results[id(made)] = name, made

        return note

    def _taken(self, name: str) -> Callable[[nn.Module, tuple[torch.Tensor, ...]], None]:
        def note(module: nn.Module, taken: tuple[torch.Tensor, ...]) -> None:  # noqa: ARG001
            self._in_norm = True
            self._calls[name] += 1
            convolution, _ = self._results.get(id(taken[0]), (None, None))
            if convolution is not None and self._norms.setdefault(convolution, name) != name:
                self._otherwise.add(convolution)

        return note

    def _normed(self, module: nn.Module, taken: Any, made: Any) -> None:  # noqa: ARG002
        self._in_norm = False
