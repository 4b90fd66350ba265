"""Runs a program: makes of the document and its tensors a network like any other."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import nn

from classifier.header import CheckpointError
from classifier.program.document import Argument, DTypeRef, Node, Program, TensorRef, ValueRef
from classifier.program.in_place import InPlace
from classifier.program.modules import Value, as_module
from classifier.program.operators import OPERATORS, SIZES, Operator, literal

# By a node's number: the shapes of its tensors, and whole numbers as shapes of one dimension.
Sizes = Mapping[int, Sequence[tuple[int, ...]]]

_FLOATS = ("float32", "float64")
_INDEX_TYPES = (torch.int64, torch.int32)
_CPU = torch.device("cpu")
_IMAGES = 0  # the value that holds them


class ProgramNetwork(nn.Module):
    """Computes what a program says: float [n, channels, height, width] to logits [n, classes].

    What does not depend on the images is computed once, when the network is made. Convolutions, linear layers, pools,
    and batch norms behind convolutions become torch's modules of these names. So whatever makes a network quicker
    finds them. The others call their operator.

    Args:
        program: `classifier.program.check` is to be asked first what it costs.
        tensors: by the names that the program uses. They are shared and not copied.
        device: where the tensors are.
        largest: what the nodes make at the most, as `check` has found out. A batch in which one of them makes more is
            an error. None: nothing is watched.

    Raises: CheckpointError if an operator is not known, or refuses what it is given.
    """

    def __init__(
        self,
        program: Program,
        tensors: Mapping[str, torch.Tensor],
        *,
        device: torch.device = _CPU,
        largest: Sizes | None = None,
    ) -> None:
        super().__init__()
        self._largest = largest
        self._watched: set[int] = set()  # the numbers of images whose sizes are known to be right
        parameters = {name: nn.Parameter(tensor, requires_grad=False) for name, tensor in tensors.items()}
        like_images = torch.empty(1, device=device)
        constants: dict[int, Any] = {}
        sizes: set[int] = set()  # the values that are whole numbers, and depend on the number of images
        overwriting = InPlace(program.nodes, program.output)
        steps: list[tuple[str, tuple[int, ...], int]] = []
        for number, node in enumerate(program.nodes, start=1):
            try:
                operator = _operator(node)
                args = [_resolved(argument, constants, parameters) for argument in node.args]
                kwargs = {name: _resolved(argument, constants, parameters) for name, argument in node.kwargs.items()}
                takes = tuple(dict.fromkeys(value for value in node.values() if value not in constants))
                if not takes:
                    constants[number] = _constant(_Operation(operator, args, kwargs, takes), like_images)
                    continue
                _check_dependence(operator, args, takes, sizes)
                if node.op in SIZES:
                    sizes.add(number)
                module = as_module(node, program.nodes, args, kwargs)
                if module is None:
                    in_place = overwriting.call(number - 1, constants)
                    if in_place is not None:
                        operator = replace(operator, call=in_place)
                    module = _Operation(operator, args, kwargs, takes)
                    takes = module.takes
            except (RuntimeError, TypeError, ValueError, LookupError, ArithmeticError) as error:
                raise CheckpointError(f"the program's node {number - 1} ({node.op}): {first_line(error)}") from error
            self.add_module(str(number), module)
            steps.append((str(number), takes, number))
        if program.output in constants:
            raise CheckpointError("the program's result does not depend on the images")
        self._output = program.output
        self._steps = _with_last_uses(steps, program.output)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Computes logits [n, classes]. Raises: RuntimeError, and more of torch's errors, if it cannot."""
        count = images.shape[0]
        if self._largest is None or torch.compiler.is_compiling() or count in self._watched:
            return self.run(images, None)
        logits = self.run(images, Watch(self._largest, count))
        self._watched.add(count)  # sizes depend on nothing but this number
        return logits

    def run(self, images: torch.Tensor, seen: Callable[[int, Any], None] | None) -> torch.Tensor:
        """Does what `forward` does.

        Args:
            seen: is told the number of each node, from 1, and its value.
        """
        values: dict[int, Any] = {_IMAGES: images}
        modules: Mapping[str, Any] = self._modules
        for name, takes, number, no_more in self._steps:
            value = modules[name](*[values[each] for each in takes])
            if seen is not None:
                seen(number, value)
            values[number] = value
            for each in no_more:
                del values[each]
        logits: torch.Tensor = values[self._output]
        return logits


class Watch:
    """Ends a batch in which a node makes more than it does in the largest batch.

    A program computes with sizes. One that makes little of 1 image, of 2 and of 64 could make very much of 7.
    """

    def __init__(self, largest: Sizes, count: int) -> None:
        self._largest = largest
        self._count = count

    def __call__(self, number: int, value: Any) -> None:
        """Checks one value. Raises: RuntimeError."""
        sizes, largest = sizes_of(value), self._largest[number]
        if list(map(len, sizes)) != list(map(len, largest)) or any(
            here > there for pair in zip(sizes, largest, strict=True) for here, there in zip(*pair, strict=True)
        ):
            raise RuntimeError(
                f"the program's node {number - 1} makes {sizes[:3]} of {self._count} images and {largest[:3]} of the "
                "largest batch: sizes may only grow with the batch"
            )


def sizes_of(value: Any) -> list[tuple[int, ...]]:
    """Returns the shapes of the tensors of a value; of a whole number, itself."""
    several = value if isinstance(value, list | tuple) else [value]
    return [tuple(each.shape) if isinstance(each, torch.Tensor) else (each,) for each in several]


def first_line(error: Exception) -> str:
    """Returns what an error says in its first line, or its kind where it says nothing."""
    return str(error).partition("\n")[0] or type(error).__name__


class _ImagesType:
    """Stands for the type that the images have: that in which the network computes."""


_IMAGES_TYPE = _ImagesType()


class _Operation(nn.Module):
    """Calls an operator. Its tensors are its parameters, so that they go where the network goes.

    Args:
        args, kwargs: constants, parameters and `Value`s, or lists of them.
        takes: the numbers of the values among them.

    Attributes:
        takes: the numbers of the values that `forward` is given. The images are among them if the operator needs
            their type or device.
    """

    def __init__(
        self, operator: Operator, args: Sequence[Any], kwargs: Mapping[str, Any], takes: tuple[int, ...]
    ) -> None:
        super().__init__()
        operator.check_types(args, kwargs)
        if operator.makes_floats(args) and kwargs.get("dtype") is None:
            kwargs = {**kwargs, "dtype": _IMAGES_TYPE}
        arguments: dict[Any, Any] = {**dict(enumerate(args)), **kwargs}
        self._call = operator.call
        self._makes_tensor = operator.makes_tensor
        by_images = operator.makes_tensor or any(each is _IMAGES_TYPE for each in arguments.values())
        self.takes = (_IMAGES, *(each for each in takes if each != _IMAGES)) if by_images else takes
        self._positional = [None if _is_given_later(each) else each for each in args]
        self._keywords = {name: None if _is_given_later(each) else each for name, each in kwargs.items()}
        self._types = [at for at, argument in arguments.items() if argument is _IMAGES_TYPE]
        # Where an input goes, or a parameter, or a list that holds some of both and other things.
        self._inputs = [
            (at, self.takes.index(each.number)) for at, each in arguments.items() if isinstance(each, Value)
        ]
        self._tensors = [(at, self._kept(each)) for at, each in arguments.items() if isinstance(each, nn.Parameter)]
        self._lists = [
            (at, [self._source(each) for each in argument])
            for at, argument in arguments.items()
            if isinstance(argument, list) and any(map(_is_given_later, argument))
        ]
        # Values are all that it is given, each once.
        self._plain = len(self._inputs) == len(self.takes) == len(args) and not kwargs and operator.indices is None
        self._sizes, self._counts_from_end = operator.indexed_sizes, operator.counts_from_end
        self._ranges = _ranges(operator, args)

    def forward(self, *inputs: Any) -> Any:
        """Computes the operator's result for the values that `takes` names."""
        if self._plain:
            return self._call(*inputs)
        arguments: Any = self._positional.copy()
        keywords: Any = self._keywords
        if keywords or self._makes_tensor:
            keywords = dict(keywords)
        for at, i in self._inputs:
            (keywords if isinstance(at, str) else arguments)[at] = inputs[i]
        for at, name in self._tensors:
            (keywords if isinstance(at, str) else arguments)[at] = self._parameters[name]
        for at, sources in self._lists:
            (keywords if isinstance(at, str) else arguments)[at] = [
                inputs[each] if kind == "input" else self._parameters[each] if kind == "tensor" else each
                for kind, each in sources
            ]
        for at in self._types:
            (keywords if isinstance(at, str) else arguments)[at] = inputs[0].dtype
        if self._makes_tensor:
            keywords["device"] = inputs[0].device
        if self._ranges:
            self._check_indices(arguments)
        return self._call(*arguments, **keywords)

    def _check_indices(self, arguments: Sequence[Any]) -> None:
        """Checks that all indices are in range. On a GPU, one that is not would end the whole process's work there."""
        for size, (lowest, highest) in zip(self._sizes(arguments), self._ranges, strict=True):
            if lowest < (-size if self._counts_from_end else 0) or highest >= size:
                raise IndexError(f"an index is out of range: {lowest} to {highest} of {size}")

    def _kept(self, tensor: nn.Parameter) -> str:
        name = f"tensor_{len(self._parameters)}"
        self.register_parameter(name, tensor)
        return name

    def _source(self, each: Any) -> tuple[str, Any]:
        if isinstance(each, Value):
            return "input", self.takes.index(each.number)
        return ("tensor", self._kept(each)) if isinstance(each, nn.Parameter) else ("constant", each)


def _is_given_later(argument: Any) -> bool:
    """Whether it is not the same in each call and on each device."""
    return isinstance(argument, Value | nn.Parameter) or argument is _IMAGES_TYPE


def _ranges(operator: Operator, args: Sequence[Any]) -> list[tuple[int, int]]:
    """Returns the lowest and the highest of each of the operator's indices, which must be constants.

    On the meta device nobody knows them, and nothing is computed with them.
    """
    if operator.indices is None:
        return []
    given = args[operator.indices]
    ranges = []
    for each in given if isinstance(given, list) else [given]:
        if each is None:
            continue
        if not isinstance(each, torch.Tensor) or each.dtype not in _INDEX_TYPES:
            raise TypeError("its indices are no whole numbers")
        if not each.is_meta:
            ranges.append((int(each.min()), int(each.max())))
    return ranges


def _check_dependence(operator: Operator, args: Sequence[Any], takes: Sequence[int], sizes: set[int]) -> None:
    if not operator.takes_sizes and not sizes.isdisjoint(takes):
        raise TypeError("it takes a size that depends on the number of images")
    fixed = [*operator.constants, *([] if operator.indices is None else [operator.indices])]
    for argument in (args[at] for at in fixed if at < len(args)):
        if any(isinstance(each, Value) for each in (argument if isinstance(argument, list) else [argument])):
            raise TypeError("what must be constant depends on the images")


def _operator(node: Node) -> Operator:
    if node.op not in OPERATORS:
        raise LookupError("there is no such operator here; a newer version of flambeau may have it")
    return OPERATORS[node.op]


def _constant(operation: _Operation, like_images: torch.Tensor) -> Any:
    with torch.no_grad():
        result = operation(*[like_images for _ in operation.takes])
    if isinstance(result, list | tuple):
        return [nn.Parameter(each, requires_grad=False) for each in result]
    return nn.Parameter(result, requires_grad=False) if isinstance(result, torch.Tensor) else result


def _resolved(argument: Argument, constants: Mapping[int, Any], parameters: Mapping[str, nn.Parameter]) -> Any:
    match argument:
        case tuple():
            return [_resolved(each, constants, parameters) for each in argument]
        case ValueRef():
            return constants[argument.value] if argument.value in constants else Value(argument.value)
        case TensorRef():
            return parameters[argument.tensor]
        case DTypeRef() if argument.dtype in _FLOATS:
            return _IMAGES_TYPE
    return literal(argument)


def _with_last_uses(
    steps: Sequence[tuple[str, tuple[int, ...], int]], output: int
) -> tuple[tuple[str, tuple[int, ...], int, tuple[int, ...]], ...]:
    """Adds to each step the values that nobody takes afterwards. Memory then holds no more than it must."""
    seen = {output}
    result = []
    for name, takes, number in reversed(steps):
        last = tuple(value for value in (*takes, number) if value not in seen)
        seen.update(last)
        result.append((name, takes, number, last))
    return tuple(reversed(result))
