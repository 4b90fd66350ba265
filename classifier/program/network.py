"""Runs a program: makes of the document and its tensors a network like any other."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from classifier.header import CheckpointError
from classifier.program.document import (
    Argument,
    DTypeRef,
    InfinityRef,
    MemoryFormatRef,
    Node,
    Program,
    TensorRef,
    ValueRef,
    WordRef,
)
from classifier.program.modules import Value, as_module
from classifier.program.operators import OPERATORS, Operator

_FLOATS = ("float32", "float64")


class ProgramNetwork(nn.Module):
    """Computes what a program says: float [n, channels, height, width] to logits [n, classes].

    What does not depend on the images is computed once, when the network is made. Convolutions, linear layers, pools,
    and batch norms behind convolutions become torch's modules of these names. So whatever makes a network quicker
    finds them. The others call their operator.

    Args:
        program: `classifier.program.check` is to be asked first, with what it costs.
        tensors: by the names that the program uses, all on one device. They are shared and not copied.

    Raises: CheckpointError if an operator is not known, or refuses what it is given.
    """

    def __init__(self, program: Program, tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        parameters = {name: nn.Parameter(tensor, requires_grad=False) for name, tensor in tensors.items()}
        device = next((tensor.device for tensor in tensors.values()), torch.device("cpu"))
        constants: dict[int, Any] = {}
        plan: list[tuple[str, tuple[int, ...], int]] = []
        for number, node in enumerate(program.nodes, start=1):
            operator = _operator(node, number)
            args = [_resolved(argument, constants, parameters) for argument in node.args]
            kwargs = {name: _resolved(argument, constants, parameters) for name, argument in node.kwargs.items()}
            takes = tuple(dict.fromkeys(value for value in node.values() if value not in constants))
            if not takes:
                constants[number] = _constant(_Operation(operator, args, kwargs, takes), device, node, number)
                continue
            if any(isinstance(each, Value) for at in operator.indices for each in _flat(args[at : at + 1])):
                raise CheckpointError(f"{_place(node, number)}: its indices depend on the image")
            module = as_module(node, program.nodes, args, kwargs)
            if module is None:
                module = _Operation(operator, args, kwargs, takes)
                takes = module.takes
            self.add_module(str(number), module)
            plan.append((str(number), takes, number))
        if program.output in constants:
            raise CheckpointError("the program's result does not depend on the image")
        self._output = program.output
        self._plan = _with_last_uses(plan, program.output)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Computes logits [n, classes]."""
        values: dict[int, Any] = {0: images}
        modules: Mapping[str, Any] = self._modules
        for name, takes, number, forgets in self._plan:
            values[number] = modules[name](*[values[each] for each in takes])
            for each in forgets:
                del values[each]
        logits: torch.Tensor = values[self._output]
        return logits


class _ImagesType:
    """Stands for the type that the images have: that in which the network computes."""


_IMAGES_TYPE = _ImagesType()


class _Operation(nn.Module):
    """Calls an operator. Its tensors are its parameters, so that they go where the network goes.

    Args:
        args, kwargs: constants, parameters and `Value`s, or lists of them.
        takes: the numbers of the values that `forward` is given.
    """

    def __init__(
        self, operator: Operator, args: Sequence[Any], kwargs: Mapping[str, Any], takes: tuple[int, ...]
    ) -> None:
        super().__init__()
        self._call: Callable[..., Any] = operator.call
        self._makes_tensor = operator.makes_tensor
        self._positional = len(args)
        self._names = tuple(kwargs)
        self._arguments = [*args, *kwargs.values()]
        self._by_images = operator.makes_tensor or any(each is _IMAGES_TYPE for each in _flat(self._arguments))
        self.takes = (0, *(each for each in takes if each != 0)) if self._by_images else takes
        inputs = {number: i for i, number in enumerate(self.takes)}
        # What is put into the arguments: (position, position in the list there or None, number of the input or name).
        self._inputs: list[tuple[int, int | None, int]] = []
        self._tensors: list[tuple[int, int | None, str]] = []
        self._types: list[int] = []
        for i, argument in enumerate(self._arguments):
            for j, each in enumerate(argument) if isinstance(argument, list) else ((None, argument),):
                if isinstance(each, Value):
                    self._inputs.append((i, j, inputs[each.number]))
                elif isinstance(each, nn.Parameter):
                    name = f"tensor_{len(self._tensors)}"
                    self.register_parameter(name, each)
                    self._tensors.append((i, j, name))
                elif each is _IMAGES_TYPE:
                    self._types.append(i)
        self._lists = [i for i, argument in enumerate(self._arguments) if isinstance(argument, list)]

    def forward(self, *inputs: Any) -> Any:
        """Computes the operator's result for the values that `takes` names."""
        like = inputs[0] if self._by_images else None
        return self.compute(inputs, None if like is None else like.device, None if like is None else like.dtype)

    def compute(self, inputs: Sequence[Any], device: torch.device | None, dtype: torch.dtype | None) -> Any:
        """Does what `forward` does.

        Args:
            device: where a new tensor is made.
            dtype: what its numbers are.
        """
        arguments = list(self._arguments)
        for i in self._lists:
            arguments[i] = list(arguments[i])
        for i, j, name in self._tensors:
            _put(arguments, i, j, self._parameters[name])
        for i, j, at in self._inputs:
            _put(arguments, i, j, inputs[at])
        for i in self._types:
            arguments[i] = dtype
        kwargs = dict(zip(self._names, arguments[self._positional :], strict=True))
        if self._makes_tensor:
            kwargs["device"] = device
        return self._call(*arguments[: self._positional], **kwargs)


def _put(arguments: list[Any], i: int, j: int | None, value: Any) -> None:
    if j is None:
        arguments[i] = value
    else:
        arguments[i][j] = value


def _operator(node: Node, number: int) -> Operator:
    if node.op not in OPERATORS:
        raise CheckpointError(f"{_place(node, number)}: there is no such operator here")
    return OPERATORS[node.op]


def _constant(operation: _Operation, device: torch.device, node: Node, number: int) -> Any:
    try:
        with torch.no_grad():
            result = operation.compute((), device, torch.float32)
    except (RuntimeError, TypeError, ValueError, IndexError, NotImplementedError) as error:
        raise CheckpointError(f"{_place(node, number)}: {error}") from error
    return nn.Parameter(result, requires_grad=False) if isinstance(result, torch.Tensor) else result


def _resolved(argument: Argument, constants: Mapping[int, Any], parameters: Mapping[str, nn.Parameter]) -> Any:
    match argument:
        case tuple():
            return [_resolved(each, constants, parameters) for each in argument]
        case ValueRef():
            return constants[argument.value] if argument.value in constants else Value(argument.value)
        case TensorRef():
            return parameters[argument.tensor]
        case DTypeRef():
            return _IMAGES_TYPE if argument.dtype in _FLOATS else getattr(torch, argument.dtype)
        case MemoryFormatRef():
            return getattr(torch, argument.memory_format)
        case WordRef():
            return argument.word
        case InfinityRef():
            return float(argument.infinity)
    return argument


def _flat(arguments: Sequence[Any]) -> list[Any]:
    return [each for argument in arguments for each in (argument if isinstance(argument, list) else [argument])]


def _with_last_uses(
    plan: Sequence[tuple[str, tuple[int, ...], int]], output: int
) -> tuple[tuple[str, tuple[int, ...], int, tuple[int, ...]], ...]:
    """Adds to each step the values that nobody takes afterwards. Memory then holds no more than it must."""
    seen = {output}
    steps = []
    for name, takes, number in reversed(plan):
        last = tuple(value for value in (*takes, number) if value not in seen)
        seen.update(last)
        steps.append((name, takes, number, last))
    return tuple(reversed(steps))


def _place(node: Node, number: int) -> str:
    return f"the program's node {number - 1} ({node.op})"
