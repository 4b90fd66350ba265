"""The operators that a program may use: single functions that compute values, and do nothing else.

Whole namespaces are never let in. `aten` holds operators that read files, that change tensors in place, that show
memory which was not written, and that draw random numbers. None of those is here. An operator is known by its name in
`aten`, without `.default`.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch._ops import OpOverload

_aten = torch.ops.aten


@dataclass(frozen=True, slots=True)
class Operator:
    """Describes one operator.

    Args:
        call: computes it.
        makes_tensor: it takes no tensor that says on which device its result shall be, so it must be told.
        indices: the positions of its arguments that hold indices. They must be constants: on a GPU, an index that is
            out of range ends the whole process's work there.
    """

    call: Callable[..., Any]
    makes_tensor: bool = False
    indices: tuple[int, ...] = ()


def _batch_norm(
    values: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    mean: torch.Tensor,
    variance: torch.Tensor,
    eps: float,
) -> torch.Tensor:
    return F.batch_norm(values, mean, variance, weight, bias, training=False, eps=eps)


def _attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None = None,
    *,
    is_causal: bool = False,
    scale: float | None = None,
) -> torch.Tensor:
    return F.scaled_dot_product_attention(query, key, value, mask, is_causal=is_causal, scale=scale)


# As they are in aten, with the same arguments.
_PLAIN = """
    abs add.Scalar add.Tensor addmm amax amin baddbmm bmm ceil celu clamp clamp.Tensor clamp_max clamp_min cos cumsum
    div.Scalar div.Tensor div.Tensor_mode elu eq.Scalar eq.Tensor erf exp floor ge.Scalar ge.Tensor gelu gt.Scalar
    gt.Tensor hardsigmoid hardswish hardtanh le.Scalar le.Tensor leaky_relu log log_sigmoid logical_and logical_not
    logical_or lt.Scalar lt.Tensor masked_fill.Scalar masked_fill.Tensor matmul maximum mean mean.dim minimum mish mm
    mul.Scalar mul.Tensor ne.Scalar ne.Tensor neg pow.Tensor_Scalar pow.Tensor_Tensor prelu reciprocal relu relu6 round
    rsqrt rsub.Scalar selu sigmoid sign silu sin softplus sqrt square sub.Scalar sub.Tensor sum sum.dim_IntList tanh
    where.self where.ScalarOther where.ScalarSelf
    linalg_vector_norm softmax.int log_softmax.int std.correction var.correction var.dim
    conv1d conv2d conv2d.padding conv_transpose2d.input linear
    layer_norm group_norm rms_norm
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool2d avg_pool1d avg_pool2d max_pool1d max_pool2d
    upsample_bicubic2d.vec upsample_bilinear2d.vec upsample_nearest2d.vec
    cat clone copy constant_pad_nd contiguous diagonal expand expand_as flatten.using_ints flip movedim.int
    pad permute pixel_shuffle pixel_unshuffle repeat repeat_interleave.self_int reshape roll select.int slice.Tensor
    split_with_sizes squeeze squeeze.dim squeeze.dims stack t to.dtype transpose.int tril triu type_as
    unflatten.int unsqueeze
    addcmul bitwise_not max min select_scatter slice_scatter
    ones_like zeros_like full_like new_ones new_zeros new_full
"""
_MAKERS = "arange arange.start arange.start_step eye full linspace ones scalar_tensor zeros"
_MAX_SIZE = 1 << 53
_MAX_PARTS = 1024


def _size(compute: Callable[..., int]) -> Callable[..., int]:
    """Returns the same computation for whole numbers of sizes, which may not grow without end."""

    def checked(*numbers: int) -> int:
        result = compute(*numbers)
        if not all(isinstance(each, int) for each in (*numbers, result)) or abs(result) > _MAX_SIZE:
            raise ValueError("a size is no whole number, or too large")
        return result

    return checked


def _split(values: torch.Tensor, size: int, dim: int = 0) -> tuple[torch.Tensor, ...]:
    if values.shape[dim] > size * _MAX_PARTS:
        raise ValueError("a tensor is split into too many parts")
    parts: tuple[torch.Tensor, ...] = torch.split(values, size, dim)
    return parts


def _chunk(values: torch.Tensor, chunks: int, dim: int = 0) -> tuple[torch.Tensor, ...]:
    if chunks > _MAX_PARTS:
        raise ValueError("a tensor is split into too many parts")
    return torch.chunk(values, chunks, dim)


def _unbind(values: torch.Tensor, dim: int = 0) -> tuple[torch.Tensor, ...]:
    if values.shape[dim] > _MAX_PARTS:
        raise ValueError("a tensor is split into too many parts")
    return torch.unbind(values, dim)


def _getitem(parts: Sequence[torch.Tensor], i: int) -> torch.Tensor:
    if not isinstance(parts, list | tuple):
        raise TypeError("only parts of a tensor that was split are numbered")
    part: torch.Tensor = parts[i]
    return part


_OWN: Mapping[str, Callable[..., Any]] = {
    "sym_size": lambda tensor, dimension: tensor.shape[dimension],
    "size_add": _size(operator.add),
    "size_sub": _size(operator.sub),
    "size_mul": _size(operator.mul),
    "size_floordiv": _size(operator.floordiv),
    "size_mod": _size(operator.mod),
    "size_max": _size(max),
    "size_min": _size(min),
    "getitem": _getitem,
    "split.Tensor": _split,
    "chunk": _chunk,
    "unbind.int": _unbind,
}


def _overload(name: str) -> OpOverload[..., Any]:
    packet, _, overload = name.partition(".")
    found: OpOverload[..., Any] = getattr(getattr(_aten, packet), overload or "default")
    return found


OPERATORS: Mapping[str, Operator] = MappingProxyType(
    {name: Operator(_overload(name)) for name in _PLAIN.split()}
    | {name: Operator(_overload(name), makes_tensor=True) for name in _MAKERS.split()}
    | {name: Operator(call) for name, call in _OWN.items()}
    | {
        # A view may be impossible where values lie in another order than in training, as they do in channels_last.
        "view": Operator(_aten.reshape.default),
        "batch_norm": Operator(_batch_norm),
        "scaled_dot_product_attention": Operator(_attention),
        "embedding": Operator(_aten.embedding.default, indices=(1,)),
        "gather": Operator(_aten.gather.default, indices=(2,)),
        "index.Tensor": Operator(_aten.index.Tensor, indices=(1,)),
        "index_select": Operator(_aten.index_select.default, indices=(2,)),
    }
)
