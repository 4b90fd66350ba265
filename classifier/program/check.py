"""Finds out what a program costs before it computes anything: it is walked through on torch's meta device."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from classifier.header import CheckpointError
from classifier.program.document import Program
from classifier.program.network import ProgramNetwork

# For one image. The largest network of torchvision's takes 2e12 operations, and the largest result in it 2e8 numbers.
MAX_OPERATIONS = 1e13
MAX_RESULT = 1 << 29  # numbers in one result
MAX_RESULTS = 1 << 36  # numbers in all results together


def check(program: Program, shape: Sequence[int], classes: int, batches: Sequence[int]) -> None:
    """Checks that a program makes logits of images, and within bounds.

    Args:
        shape: of an image as the network takes it: (channels, height, width).
        classes: how many logits there must be for each image.
        batches: the sizes of batches that are tried.

    Raises: CheckpointError.
    """
    tensors = {
        name: torch.empty(each.shape, dtype=getattr(torch, each.dtype), device="meta")
        for name, each in program.tensors.items()
    }
    for batch in batches:
        try:
            with _Bounds(batch):
                logits = ProgramNetwork(program, tensors)(torch.empty(batch, *shape, device="meta"))
        except CheckpointError:
            raise
        except Exception as error:
            reason = str(error).partition("\n")[0]
            raise CheckpointError(f"the program cannot compute a batch of {batch}: {reason}") from error
        if not isinstance(logits, torch.Tensor) or logits.dtype != torch.float32:
            raise CheckpointError("the program's result is not a tensor of float32")
        if tuple(logits.shape) != (batch, classes):
            raise CheckpointError(
                f"the program makes {list(logits.shape)} of {batch} images, where {[batch, classes]} is expected"
            )


class _Bounds(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts what the operators would do, and ends it where that is too much."""

    def __init__(self, batch: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._batch = batch
        self._operations = 0.0
        self._results = 0.0

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        made = [leaf.numel() for leaf in tree_leaves(result) if isinstance(leaf, torch.Tensor)]
        if max(made, default=0) > MAX_RESULT * self._batch:
            raise CheckpointError(f"the program is too large: {function} makes {max(made):,} numbers")
        self._results += sum(made)
        count = flop_registry.get(function.overloadpacket)
        if count is not None:
            self._operations += count(*args, **(kwargs or {}), out_val=result)
        if "pool" in function.__name__:
            self._operations += sum(made) * _window(args)
        if self._operations > MAX_OPERATIONS * self._batch or self._results > MAX_RESULTS * self._batch:
            raise CheckpointError("the program is too large: it computes more than any network here may")
        return result


def _window(args: Sequence[Any]) -> int:
    """Returns how many values a pool looks at for each of its results, at the most."""
    window = 1
    for size in args[1] if len(args) > 1 and isinstance(args[1], list | tuple) else ():
        window *= size
    return window
