"""Defines the document that says what a network computes: one JSON text beside the weights. Imports no torch.

Value 0 is the batch of images, float [n, channels, height, width]. Node i computes value i + 1 by one operator of
`classifier.program.operators`, from constants, tensors of the checkpoint, and values before it. The values are numbered
and have no names. Nothing in the document is evaluated: it is a list of calls of functions that are in a table.

Unknown keys are refused, and so are keys that stand twice, and types that are not exactly right. The document is
bounded in bytes, nodes and arguments. Reading ends at the first fault of a list, so that no document makes thousands of
errors.
"""

import json
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError, model_validator

from classifier.header import CheckpointError

# The largest networks that are known to export have some 5,000 nodes, and 700 kB.
MAX_BYTES = 4 << 20
MAX_NODES = 10_000
_MAX_LIST = 1024
_MAX_RANK = 16
_MOST_INT = (1 << 63) - 1

DType = Literal["float32", "float64", "int64", "int32", "uint8", "bool"]
MemoryFormat = Literal["contiguous_format", "channels_last", "preserve_format"]
Word = Literal["none", "tanh", "same", "valid", "floor", "trunc", "ij", "xy", "constant", "reflect", "replicate"]
TensorName = Annotated[str, Field(pattern=r"^(network|constant)\.[^\x00-\x1f]{1,500}$")]


class _Strict(BaseModel):
    """Never changes, refuses unknown keys, and takes neither infinite numbers nor anything for something else."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, strict=True)


class ValueRef(_Strict):
    """Is what an earlier node computed, or the images."""

    value: int = Field(ge=0, le=MAX_NODES)


class TensorRef(_Strict):
    """Is a tensor of the checkpoint."""

    tensor: TensorName


class DTypeRef(_Strict):
    dtype: DType


class MemoryFormatRef(_Strict):
    memory_format: MemoryFormat


class WordRef(_Strict):
    """Is a string that an operator takes, such as the mode of a padding."""

    word: Word


class InfinityRef(_Strict):
    """Is an infinite number, for which JSON has no word."""

    infinity: Literal["inf", "-inf"]


_Int = Annotated[int, Field(ge=-_MOST_INT, le=_MOST_INT)]
_REFERENCES = {
    "value": ValueRef,
    "tensor": TensorRef,
    "dtype": DTypeRef,
    "memory_format": MemoryFormatRef,
    "word": WordRef,
    "infinity": InfinityRef,
}


def _kind(scalar: Any) -> str:
    """Says which kind of scalar this is, so that it is read as that alone."""
    if isinstance(scalar, dict):
        return next(iter(scalar)) if len(scalar) == 1 else "dict"
    return next((key for key, kind in _REFERENCES.items() if isinstance(scalar, kind)), type(scalar).__name__)


Scalar = Annotated[
    Annotated[bool, Tag("bool")]
    | Annotated[_Int, Tag("int")]
    | Annotated[float, Tag("float")]
    | Annotated[None, Tag("NoneType")]
    | Annotated[ValueRef, Tag("value")]
    | Annotated[TensorRef, Tag("tensor")]
    | Annotated[DTypeRef, Tag("dtype")]
    | Annotated[MemoryFormatRef, Tag("memory_format")]
    | Annotated[WordRef, Tag("word")]
    | Annotated[InfinityRef, Tag("infinity")],
    Discriminator(_kind, custom_error_type="argument", custom_error_message="it is not an argument of an operator"),
]
_List = Annotated[tuple[Scalar, ...], Field(max_length=_MAX_LIST, strict=False, fail_fast=True)]
Argument = Annotated[
    Annotated[Scalar, Tag("one")] | Annotated[_List, Tag("several")],
    Discriminator(lambda argument: "several" if isinstance(argument, list | tuple) else "one"),
]


class TensorSpec(_Strict):
    """Says what a tensor of the checkpoint is like."""

    dtype: DType
    shape: Annotated[tuple[Annotated[int, Field(ge=0, le=_MOST_INT)], ...], Field(max_length=_MAX_RANK, strict=False)]


class Node(_Strict):
    """Is one call of an operator, such as `conv2d` or `add.Tensor`."""

    op: str = Field(min_length=1, max_length=64)
    args: Annotated[tuple[Argument, ...], Field(max_length=32, strict=False, fail_fast=True)]
    kwargs: dict[Annotated[str, Field(pattern="^[a-z_]{1,32}$")], Argument] = Field(default={}, max_length=8)

    def scalars(self) -> Iterator[Scalar]:
        """Yields all arguments; of a list, what is in it."""
        for argument in (*self.args, *self.kwargs.values()):
            if isinstance(argument, tuple):
                yield from argument
            else:
                yield argument

    def values(self) -> Iterator[int]:
        """Yields the numbers of the values that it takes."""
        return (scalar.value for scalar in self.scalars() if isinstance(scalar, ValueRef))


class Program(_Strict):
    """Is a whole network.

    Args:
        tensors: all of the checkpoint's tensors whose names begin with `network.` or `constant.`. The nodes need not
            use all of them: a counter of batches, say, has no part in inference.
        output: the number of the value that holds the logits.
    """

    format: Literal["flambeau-program/1"] = "flambeau-program/1"
    tensors: Annotated[dict[TensorName, TensorSpec], Field(max_length=MAX_NODES)]
    nodes: Annotated[tuple[Node, ...], Field(min_length=1, max_length=MAX_NODES, strict=False, fail_fast=True)]
    output: int = Field(ge=1)

    @model_validator(mode="after")
    def _takes_what_is_there(self) -> Self:
        for i, node in enumerate(self.nodes):
            for scalar in node.scalars():
                if isinstance(scalar, ValueRef) and scalar.value > i:
                    raise ValueError(f"node {i} takes value {scalar.value}, which is not computed yet")
                if isinstance(scalar, TensorRef) and scalar.tensor not in self.tensors:
                    raise ValueError(f"node {i} takes a tensor that is not there: {scalar.tensor}")
        if self.output > len(self.nodes):
            raise ValueError(f"the output is value {self.output} of {len(self.nodes)}")
        return self

    @property
    def operators(self) -> tuple[str, ...]:
        """The names of all operators that it uses, in alphabetical order."""
        return tuple(sorted({node.op for node in self.nodes}))

    def to_json(self) -> bytes:
        """Returns the text as it stands in a checkpoint. Raises: CheckpointError if `from_json` would refuse it."""
        data = self.model_dump_json().encode()
        _check_size(data)
        return data

    @classmethod
    def from_json(cls, data: bytes) -> Self:
        """Reads a program.

        Raises: CheckpointError, which names what is wrong in one line.
        """
        _check_size(data)
        try:
            json.loads(data, object_pairs_hook=_without_duplicates)
            return cls.model_validate_json(data)
        except ValidationError as error:
            raise CheckpointError(f"the program cannot be read: {_problem(error)}") from error
        except (ValueError, RecursionError) as error:
            raise CheckpointError(f"the program cannot be read: it is no sound JSON: {error}") from error


def _check_size(data: bytes) -> None:
    if len(data) > MAX_BYTES:
        raise CheckpointError(f"the program has {len(data):,} bytes; at most {MAX_BYTES:,} are read")


def _without_duplicates(pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) != len(pairs):
        raise ValueError("a key stands twice in an object")


def _problem(error: ValidationError) -> str:
    first = error.errors(include_url=False, include_input=False, include_context=False)[0]
    return f"{'.'.join(map(str, first['loc'][:4])) or 'document'}: {first['msg']}"
