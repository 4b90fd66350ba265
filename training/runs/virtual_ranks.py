"""Shares out each batch, and adds up what is made of the shares, so that all processes take the same step.

A virtual rank does the same share of each batch, whichever process does it. What it draws at random belongs to it and
to the step, and the sums are taken in its order. So the weights are the same to the last bit, however many processes
there are.
"""

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import nn

from training.errors import TrainingError
from training.process_group import ALONE, OrderedSum, ProcessGroup
from training.recipes.recipe import Recipe
from training.runs.learner import Learner

LEAST = 2  # samples of a share: a norm over a batch needs two


@dataclass(frozen=True, slots=True)
class Share:
    """Is what one virtual rank does of a batch.

    Args:
        rank: the virtual rank.
        rows: int64 [n], the samples.
        weight: its part of the batch, above 0 to 1.
    """

    rank: int
    rows: torch.Tensor
    weight: float


@dataclass(frozen=True, slots=True)
class VirtualRanks:
    """Says who does what.

    Args:
        count: into so many shares each batch is cut.
        in_order: sums are taken in the order of the virtual ranks. Otherwise there is one for each process, and the
            order is whatever is fast.
    """

    count: int = 1
    group: ProcessGroup = ALONE
    in_order: bool = True

    @classmethod
    def of(cls, recipe: Recipe, group: ProcessGroup) -> Self:
        """Returns what the recipe says for these processes. Raises: TrainingError if they are too many for it."""
        if recipe.all_reduce:
            if LEAST * group.size > recipe.batch_size:
                raise TrainingError(
                    f"batch_size={recipe.batch_size} is too small for {group.size} processes: "
                    f"each needs {LEAST} images of a batch"
                )
            return cls(group.size, group, in_order=False)
        if group.size > recipe.virtual_ranks:
            fewer = f"start {recipe.virtual_ranks} at most, " if recipe.virtual_ranks > 1 else ""
            raise TrainingError(
                f"{group.size} processes are more than the recipe's virtual_ranks={recipe.virtual_ranks}: {fewer}"
                f"add --set virtual_ranks={group.size} or more, for weights that do not depend on how many processes "
                "there are, or --all-reduce, for weights that do"
            )
        return cls(recipe.virtual_ranks, group)

    def check_enough(self, samples: int) -> None:
        """Checks that there is a share for each virtual rank. Raises: TrainingError if not."""
        if self.count > 1 and samples < LEAST * self.count:
            raise TrainingError(
                f"{samples} training images are too few for {self.count} virtual ranks, "
                f"of which each needs {LEAST}: take fewer"
            )

    @property
    def parts(self) -> list[range]:
        """The virtual ranks of each process."""
        return self.group.parts(self.count)

    def batches(self, order: torch.Tensor, size: int) -> tuple[torch.Tensor, ...]:
        """Cuts `order` into batches of `size`. What is too little for a last one joins the one before."""
        pieces = torch.split(order, size)
        if len(pieces) > 1 and len(pieces[-1]) < LEAST * self.count:
            return (*pieces[:-2], torch.cat(pieces[-2:]))
        return pieces

    def shares(self, batch: torch.Tensor) -> list[Share]:
        """Returns what this process does of a batch."""
        rows = torch.tensor_split(batch, self.count)
        return [Share(rank, rows[rank], len(rows[rank]) / len(batch)) for rank in self.parts[self.group.rank]]

    def draws(self, learner: Learner, share: Share, *, draw: int, step: int) -> torch.Generator:
        """Returns what draws for a share. Torch's own generators, from which dropout draws, begin anew for it, too.

        Where there is one virtual rank, all goes on with the generators of the run.

        Args:
            draw: the seed of what is done to images in this epoch.
            step: the number of the batch in this epoch.
        """
        if self.count == 1:
            return learner.generator
        of_images, of_layers = np.random.SeedSequence([draw, step, share.rank]).generate_state(2, np.uint64).tolist()
        torch.manual_seed(of_layers)
        return torch.Generator().manual_seed(of_images)


WHOLE_BATCHES = VirtualRanks()


class StepSums:
    """Adds up what the shares of a batch make: the gradients, and the changes of the network's buffers.

    A buffer, such as the running mean of a batch norm, changes by the mean of what the shares would change. If it holds
    whole numbers, it changes as the first share says.
    """

    def __init__(self, learner: Learner, ranks: VirtualRanks) -> None:
        self._ranks = ranks
        self._parameters = [p for p in learner.network.parameters() if p.requires_grad]
        parts = [learner.network.get_submodule(name) for name in learner.parts]
        self._buffers = _Buffers(parts)
        self._layouts = [_Layout.of(tensor) for tensor in (*self._parameters, *self._buffers.tensors)]
        self._sum = OrderedSum(ranks.group, ranks.parts)
        self._memory: torch.Tensor | None = None
        self._dtype = torch.float32
        for tensor in (*self._parameters, *self._buffers.tensors):
            if tensor.is_floating_point():
                self._dtype = torch.promote_types(self._dtype, tensor.dtype)

    def of(self, shares: Sequence[Share], work: Callable[[Share], torch.Tensor]) -> torch.Tensor:
        """Does the shares of this process, and returns the sums of the figures of all shares.

        Afterwards the parameters have the gradients of the whole batch, and the buffers have changed.

        Args:
            work: does a share. It leaves its gradients with the parameters, and returns figures, float [k].
        """
        if self._ranks.count == 1:
            for parameter in self._parameters:
                parameter.grad = None
            return work(*shares)
        before = [buffer.clone() for buffer in self._buffers.tensors]
        lacking = set(range(len(self._parameters)))  # those that no share of this process gives a gradient

        def row(share: Share) -> list[torch.Tensor]:
            for parameter in self._parameters:
                parameter.grad = None
            self._buffers.set(before)
            figures = work(share)
            lacking.difference_update(i for i, p in enumerate(self._parameters) if p.grad is not None)
            pieces = [
                *(torch.zeros_like(p) if p.grad is None else p.grad for p in self._parameters),
                *(_change(after, value, share) for after, value in zip(self._buffers.now, before, strict=True)),
                figures.new_tensor([p.grad is not None for p in self._parameters]),
                figures,
            ]
            return [piece.detach().to(self._dtype) for piece in pieces]

        *sums, givers, figures = self._added(map(row, shares))
        for i, (parameter, gradient) in enumerate(zip(self._parameters, sums, strict=False)):
            parameter.grad = None if i in lacking and not givers[i] else gradient.to(parameter.dtype)
        self._buffers.set(map(_changed, before, sums[len(self._parameters) :]))
        return figures

    def _added(self, rows: Iterator[list[torch.Tensor]]) -> list[torch.Tensor]:
        """Adds up the rows of all processes, each a list of tensors."""
        first = next(rows)
        group = self._ranks.group
        if group.size == 1:
            for row in rows:
                for i, tensor in enumerate(row):
                    first[i] += tensor
            return first
        flat = (self._flat(row) for row in itertools.chain([first], rows))
        total = self._sum.of(flat) if self._ranks.in_order else group.sum(next(flat))
        pieces = torch.split(total, [*map(torch.numel, first), len(total) - sum(map(torch.numel, first))])
        return [layout.shaped(piece) for layout, piece in zip(self._layouts_of(first), pieces, strict=False)]

    def _flat(self, row: list[torch.Tensor]) -> torch.Tensor:
        """Returns all values of a row behind one another, and zeros up to a multiple of the number of processes.

        The result takes the place of the one before.
        """
        pieces = [layout.flat(tensor) for layout, tensor in zip(self._layouts_of(row), row, strict=True)]
        pieces.append(pieces[0].new_zeros(-sum(map(len, pieces)) % self._ranks.group.size))
        if self._memory is None:
            self._memory = torch.cat(pieces)
            return self._memory
        return torch.cat(pieces, out=self._memory)

    def _layouts_of(self, row: list[torch.Tensor]) -> list["_Layout"]:
        """Returns the layout of each tensor of a row: that of its parameter or buffer, whatever its own is."""
        return [*self._layouts, *map(_Layout.of, row[len(self._layouts) :])]


class _Buffers:
    """Knows the buffers of some modules by their places: a module may put a new tensor into one of them."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        every = {
            id(buffer): (module._buffers, name, buffer)
            for part in modules
            for module in part.modules()
            for name, buffer in module._buffers.items()
            if buffer is not None
        }
        self._places = [(buffers, name) for buffers, name, _ in every.values()]
        self.tensors = [buffer for *_, buffer in every.values()]

    @property
    def now(self) -> list[torch.Tensor]:
        """What is in these places now."""
        return [_there(buffers[name]) for buffers, name in self._places]

    def set(self, values: Iterable[torch.Tensor]) -> None:
        """Puts the tensors back that were there, with these values."""
        for (buffers, name), tensor, value in zip(self._places, self.tensors, values, strict=True):
            buffers[name] = tensor.copy_(value)


def _there(buffer: torch.Tensor | None) -> torch.Tensor:
    if buffer is None:
        raise TrainingError("the network takes a buffer away while it trains: that does not go with virtual ranks")
    return buffer.detach()


@dataclass(frozen=True, slots=True)
class _Layout:
    """Says in which order the dimensions of a tensor lie in memory. In this order nothing must be moved to be flat."""

    shape: torch.Size
    order: tuple[int, ...]

    @classmethod
    def of(cls, tensor: torch.Tensor) -> Self:
        return cls(tensor.shape, tuple(sorted(range(tensor.dim()), key=lambda each: -tensor.stride()[each])))

    def flat(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.permute(self.order).reshape(-1)

    def shaped(self, flat: torch.Tensor) -> torch.Tensor:
        there = flat.view([self.shape[each] for each in self.order])
        return there.permute([self.order.index(each) for each in range(len(self.order))])


def _change(after: torch.Tensor, before: torch.Tensor, share: Share) -> torch.Tensor:
    """Returns the part that a share has in the change of a buffer. What is infinite before, changes from 0."""
    if not after.is_floating_point():
        return (after.long() - before.long()) * (share.rank == 0)
    return torch.where(after == before, 0, after - torch.where(before.isfinite(), before, 0)) * share.weight


def _changed(before: torch.Tensor, change: torch.Tensor) -> torch.Tensor:
    if not before.is_floating_point():
        return before + change.round().long()
    return torch.where(change == 0, before, torch.where(before.isfinite(), before, 0) + change)
