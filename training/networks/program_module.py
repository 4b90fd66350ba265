"""Makes of a program a module that torch.export can record, with the names that the weights have in the checkpoint.

`classifier.program.network` runs programs. What it makes cannot be recorded: its constants are computed already, and
its weights have the names of its nodes.
"""

import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

from classifier.header import CheckpointError
from classifier.program.document import Argument, Program, TensorRef, ValueRef
from classifier.program.operators import OPERATORS, literal

# The sizes of a batch that torch records are no numbers yet, which a program's own operators on sizes insist on.
_ON_SIZES: Mapping[str, Callable[..., Any]] = {
    "size_add": operator.add,
    "size_sub": operator.sub,
    "size_mul": operator.mul,
    "size_floordiv": operator.floordiv,
    "size_mod": operator.mod,
    "size_max": torch.sym_max,
    "size_min": torch.sym_min,
}


class ProgramModule(nn.Module):
    """Computes what a program says, node by node.

    Weights and constants have their names in the checkpoint. The constants are buffers that are no part of the
    state_dict.

    Args:
        program: one that `classifier.program.check` has accepted.
        tensors: by the names that the program uses. They are shared and not copied.

    Raises: CheckpointError if a tensor has a name that no module can have.
    """

    def __init__(self, program: Program, tensors: Mapping[str, torch.Tensor]) -> None:
        super().__init__()
        self._program = program
        self._places: dict[str, tuple[nn.Module, str]] = {}
        for name, tensor in tensors.items():
            self._places[name] = _register(self, name, tensor)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Computes logits [n, classes] of float32 [n, channels, height, width]."""
        values: list[Any] = [images]
        for node in self._program.nodes:
            args = [self._resolved(argument, values) for argument in node.args]
            kwargs = {name: self._resolved(argument, values) for name, argument in node.kwargs.items()}
            values.append(_ON_SIZES.get(node.op, OPERATORS[node.op].call)(*args, **kwargs))
        logits: torch.Tensor = values[self._program.output]
        return logits

    def _resolved(self, argument: Argument, values: list[Any]) -> Any:
        match argument:
            case tuple():
                return [self._resolved(each, values) for each in argument]
            case ValueRef():
                return values[argument.value]
            case TensorRef():
                module, name = self._places[argument.tensor]
                return getattr(module, name)
        return literal(argument)


def _register(network: nn.Module, name: str, tensor: torch.Tensor) -> tuple[nn.Module, str]:
    """Puts a tensor into the network, and returns the module that has it, and its name there."""
    kind, *path, last = name.split(".")
    module = network
    try:
        for part in path:
            below = module._modules.get(part)
            if below is None:
                below = nn.Module()
                module.add_module(part, below)
            module = below
        if kind == "constant":
            module.register_buffer(last, tensor, persistent=False)
        else:
            module.register_parameter(last, nn.Parameter(tensor, requires_grad=False))
    except KeyError as error:
        raise CheckpointError(f"no module can have a tensor that is called {name!r}") from error
    return module, last
