"""Puts large weights into the order in which a CPU's kernels read them; otherwise that is done for every batch.

Torch's convolutions are oneDNN's, which has an order of its own for each processor and shape. Here the matrix products
are oneDNN's as well; torch takes another library's. torch.compile packs constant weights with the same operators.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import nn

# With fewer weights than these, putting them in order takes little beside computing with them.
_LARGE_CONVOLUTION = 1 << 18
_LARGE_LINEAR = 1 << 20

_oneDNN = torch.ops.mkldnn  # noqa: N816  that is its name


def prepack_weights(network: nn.Module, batch: torch.Tensor) -> int:
    """Changes `network`, which is in eval mode, on a CPU, and trained no more. Says how many modules were packed.

    Packed are convolutions and linear layers with many weights, if the network calls them as modules.

    Args:
        batch: what the network takes, of the type that it computes in. Its values do not matter.

    Raises: whatever the network raises on its way. The network is as it was then.
    """
    large = {name: module for name, module in network.named_modules(remove_duplicate=False) if _is_large(module)}
    if not large or not _can_be_packed(batch.dtype):
        return 0
    shapes = _taken(network, batch, set(large.values()))
    packed = {module: _packed(module, shape) for module, shape in shapes.items()}
    _exchange(network, {name: packed[module] for name, module in large.items() if module in packed})
    try:
        with torch.inference_mode():
            network(batch)  # one that reads a module's weights besides calling it says so now
    except Exception:
        _exchange(network, large)
        raise
    return len(packed)


class PackedConv2d(nn.Module):
    """Computes what `nn.Conv2d` computes, for any number of images. It is quickest for images of the `shape`."""

    def __init__(self, module: nn.Conv2d, shape: Sequence[int]) -> None:
        super().__init__()
        self._how = module.padding, module.stride, module.dilation, module.groups
        self._bias = module.bias
        self._weight = _oneDNN._reorder_convolution_weight(module.weight.detach(), *self._how, shape)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = _oneDNN._convolution_pointwise.default(
            images, self._weight, self._bias, *self._how, "none", [], ""
        )
        return result


class PackedLinear(nn.Module):
    """Computes what `nn.Linear` computes."""

    def __init__(self, module: nn.Linear) -> None:
        super().__init__()
        self._bias = module.bias
        # The best order for one image is better than none for any number of them. The reverse is not true.
        self._weight = _oneDNN._reorder_linear_weight(module.weight.detach(), 1)

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = _oneDNN._linear_pointwise.default(values, self._weight, self._bias, "none", [], "")
        return result


def _is_large(module: nn.Module) -> bool:
    if type(module) is nn.Conv2d:
        return module.weight.numel() >= _LARGE_CONVOLUTION and _keeps_its_order(module)
    return type(module) is nn.Linear and module.weight.numel() >= _LARGE_LINEAR


def _keeps_its_order(module: nn.Conv2d) -> bool:
    """Says whether one order is best for any number of images and threads.

    Convolutions of 1x1 and those in groups have another order for another number. In the wrong one they take up to
    twice as long as unpacked. (Where padding is given by a name, torch pads beforehand.)
    """
    plain = module.padding_mode == "zeros" and not isinstance(module.padding, str)
    return plain and module.groups == 1 and max(module.kernel_size) > 1


def _can_be_packed(dtype: torch.dtype) -> bool:
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and _oneDNN._is_mkldnn_bf16_supported())


def _packed(module: nn.Module, shape: Sequence[int]) -> nn.Module:
    return PackedConv2d(module, shape) if isinstance(module, nn.Conv2d) else PackedLinear(module)  # type: ignore[arg-type]


def _taken(network: nn.Module, batch: torch.Tensor, modules: set[nn.Module]) -> dict[nn.Module, torch.Size]:
    """Finds the shapes of what the modules take; only of those that the network calls."""
    shapes: dict[nn.Module, torch.Size] = {}

    def note(module: nn.Module, taken: tuple[torch.Tensor, ...]) -> None:
        shapes[module] = taken[0].shape

    hooks = [module.register_forward_pre_hook(note) for module in modules]
    try:
        with torch.inference_mode():
            network(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return shapes


def _exchange(network: nn.Module, modules: Mapping[str, nn.Module]) -> None:
    for name, module in modules.items():
        network.set_submodule(name, module)
