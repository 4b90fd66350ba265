"""The operators that a program may use: single functions that compute values, and do nothing else.

Whole namespaces are never let in. `aten` holds operators that read files, that change tensors in place, that show
memory which was not written, and that draw random numbers. None of those is here. An operator is known by its name in
`aten`, without `.default`.
"""

import operator
import string
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import torch
import torch.nn.functional as F
from torch._ops import OpOverload

from classifier.program.document import Argument, DTypeRef, InfinityRef, MemoryFormatRef, WordRef

_aten = torch.ops.aten


def literal(argument: Argument) -> Any:
    """Returns what an operator is given for an argument that refers to no value and to no tensor."""
    match argument:
        case DTypeRef():
            return getattr(torch, argument.dtype)
        case MemoryFormatRef():
            return getattr(torch, argument.memory_format)
        case WordRef():
            return argument.word
        case InfinityRef():
            return float(argument.infinity)
    return argument


def _no_sizes(args: Sequence[Any]) -> list[int]:  # noqa: ARG001
    return []


@dataclass(frozen=True, slots=True)
class Operator:
    """Describes one operator.

    Args:
        call: computes it.
        makes_tensor: it takes no tensor that says on which device its result shall be, so it must be told.
        floats_from: it makes floats, unless a type is named, if one of its arguments from this position on is a float;
            None: it does not.
        constants: the positions of its arguments that must not depend on the images.
        takes_sizes: a size that depends on the number of images may be among its arguments: its result is then no
            larger for smaller sizes, or no larger than what it is given.
        indices: the position of its argument that holds indices, a tensor or a list of some. They must be constants
            and in range: on a GPU, an index that is out of range ends the whole process's work there.
        indexed_sizes: the sizes of the dimensions that these indices count in, of the operator's arguments.
        counts_from_end: a negative index is allowed, and counts from the end.
    """

    call: Callable[..., Any]
    makes_tensor: bool = False
    floats_from: int | None = None
    constants: tuple[int, ...] = ()
    takes_sizes: bool = False
    indices: int | None = None
    indexed_sizes: Callable[[Sequence[Any]], list[int]] = _no_sizes
    counts_from_end: bool = False

    def makes_floats(self, args: Sequence[Any]) -> bool:
        """Says whether it makes floats of these arguments where no type is named."""
        return self.floats_from is not None and (
            self.floats_from < 0 or any(isinstance(each, float) for each in args[self.floats_from :])
        )

    def check_types(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> None:
        """Checks that no plain value stands for one of torch's types.

        Torch takes whole numbers for its own types, and reads what lies beyond the last of them.

        Raises: TypeError.
        """
        schema = getattr(self.call, "_schema", None)
        for i, argument in enumerate(schema.arguments if schema is not None else ()):
            if any(kind in str(argument.real_type) for kind in ("ScalarType", "MemoryFormat", "Layout", "Device")):
                given = args[i] if i < len(args) else kwargs.get(argument.name)
                if isinstance(given, int | float | str | torch.Tensor | list | tuple):
                    raise TypeError(f"{argument.name} is {given!r}, which is none of torch's types")


def _batch_norm(
    values: torch.Tensor,
    weight: torch.Tensor | None,
    bias: torch.Tensor | None,
    mean: torch.Tensor,
    variance: torch.Tensor,
    eps: float,
) -> torch.Tensor:
    return F.batch_norm(values, mean, variance, weight, bias, training=False, eps=eps)


def _standardize(
    values: torch.Tensor, weight: torch.Tensor | None, bias: torch.Tensor | None, eps: float
) -> torch.Tensor:
    """Gives each channel of [n, channels, ...] mean 0 and variance 1, as weight standardization does with weights.

    Source: Qiao et al., "Micro-Batch Training with Batch-Channel Normalization and Weight Standardization", 2019.
    """
    return F.batch_norm(values, None, None, weight, bias, training=True, eps=eps)


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


_LETTERS = string.ascii_uppercase + string.ascii_lowercase


def _einsum(tensors: Sequence[torch.Tensor], *subscripts: Sequence[int]) -> torch.Tensor:
    """Sums products as torch.einsum does; the subscripts are numbers from 0 to 51: of each tensor, and of the sum."""
    *terms, result = ("".join(_LETTERS[number] for number in each) for each in subscripts)
    summed: torch.Tensor = torch.ops.aten.einsum.default(f"{','.join(terms)}->{result}", list(tensors))
    return summed


# As they are in aten, with the same arguments.
_PLAIN = """
    abs add.Scalar add.Tensor addmm amax amin baddbmm bmm ceil celu clamp clamp.Tensor clamp_max clamp_min cos cumsum
    div.Scalar div.Tensor elu eq.Scalar eq.Tensor erf exp floor ge.Scalar ge.Tensor gelu gt.Scalar
    gt.Tensor hardsigmoid hardswish hardtanh le.Scalar le.Tensor leaky_relu log log_sigmoid logical_and logical_not
    logical_or lt.Scalar lt.Tensor masked_fill.Scalar masked_fill.Tensor matmul maximum mean mean.dim minimum mish mm
    mul.Scalar mul.Tensor ne.Scalar ne.Tensor neg pow.Scalar pow.Tensor_Scalar pow.Tensor_Tensor prelu reciprocal
    relu relu6 round rsqrt rsub.Scalar selu sigmoid sign silu sin softplus sqrt square sub.Scalar sub.Tensor sum
    sum.dim_IntList tanh where.self where.ScalarOther where.ScalarSelf
    linalg_vector_norm softmax.int log_softmax.int std.correction var.correction var.dim
    linear
    layer_norm group_norm rms_norm
    adaptive_avg_pool1d adaptive_avg_pool2d adaptive_max_pool2d avg_pool1d avg_pool2d max_pool1d max_pool2d
    upsample_bicubic2d.vec upsample_bilinear2d.vec upsample_linear1d.vec upsample_nearest2d.vec
    _upsample_bicubic2d_aa.vec im2col
    cat clone copy constant_pad_nd contiguous diagonal expand expand_as flatten.using_ints flip movedim.int
    pad permute pixel_shuffle pixel_unshuffle repeat repeat_interleave.self_int reshape select.int slice.Tensor
    split_with_sizes squeeze squeeze.dim squeeze.dims stack t to.dtype transpose.int tril triu type_as
    unflatten.int unsqueeze
    addcmul bitwise_not max min select_scatter slice_scatter
    ones_like zeros_like full_like new_ones new_zeros new_full
"""
# Operators that make a tensor of numbers alone, with the position from which on a float decides their type; -1: they
# make floats in any case.
_MAKERS = {
    "arange": 0,
    "arange.start": 0,
    "arange.start_step": 0,
    "eye": -1,
    "full": 1,
    "linspace": -1,
    "ones": -1,
    "scalar_tensor": -1,
    "zeros": -1,
}
_MAX_SIZE = 1 << 40
_MAX_PARTS = 1024


def _size(compute: Callable[..., int]) -> Callable[..., int]:
    """Returns the same computation for whole numbers of sizes, which may not grow without end."""

    def checked(*numbers: int) -> int:
        if not all(isinstance(each, int) and abs(each) <= _MAX_SIZE for each in numbers):
            raise ValueError("a size is no whole number, or too large")
        return compute(*numbers)

    return checked


def _overload(name: str) -> OpOverload[..., Any]:
    packet, _, overload = name.partition(".")
    found: OpOverload[..., Any] = getattr(getattr(_aten, packet), overload or "default")
    return found


def _div(values: torch.Tensor, divisor: torch.Tensor | float, *, rounding_mode: str | None = None) -> torch.Tensor:
    whole = not values.is_floating_point() and not (
        divisor.is_floating_point() if isinstance(divisor, torch.Tensor) else isinstance(divisor, float)
    )
    # The least whole number by -1 is more than the largest: the processor ends the process for it.
    if whole and rounding_mode is not None and (isinstance(divisor, torch.Tensor) or not 0 < divisor < 1 << 31):
        raise ValueError("whole numbers are rounded only when they are divided by a positive constant")
    result: torch.Tensor = _aten.div.Tensor_mode(values, divisor, rounding_mode=rounding_mode)
    return result


def _conv(overload: str) -> Callable[..., torch.Tensor]:
    call = _overload(overload)

    def checked(values: torch.Tensor, weight: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
        # Torch convolves whole numbers by copying each of them once for each place in the kernel.
        if not (values.is_floating_point() and weight.is_floating_point()):
            raise TypeError("only floats are convolved")
        result: torch.Tensor = call(values, weight, *rest, **named)
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


def _roll(values: torch.Tensor, shifts: list[int], dims: list[int] | tuple[int, ...] = ()) -> torch.Tensor:
    # Torch rolls all values again for each of the shifts.
    if len(shifts) > max(1, values.dim()):
        raise ValueError("a tensor is rolled in more dimensions than it has")
    return torch.roll(values, shifts, dims)


def _getitem(parts: Sequence[torch.Tensor], i: int) -> torch.Tensor:
    if not isinstance(parts, list | tuple) or not isinstance(i, int):
        raise TypeError("only parts of a tensor that was split are numbered")
    part: torch.Tensor = parts[i]
    return part


def _dimension(args: Sequence[Any]) -> list[int]:
    values, dim = args[0], args[1]
    return [values.shape[dim] if values.dim() else 1]


def _first_dimensions(args: Sequence[Any]) -> list[int]:
    values, indices = args[0], args[1]
    return [values.shape[i] for i, index in enumerate(indices) if index is not None]


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
    "div.Tensor_mode": _div,
    "split.Tensor": _split,
    "chunk": _chunk,
    "roll": _roll,
    "unbind.int": _unbind,
}


# Their result is a whole number.
SIZES = frozenset({"sym_size", *(name for name in _OWN if name.startswith("size_"))})
_TAKE_SIZES = """
    add.Scalar arange div.Scalar eye expand full mul.Scalar new_full new_ones new_zeros ones repeat reshape
    repeat_interleave.self_int rsub.Scalar select.int slice.Tensor split_with_sizes sub.Scalar unflatten.int zeros
"""
_CONVOLUTIONS = "conv1d conv2d conv2d.padding conv_transpose2d.input"

OPERATORS: Mapping[str, Operator] = MappingProxyType(
    {name: Operator(_overload(name), takes_sizes=name in _TAKE_SIZES.split()) for name in _PLAIN.split()}
    | {
        name: Operator(_overload(name), makes_tensor=True, floats_from=at, takes_sizes=name in _TAKE_SIZES.split())
        for name, at in _MAKERS.items()
    }
    # With a kernel that is smaller for fewer images, the result could be larger.
    | {name: Operator(_conv(name), constants=(1, 2)) for name in _CONVOLUTIONS.split()}
    | {name: Operator(call, takes_sizes=name in SIZES) for name, call in _OWN.items()}
    | {
        # A view may be impossible where values lie in another order than in training, as they do in channels_last.
        "view": Operator(_aten.reshape.default, takes_sizes=True),
        "batch_norm": Operator(_batch_norm),
        # Of images, it would make an answer depend on the others of its batch.
        "standardize": Operator(_standardize, constants=(0, 1, 2)),
        "einsum": Operator(_einsum),
        "scaled_dot_product_attention": Operator(_attention),
        "embedding": Operator(_aten.embedding.default, indices=1, indexed_sizes=lambda args: [args[0].shape[0]]),
        "gather": Operator(_aten.gather.default, indices=2, indexed_sizes=_dimension),
        "index.Tensor": Operator(_aten.index.Tensor, indices=1, indexed_sizes=_first_dimensions, counts_from_end=True),
        "index_select": Operator(_aten.index_select.default, indices=2, indexed_sizes=_dimension),
    }
)
