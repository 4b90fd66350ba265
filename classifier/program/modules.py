"""Makes torch's modules of some nodes, so that what makes other networks quicker makes programs quicker as well."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from torch import nn

from classifier.program.document import Node


class Value(NamedTuple):
    """Stands in an operator's arguments for a value that is computed for each batch."""

    number: int


def as_module(node: Node, nodes: Sequence[Node], args: Sequence[Any], kwargs: Mapping[str, Any]) -> nn.Module | None:
    """Returns the module that computes, of one value, what a node says; None if there is none.

    Args:
        nodes: all nodes of the program.
        args, kwargs: the node's arguments; in place of references they hold parameters and `Value`s.
    """
    make = _MODULES.get(node.op)
    if make is None or kwargs or len(args) < 2:
        return None
    values = [each for each in args if isinstance(each, Value)]
    if values != [args[0]] or any(isinstance(each, Value) for arg in args if isinstance(arg, list) for each in arg):
        return None
    if node.op == "batch_norm" and (values[0].number == 0 or nodes[values[0].number - 1].op != "conv2d"):
        return None
    return make(*args[1:])


def _conv2d(
    weight: nn.Parameter,
    bias: nn.Parameter | None = None,
    stride: Sequence[int] = (1,),
    padding: Sequence[int] | str = (0,),
    dilation: Sequence[int] = (1,),
    groups: int = 1,
) -> nn.Module | None:
    if not isinstance(weight, nn.Parameter) or weight.dim() != 4:
        return None
    outputs, inputs, height, width = weight.shape
    module = nn.Conv2d(
        inputs * groups,
        outputs,
        (height, width),
        stride=_pair(stride),
        padding=padding if isinstance(padding, str) else _pair(padding),
        dilation=_pair(dilation),
        groups=groups,
        bias=bias is not None,
        device="meta",
    )
    module.weight = weight
    if bias is not None:
        module.bias = bias
    return module


def _linear(weight: nn.Parameter, bias: nn.Parameter | None = None) -> nn.Module | None:
    if not isinstance(weight, nn.Parameter) or weight.dim() != 2:
        return None
    module = nn.Linear(weight.shape[1], weight.shape[0], bias=bias is not None, device="meta")
    module.weight = weight
    if bias is not None:
        module.bias = bias
    return module


def _batch_norm(
    weight: nn.Parameter | None, bias: nn.Parameter | None, mean: nn.Parameter, variance: nn.Parameter, eps: float
) -> nn.Module | None:
    if not (isinstance(weight, nn.Parameter) and isinstance(bias, nn.Parameter)):
        return None
    if not (isinstance(mean, nn.Parameter) and isinstance(variance, nn.Parameter)):
        return None
    module = nn.BatchNorm2d(len(mean), eps=eps, device="meta")
    module.weight, module.bias = weight, bias
    module.running_mean, module.running_var, module.num_batches_tracked = mean.data, variance.data, None
    return module.eval()


def _max_pool2d(
    kernel: Sequence[int],
    stride: Sequence[int] = (),
    padding: Sequence[int] = (0,),
    dilation: Sequence[int] = (1,),
    ceil_mode: bool = False,
) -> nn.Module:
    return nn.MaxPool2d(_pair(kernel), _pair(stride or kernel), _pair(padding), _pair(dilation), ceil_mode=ceil_mode)


def _pair(sizes: Sequence[int]) -> tuple[int, int]:
    first, *rest = sizes
    return first, rest[0] if rest else first


_MODULES: Mapping[str, Callable[..., nn.Module | None]] = {
    "conv2d": _conv2d,
    "conv2d.padding": _conv2d,
    "linear": _linear,
    "batch_norm": _batch_norm,
    "max_pool2d": _max_pool2d,
}
