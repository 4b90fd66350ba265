"""Finds the nodes that may overwrite what they are given, as networks written by hand do with `ReLU(inplace=True)`.

A large result then costs no new memory, which the system would have to clear first.
"""

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from classifier.program.document import Node, ValueRef

# They always make new memory: nothing else that lives lies in it.
_MAKE_NEW = frozenset(
    ("conv2d", "conv2d.padding", "batch_norm", "linear", "layer_norm", "max_pool2d", "mean.dim", "mul.Tensor")
)


class InPlace:
    """Knows which nodes of a program are the last to take a value whose memory nothing else lies in.

    Args:
        nodes: all nodes of the program.
        output: the number of the value that holds the logits.
    """

    def __init__(self, nodes: Sequence[Node], output: int) -> None:
        self._nodes = nodes
        self._output = output
        self._takers: dict[int, list[int]] = {}  # by a value's number: the nodes that take it, in their order
        for at, node in enumerate(nodes):
            for value in set(node.values()):
                self._takers.setdefault(value, []).append(at)

    def call(self, at: int, constants: Container[int]) -> Callable[..., Any] | None:
        """Returns what computes node `at` in the memory of one of its inputs; None if there is none that it may use.

        Args:
            constants: the numbers of the values that are computed once, for all batches.
        """
        node = self._nodes[at]
        if node.kwargs or node.op not in _OVERWRITE:
            return None
        if node.op != "add.Tensor":
            return _OVERWRITE[node.op] if len(node.args) == 1 and self._is_free(node.args[0], at, constants) else None
        if len(node.args) != 2 or node.args[0] == node.args[1]:
            return None
        if self._is_free(node.args[0], at, constants):
            return _add
        return _add_to_second if self._is_free(node.args[1], at, constants) else None

    def _is_free(self, argument: object, at: int, constants: Container[int]) -> bool:
        if not isinstance(argument, ValueRef) or argument.value in (0, self._output) or argument.value in constants:
            return False
        *others, last = self._takers[argument.value]
        return last == at and all(self._makes_new(each) for each in (argument.value - 1, *others))

    def _makes_new(self, at: int) -> bool:
        return self._nodes[at].op in _MAKE_NEW or self._nodes[at].op in _OVERWRITE


def _add(values: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    return values.add_(others) if _are_alike(values, others) else torch.add(values, others)


def _add_to_second(values: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    return others.add_(values) if _are_alike(values, others) else torch.add(values, others)


def _are_alike(values: Any, others: Any) -> bool:
    # A sum that is laid out otherwise than a new one would be is added up in another order by what comes next.
    return (
        isinstance(values, torch.Tensor)
        and isinstance(others, torch.Tensor)
        and values.shape == others.shape
        and values.stride() == others.stride()
        and values.dtype == others.dtype
    )


_OVERWRITE: Mapping[str, Callable[..., Any]] = {
    "add.Tensor": _add,
    "relu": torch.relu_,
    "hardswish": lambda values: F.hardswish(values, inplace=True),
    "silu": lambda values: F.silu(values, inplace=True),
}
