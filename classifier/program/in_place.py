"""Finds the nodes that may overwrite what they are given, as networks written by hand do with `ReLU(inplace=True)`.

A large result then costs no new memory, which the system would have to clear first.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from classifier.program.document import Node, ValueRef

# They always make new memory: nothing else that lives lies in it.
_MAKE_NEW = frozenset(
    ("conv2d", "conv2d.padding", "batch_norm", "linear", "layer_norm", "max_pool2d", "mean.dim", "mul.Tensor")
)


def overwriting(at: int, nodes: Sequence[Node], output: int) -> Callable[..., Any] | None:
    """Returns what computes node `at` in the memory of its input; None if it must not, or cannot.

    Args:
        output: the number of the value that holds the logits.
    """
    node = nodes[at]
    if node.kwargs or node.op not in _OVERWRITE:
        return None
    if node.op == "add.Tensor":
        if len(node.args) != 2 or node.args[0] == node.args[1]:
            return None
        if _is_free(node.args[0], at, nodes, output):
            return _add
        return _add_to_second if _is_free(node.args[1], at, nodes, output) else None
    return _OVERWRITE[node.op] if len(node.args) == 1 and _is_free(node.args[0], at, nodes, output) else None


def _is_free(argument: object, at: int, nodes: Sequence[Node], output: int) -> bool:
    """Says whether the memory of an argument of node `at` holds nothing that anybody needs afterwards."""
    if not isinstance(argument, ValueRef) or argument.value in (0, output):
        return False
    takers = [i for i, node in enumerate(nodes) if argument.value in node.values()]
    made_by = [nodes[argument.value - 1], *(nodes[i] for i in takers if i != at)]
    return takers[-1] == at and all(each.op in _MAKE_NEW or each.op in _OVERWRITE for each in made_by)


def _add(values: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    if isinstance(others, torch.Tensor) and values.shape == others.shape and values.dtype == others.dtype:
        return values.add_(others)
    return torch.add(values, others)


def _add_to_second(values: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    return _add(others, values)


_OVERWRITE: Mapping[str, Callable[..., Any]] = {
    "add.Tensor": _add,
    "relu": torch.relu_,
    "hardswish": lambda values: F.hardswish(values, inplace=True),
    "silu": lambda values: F.silu(values, inplace=True),
}
