"""Finds out what a program costs before it computes anything: it is walked through on torch's meta device.

There, tensors have types and shapes, and no values. The largest batch is walked through with all that it costs. In
smaller ones no tensor may be larger (`classifier.program.network.Watch`).
"""

import math
import time
import weakref
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from classifier.header import CheckpointError
from classifier.program.document import Program
from classifier.program.network import ProgramNetwork, Sizes, Watch, first_line, sizes_of

# For each image of a batch. The largest network of torchvision's takes 2e12 operations.
MAX_OPERATIONS = 1e13
MAX_RESULT = 1 << 28  # numbers in one result
MAX_NUMBERS = 1 << 35  # numbers that all operators together read and write
MAX_BYTES = 1 << 31  # in all results that are needed at the same time
MAX_SECONDS = 60.0  # of a processor, for one walk; ViT-B/32 takes below 2
_MAX_RANK = 16
_META = torch.device("meta")


def check(
    program: Program,
    shape: Sequence[int],
    classes: int,
    max_batch: int,
    *,
    every_batch: bool = False,
    free_memory: float = math.inf,
) -> Sizes:
    """Checks that a program makes logits of 1, 2 and `max_batch` images, within bounds, and says how large all becomes.

    Args:
        shape: of an image as the network takes it: (channels, height, width).
        classes: how many logits there must be for each image.
        every_batch: checks every number of images up to `max_batch`. Without that the network must watch itself.
        free_memory: how many bytes the largest batch may take.

    Returns: what the nodes make of the largest batch, by their numbers.

    Raises:
        CheckpointError: it cannot, or takes more than any network here may.
        MemoryError: a batch takes more than `free_memory`.
    """
    costs = _Costs(min(max_batch, 2))  # what is computed once may take as much as two images do
    largest: dict[int, list[tuple[int, ...]]] = {}

    def note(number: int, value: Any) -> None:
        largest[number] = sizes_of(value)
        _check_sizes(number, largest[number])

    batch = max_batch
    try:
        with costs:
            tensors = {
                name: torch.empty(each.shape, dtype=getattr(torch, each.dtype), device=_META)
                for name, each in program.tensors.items()
            }
            network = ProgramNetwork(program, tensors, device=_META).eval()
            costs.images = max_batch
            _check_logits(network.run(torch.empty(batch, *shape, device=_META), note), batch, classes)
        for batch in range(1, max_batch) if every_batch else (each for each in (1, 2) if each < max_batch):
            images = torch.empty(batch, *shape, device=_META)
            _check_logits(network.run(images, _Hurried(Watch(largest, batch))), batch, classes)
    except CheckpointError:
        raise
    except Exception as error:
        raise CheckpointError(f"the program cannot compute a batch of {batch}: {first_line(error)}") from error
    if costs.most_bytes > free_memory:
        raise MemoryError(
            f"the program takes {costs.most_bytes / 1e9:.1f} GB for a batch of {max_batch}, where "
            f"{free_memory / 1e9:.1f} GB are free: serve it with a smaller max_batch"
        )
    return largest


def _check_logits(logits: Any, batch: int, classes: int) -> None:
    if not isinstance(logits, torch.Tensor) or logits.dtype != torch.float32:
        raise CheckpointError("the program's result is not a tensor of float32")
    if tuple(logits.shape) != (batch, classes):
        raise CheckpointError(
            f"the program makes {list(logits.shape)} of a batch of {batch}, where {[batch, classes]} is expected"
        )


def _check_sizes(number: int, sizes: Sequence[tuple[int, ...]]) -> None:
    # Empty tensors have no use in a network, and some operators divide by their sizes.
    if any(size <= 0 for shape in sizes for size in shape):
        raise CheckpointError(f"the program's node {number - 1} makes {sizes[:3]}: something is empty")
    if any(len(shape) > _MAX_RANK for shape in sizes):
        raise CheckpointError(f"the program's node {number - 1} makes a tensor of more than {_MAX_RANK} dimensions")


class _Deadline:
    """Ends a walk that takes too long: some shapes take torch a quarter of a second to find."""

    def __init__(self) -> None:
        self._end = time.thread_time() + MAX_SECONDS

    def check(self) -> None:
        """Raises: CheckpointError if the time is over."""
        if time.thread_time() > self._end:
            raise CheckpointError("the program is too large: its shapes take longer to check than any network's here")


class _Hurried:
    """Watches the values of a walk, until its time is over."""

    def __init__(self, watch: Watch) -> None:
        self._watch, self._deadline = watch, _Deadline()

    def __call__(self, number: int, value: Any) -> None:
        self._deadline.check()
        self._watch(number, value)


class _Costs(TorchDispatchMode):
    """Counts what the operators would do, and ends it where that is too much.

    Args:
        images: how many there are; so many times the bounds hold. It may be set anew.
    """

    def __init__(self, images: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        # It brings triton, which takes half a second and 70 MB: a server without programs shall not pay for it.
        from torch.utils.flop_counter import flop_registry

        self._operations_of = flop_registry
        self._deadline = _Deadline()
        self.most_bytes = 0
        self.images = images
        self._operations = 0.0
        self._numbers = 0
        self._bytes = 0
        self._storages: dict[int, Any] = {}  # weak references to what is needed now

    def __torch_dispatch__(
        self, function: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        self._deadline.check()
        result = function(*args, **(kwargs or {}))
        made, taken = _tensors(result), _tensors((args, kwargs))
        largest = max((each.numel() for each in made), default=0)
        if largest > MAX_RESULT * self.images:
            raise CheckpointError(f"the program is too large: {function} makes {largest:,} numbers")
        self._numbers += sum(each.numel() for each in (*made, *taken))
        count = self._operations_of.get(function.overloadpacket)
        if count is not None:
            operations = count(*args, **(kwargs or {}), out_val=result)
            if made[0].is_floating_point():
                self._operations += operations
            else:  # products of whole numbers are computed one by one
                self._numbers += operations
        if "pool" in function.__name__:
            self._numbers += made[0].numel() * _window(function.__name__, args, made[0])
        for each in made:
            self._keep(each)
        # What does not lie in one piece may be copied before it is used.
        copies = sum(each.numel() * each.itemsize for each in taken if not each.is_contiguous())
        self.most_bytes = max(self.most_bytes, self._bytes + copies)
        if (
            self._operations > MAX_OPERATIONS * self.images
            or self._numbers > MAX_NUMBERS * self.images
            or self.most_bytes > MAX_BYTES * self.images
        ):
            raise CheckpointError("the program is too large: it computes more than any network here may")
        return result

    def _keep(self, tensor: torch.Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._storages:
            return

        def gone(_: Any) -> None:
            del self._storages[key]
            self._bytes -= size

        self._storages[key] = weakref.ref(storage, gone)
        self._bytes += size


def _tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, torch.Tensor)]


def _window(pool: str, args: Sequence[Any], result: torch.Tensor) -> int:
    """Returns how many values a pool looks at for each of its results, at the most.

    Args:
        pool: the operator's name.
        args: its arguments: values and, unless it is adaptive, the window's sizes. One size stands for all dimensions.
    """
    dimensions = 2 if "2d" in pool else 1
    if "adaptive" in pool:
        given, made = args[0].shape[-dimensions:], result.shape[-dimensions:]
        return math.prod(each // parts + 2 for each, parts in zip(given, made, strict=True))
    window = args[1] if isinstance(args[1], list | tuple) else [args[1]]
    return math.prod(window if len(window) == dimensions else [*window] * dimensions)
