"""Workers: processes that make something of jobs, in order and a few jobs ahead; none outlives this process.

Each has a pipe of its own and no thread or lock is shared, so an interrupt at any moment leaves nothing to wait for:
a worker whose pipe is closed ends, and so does a wait for one that has died. (concurrent.futures can hang for ever
when Ctrl-C comes while a job is submitted; DataLoader starts its processes anew for every epoch.)
"""

import os
import signal
import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import forkserver, get_all_start_methods, get_context, resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from typing import Any, TypeVar

from classifier.cores import usable_cores
from training.errors import TrainingError

J = TypeVar("J")
R = TypeVar("R")

_AHEAD = 3  # jobs per worker that are begun before their results are wanted


class Workers:
    """Started when they are first needed; they end with this object, or with this process, however it ends.

    Args:
        count: of processes; 0: all is done in this one; None: as many as there are cores.
        preload: modules that take long to import, and that the jobs need.
    """

    def __init__(self, count: int | None = None, *, preload: tuple[str, ...] = ()) -> None:
        self.count = usable_cores() if count is None else count
        self._preload = preload
        self._pipes: list[Connection] = []
        self._tickets = 0
        self._wanted: set[int] = set()
        self._arrived: dict[int, tuple[Any, Exception | None]] = {}

    def map(self, function: Callable[[J], R], jobs: Iterable[J]) -> Iterator[R]:
        """The results in the order of the jobs. Several calls may go on at once, and any may be left early.

        Args:
            function: its results are small, or tensors: these are shared, not sent.

        Raises: what `function` raises; WorkerEndedError if a process dies.
        """
        if self.count == 0:
            yield from map(function, jobs)
            return
        tickets: deque[int] = deque()
        try:
            for job in jobs:
                tickets.append(self._give(function, job))
                if len(tickets) > _AHEAD * self.count:
                    yield self._take(tickets.popleft())
            while tickets:
                yield self._take(tickets.popleft())
        finally:
            self._wanted.difference_update(tickets)

    def start(self) -> None:
        """Begins with what takes long about starting them, and does not wait for it."""
        if self.count:
            _context(self._preload)

    def _give(self, function: Callable[[J], R], job: J) -> int:
        with self._all_or_none():
            if not self._pipes:
                self._pipes = [_begun(_context(self._preload)) for _ in range(self.count)]
            ticket = self._tickets
            self._tickets += 1
            self._wanted.add(ticket)
            self._pipes[ticket % self.count].send((ticket, function, job))
        return ticket

    def _take(self, ticket: int) -> Any:
        """The results of one worker come in the order of its jobs; those that nobody wants any more are dropped."""
        if ticket not in self._wanted:
            raise WorkerEndedError  # meanwhile, in another call
        with self._all_or_none():
            while ticket not in self._arrived:
                number, result, problem = self._pipes[ticket % self.count].recv()
                if number in self._wanted:
                    self._arrived[number] = result, problem
        self._wanted.discard(ticket)
        result, problem = self._arrived.pop(ticket)
        if problem is not None:
            raise problem
        return result

    @contextmanager
    def _all_or_none(self) -> Iterator[None]:
        """Whoever is interrupted in the middle of a message, or whose worker has died, has no use for the others."""
        try:
            yield
        except BaseException as error:
            self._pipes = []
            self._wanted.clear()
            self._arrived.clear()
            if isinstance(error, (EOFError, OSError)):
                raise WorkerEndedError from error
            raise


class WorkerEndedError(TrainingError):
    """A worker process ended before its work did."""

    def __init__(self) -> None:
        super().__init__(
            "a worker process ended unexpectedly: perhaps it was killed for want of memory; try fewer --workers "
            "(0: everything in one process, which is also the way out for a script without a __main__ guard)"
        )


def _begun(context: BaseContext) -> Connection:
    """The pipe to a new worker, which ends when this end of it is closed."""
    ours, its = context.Pipe()
    context.Process(target=_work, args=(its,), daemon=True).start()  # type: ignore[attr-defined]
    its.close()
    return ours


def _work(pipe: Connection) -> None:
    """What a worker does."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    try:
        while True:
            ticket, function, job = pipe.recv()  # which imports what the function needs
            _compute_in_one_thread()
            result, problem = None, None
            try:
                result = function(job)
            except Exception as error:  # noqa: BLE001  whatever it is, it is for whoever gave the job
                problem = error
            pipe.send((ticket, result, problem))
            del function, job, result, problem
    except (EOFError, OSError):  # nobody is there any more
        return


def _compute_in_one_thread() -> None:
    """The workers together use all cores; torch, where a job needs it, must not do so in each of them."""
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(1)


def _context(preload: tuple[str, ...]) -> BaseContext:
    # Not forked from this process: its threads, their locks and a GPU's state would not survive that.
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload([*preload])
    resource_tracker.ensure_running()  # it changes the mask of signals; afterwards it leaves it alone
    # What the server inherits, its processes inherit from it. Ctrl-C is for this process alone.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with _nothing_on_stderr():
            forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


@contextmanager
def _nothing_on_stderr() -> Iterator[None]:
    """For processes that are begun meanwhile: what goes wrong in a job comes back as its error, and one that was just
    being started when this process ended has nothing to say about it."""
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
