"""Lets processes work on jobs, in order and a few jobs ahead. No process outlives the one that started it.

Each worker has a pipe of its own; no thread and no lock is shared. So an interrupt leaves nothing to wait for, whenever
it comes: a worker ends when its pipe is closed, and a wait for a worker that has died ends too. (concurrent.futures can
hang for ever if Ctrl-C comes while a job is submitted. DataLoader starts its processes again for every epoch.)
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
from training.data.handover import HandoverError, receive, send
from training.errors import TrainingError

J = TypeVar("J")
R = TypeVar("R")

_AHEAD = 3  # jobs per worker that are begun before their results are wanted


class Workers:
    """Owns some processes. They start when they are first needed.

    They end with this object, or with this process, however it ends. Use it from one thread only.

    Args:
        count: how many processes; 0: this process does the work; None: as many as there are cores.
        preload: the names of modules that the jobs need and that take long to import.
    """

    def __init__(self, count: int | None = None, *, preload: tuple[str, ...] = ()) -> None:
        self.count = usable_cores() if count is None else count
        self._preload = preload
        self._pipes: list[Connection] = []
        self._tickets = 0
        self._wanted: set[int] = set()
        self._arrived: dict[int, tuple[Any, Exception | None]] = {}

    def map(self, function: Callable[[J], R], jobs: Iterable[J | None]) -> Iterator[R]:
        """Gives the results in the order of the jobs. Several calls may go on at once, and any may be left early.

        Args:
            jobs: None is no job. It says that the next one waits until a result is taken.
            function: it is imported by its name in each process. Its results may hold large arrays and tensors (on
                the CPU, without gradients). These do not go through the pipe.

        Raises: what `function` raises; WorkerEndedError if a process ends.
        """
        if self.count == 0:
            yield from (function(job) for job in jobs if job is not None)
            return
        tickets: deque[int] = deque()
        try:
            for job in jobs:
                if job is not None:
                    tickets.append(self._give(function, job))
                if tickets and (job is None or len(tickets) > _AHEAD * self.count):
                    yield self._take(tickets.popleft())
            while tickets:
                yield self._take(tickets.popleft())
        finally:
            self._wanted.difference_update(tickets)

    def start(self) -> None:
        """Begins to start the processes, and does not wait until they are there."""
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
        """Returns one result. A worker's results come in the order of its jobs; those nobody wants are dropped."""
        if ticket not in self._wanted:
            raise WorkerEndedError  # meanwhile, in another call
        with self._all_or_none():
            while ticket not in self._arrived:
                number, result, problem = receive(self._pipes[ticket % self.count])
                if number in self._wanted:
                    self._arrived[number] = result, problem
        self._wanted.discard(ticket)
        result, problem = self._arrived.pop(ticket)
        if problem is not None:
            raise problem
        return result

    @contextmanager
    def _all_or_none(self) -> Iterator[None]:
        """Drops all workers if one of them died, or if an interrupt came in the middle of a message."""
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
            "a worker process ended unexpectedly: perhaps there was not enough memory; try fewer --workers "
            "(0: everything in one process, which is also the way out for a script without a __main__ guard)"
        )


def _begun(context: BaseContext) -> Connection:
    """Starts a worker and returns the pipe to it. The worker ends when this end of the pipe is closed."""
    ours, its = context.Pipe()
    context.Process(target=_work, args=(its,), daemon=True).start()  # type: ignore[attr-defined]
    its.close()
    return ours


def _work(pipe: Connection) -> None:
    """Does one job after another, in the worker's process, until the pipe is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    try:
        while True:
            ticket, function, job = pipe.recv()  # which imports what the function needs
            _compute_in_one_thread()
            result: object = None
            problem: Exception | None = None
            try:
                result = function(job)
            except MemoryError:
                problem = TrainingError("a worker process has not enough memory: try fewer --workers")
            except Exception as error:  # noqa: BLE001  whatever it is, it is for whoever gave the job
                problem = error
            try:
                send(pipe, (ticket, result, problem))
            except HandoverError as error:
                send(pipe, (ticket, None, error))
            del function, job, result, problem
    except (EOFError, OSError):  # nobody is there any more
        return


def _compute_in_one_thread() -> None:
    """Keeps torch, if a job needs it, to one thread: all workers together use all cores."""
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
    """Gives processes that start meanwhile a stderr that goes nowhere.

    What goes wrong in a job comes back as its error. A process that was just starting when this one ended has nothing
    to say about it.
    """
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
