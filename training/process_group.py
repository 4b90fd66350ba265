"""Lets the processes of one run work as one, where torchrun or another engine has started several.

All processes do the same in the same order, so that each exchange meets its counterparts. The first process alone
writes files and talks to people.
"""

import itertools
import os
import socket
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self

import torch
import torch.distributed as dist

from classifier.torchvision_parts import TorchvisionError
from training.errors import Interrupted, SaidElsewhere, TrainingError, one_line

_START_PATIENCE = timedelta(minutes=5)  # with processes that have not come yet
_PATIENCE = timedelta(hours=12)  # with what one process does alone; if it ends, the others are told at once
_LOOK_SECONDS = 0.5
_DIMENSIONS = 8  # the most that an exchanged tensor has


@dataclass(frozen=True, slots=True)
class ProcessGroup:
    """Is the processes of a run, as one of them sees it.

    Args:
        rank: the number of this process, from 0.
        size: how many processes there are.
        local_rank, local_size: the same, among those on this machine.
        restarts: who started the processes may start them again, by the same command.
        starts: how often that has happened.
        max_restarts: how often it may, for failures.
        shares_store: the processes find each other by the store of torchrun's own, which outlives them.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    local_size: int = 1
    restarts: bool = False
    starts: int = 0
    max_restarts: int = 0
    shares_store: bool = False

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """Returns what torchrun says of this process, or another engine by the same variables.

        Raises: TrainingError if a variable makes no sense.
        """
        if not {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= environment.keys():
            return cls()
        numbers = {
            name: _number(environment, name, missing)
            for name, missing in (("RANK", 0), ("WORLD_SIZE", 1), ("LOCAL_RANK", 0), ("LOCAL_WORLD_SIZE", 1))
        }
        rank, size, local_rank, local_size = numbers.values()
        if rank >= size:
            raise TrainingError(f"RANK={rank} and WORLD_SIZE={size} are in the environment: ranks count from 0")
        return cls(
            *(rank, size, local_rank, local_size),
            restarts="TORCHELASTIC_RUN_ID" in environment,
            starts=_number(environment, "TORCHELASTIC_RESTART_COUNT", 0),
            max_restarts=_number(environment, "TORCHELASTIC_MAX_RESTARTS", 0),
            shares_store=environment.get("TORCHELASTIC_USE_AGENT_STORE") == str(True),
        )

    @property
    def is_first(self) -> bool:
        """Whether this process writes files and talks to people."""
        return self.rank == 0

    @contextmanager
    def joined(self, *, parent: int) -> Iterator[None]:
        """Connects the processes. Of all that fail, the first one says why.

        A process that torchrun has started ends when torchrun does. Otherwise it would go on with nobody to end it, and
        hold the run's folder.

        Args:
            parent: the number of the process that had started this one when it began.

        Raises: TrainingError if the processes do not find each other; SaidElsewhere if another one has said why.
        """
        if self.restarts:
            threading.Thread(target=_end_with, args=(parent,), name="watch parent", daemon=True).start()
        if self.size == 1:
            yield
            return
        store = self._connected()
        try:
            yield
            self.together()
        except (TrainingError, TorchvisionError, OSError, KeyboardInterrupt) as error:
            if not _is_first_to_say(store):
                raise SaidElsewhere from error
            if self.is_first or not isinstance(error, TrainingError) or isinstance(error, Interrupted):
                raise
            raise TrainingError(f"{error} (process {self.rank} of {self.size}, on {socket.gethostname()})") from error
        except Exception:
            _is_first_to_say(store)  # its traceback does
            raise
        dist.destroy_process_group()

    def _connected(self) -> dist.Store:  # type: ignore[name-defined]
        """Connects the processes, and returns the store that they share. Raises: TrainingError."""
        try:
            store, _, _ = next(iter(dist.rendezvous("env://", timeout=_START_PATIENCE)))  # type: ignore[attr-defined]
            # What processes that have ended wrote into it is not for these. (Several agents may count differently, but
            # then the store is a new one: `check_restarts` sees to it.)
            start = self.starts if self.shares_store else 0
            store = dist.PrefixStore(f"start-{start}", store)  # type: ignore[attr-defined]
            store.set(f"here-{self.rank}", "")
            store.wait([f"here-{rank}" for rank in range(self.size)], _START_PATIENCE)
            backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
            dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.size, timeout=_PATIENCE)
        except (RuntimeError, ValueError, OSError) as error:
            raise TrainingError(
                f"process {self.rank} of {self.size} does not find the others: {one_line(error)}"
            ) from error
        return store

    def together(self) -> None:
        """Waits until all processes are here."""
        if self.size > 1:
            _exchange(dist.barrier)

    @contextmanager
    def first_alone(self) -> Iterator[None]:
        """Lets the first process do something while the others wait, and then the others."""
        if not self.is_first:
            self.together()
        try:
            yield
        except BaseException:
            if self.is_first:
                with suppress(LostProcessError):  # what went wrong here comes first
                    self.together()
            raise
        if self.is_first:
            self.together()

    def share(self, tensors: Iterable[torch.Tensor]) -> None:
        """Gives these tensors the values that they have in the first process."""
        for tensor in tensors if self.size > 1 else ():
            values = tensor.detach().reshape(-1).contiguous()
            if values.numel():
                _exchange(dist.broadcast, values.view(torch.uint8), src=0)
                tensor.detach().copy_(values.view(tensor.shape))

    def check_same(self, text: str, problem: str) -> None:
        """Checks that a text is that of the first process. Raises: TrainingError, which says `problem`, if not."""
        if self.text_of_first(text) != text:
            raise TrainingError(problem)

    def text_of_first(self, text: str) -> str:
        """Returns the text that the first process gave."""
        if self.size == 1:
            return text
        content = torch.tensor(list(text.encode()), dtype=torch.uint8)
        return bytes(self._tensor_of(0, content).tolist()).decode()

    def in_turns(self, mine: Iterator[torch.Tensor], count: int) -> Iterator[torch.Tensor]:
        """Gives `count` tensors in order, on every process, of which each process makes every `size`-th.

        Args:
            mine: those of this process, which begin with that of its rank. They are on the CPU.
        """
        if self.size == 1:
            yield from mine
            return
        for start in range(0, count, self.size):
            own = next(mine) if start + self.rank < count else torch.empty(0)
            for rank in range(min(self.size, count - start)):
                yield self._tensor_of(rank, own)

    def parts(self, count: int) -> list[range]:
        """Returns which of `count` pieces of work each process does: as equal a number of them as can be."""
        ends = [count * rank // self.size for rank in range(self.size + 1)]
        return [range(*ends_of_one) for ends_of_one in itertools.pairwise(ends)]

    def sum(self, row: torch.Tensor) -> torch.Tensor:
        """Adds up one row of each process, in whatever order is fast. `row` becomes the sum."""
        if self.size > 1:
            _exchange(dist.all_reduce, row)
        return row

    def _tensor_of(self, rank: int, own: torch.Tensor) -> torch.Tensor:
        """Returns the tensor of the process `rank`. Those of all have the same type."""
        shape = [own.dim(), *own.shape, *[0] * (_DIMENSIONS - own.dim())]
        header = torch.tensor(shape)
        _exchange(dist.broadcast, header, src=rank)
        dimensions, *sizes = header.tolist()
        tensor = own.contiguous() if rank == self.rank else own.new_empty(sizes[:dimensions])
        if tensor.numel():
            _exchange(dist.broadcast, tensor, src=rank)
        return tensor


ALONE = ProcessGroup()


class OrderedSum:
    """Adds up rows of all processes: the second to the first, the third to their sum, and so on.

    So the sum is the same to the last bit, however many processes there are. Each process gets a part of the columns of
    all rows, adds these up, and gives the sums to all. If each process has one row, that is as much traffic as a ring
    all-reduce has (Patarasuk and Yuan 2009). What is received has its memory from the first sum to the last: new memory
    takes almost as long to get as to fill.

    Args:
        parts: the numbers of the rows of each process, from 0 in the order of the processes. Each has one.
    """

    def __init__(self, group: ProcessGroup, parts: Sequence[range]) -> None:
        self._group = group
        turns = range(max(map(len, parts)))
        # By the turn: the numbers of the rows that the processes give, in the order of the processes.
        self._numbers = [{rank: part[turn] for rank, part in enumerate(parts) if turn < len(part)} for turn in turns]
        self._received: list[torch.Tensor] = []

    def of(self, rows: Iterator[torch.Tensor]) -> torch.Tensor:
        """Returns the sum, float [columns]. It takes the place of this process's last row.

        Args:
            rows: float [columns], of this process. `columns` is a multiple of the number of processes, and the same
                each time.
        """
        row = next(rows)
        width = len(row) // self._group.size
        if not self._received:
            self._received = [row.new_empty(len(numbers), width) for numbers in self._numbers]
        pieces: dict[int, torch.Tensor] = {}
        for numbers, received in zip(self._numbers, self._received, strict=True):
            given = row if self._group.rank in numbers else row[:0]
            widths = [width if rank in numbers else 0 for rank in range(self._group.size)]
            each = [len(given) // self._group.size] * self._group.size
            _exchange(dist.all_to_all_single, received.view(-1), given, widths, each)
            pieces |= zip(numbers.values(), received, strict=True)
            row = next(rows, row)
        sums = torch.split(row, width)
        own = sums[self._group.rank].copy_(pieces[0])
        for number in range(1, len(pieces)):
            own += pieces[number]
        for rank, piece in enumerate(sums):  # gloo gathers half as fast as it broadcasts
            _exchange(dist.broadcast, piece, src=rank)
        return row


class LostProcessError(TrainingError):
    """Another process has ended before its work did."""

    def __init__(self, error: Exception) -> None:
        super().__init__(
            "another process of this run has ended; the same command and --resume go on from what is kept "
            f"({one_line(error)})"
        )


def _number(environment: Mapping[str, str], name: str, missing: int) -> int:
    text = environment.get(name, str(missing))
    if not text.isdecimal():
        raise TrainingError(f"{name} is {text!r} in the environment: torchrun sets it to a number")
    return int(text)


def _exchange(operation: Callable[..., Any], *arguments: Any, **options: Any) -> None:
    try:
        operation(*arguments, **options)
    except RuntimeError as error:  # whatever gloo and NCCL raise if a connection ends
        raise LostProcessError(error) from error


def _is_first_to_say(store: Any) -> bool:
    try:
        return int(store.add("said", 1)) == 1
    except RuntimeError:  # the store has ended, with the process that held it
        return True


def _end_with(parent: int) -> None:
    """Ends this process, as SIGKILL would, when its parent has ended: nobody would start it again, or end it."""
    while os.getppid() == parent:
        time.sleep(_LOOK_SECONDS)
    os._exit(1)
