"""Workers: processes that make something of jobs, in order and a few jobs ahead; none outlives this process."""

import os
import signal
import threading
import warnings
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import forkserver, get_all_start_methods, get_context, parent_process, resource_tracker
from multiprocessing.context import BaseContext
from typing import TypeVar

import torch

from training.errors import TrainingError

J = TypeVar("J")
R = TypeVar("R")

_AHEAD = 3  # jobs per worker that are begun before their results are wanted


def usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class Workers:
    """Started when they are first needed; they end with this object, or with this process, however it ends.

    Args:
        count: of processes; 0: all is done in this one; None: as many as there are cores.
        preload: modules that take long to import, and that the jobs need.
    """

    def __init__(self, count: int | None = None, *, preload: tuple[str, ...] = ()) -> None:
        self.count = usable_cores() if count is None else count
        self._preload = preload
        self._pool: ProcessPoolExecutor | None = None

    def map(self, function: Callable[[J], R], jobs: Iterable[J]) -> Iterator[R]:
        """The results in the order of the jobs; leaving early drops what was not begun.

        Raises: what `function` raises; TrainingError if a process dies.
        """
        if self.count == 0:
            yield from map(function, jobs)
            return
        self._pool = pool = self._pool or self._started()
        begun: deque[Future[R]] = deque()
        try:
            for job in jobs:
                begun.append(pool.submit(function, job))
                if len(begun) > _AHEAD * self.count:
                    yield begun.popleft().result()
            while begun:
                yield begun.popleft().result()
        except BrokenProcessPool as error:
            self._pool = None
            raise TrainingError(
                "a worker process ended unexpectedly: perhaps it was killed for want of memory; try fewer --workers "
                "(0: everything in one process, which is also the way out for a script without a __main__ guard)"
            ) from error
        finally:
            for future in begun:
                future.cancel()

    def start(self) -> None:
        """Begins with what takes long about starting them, and does not wait for it."""
        if self.count and self._pool is None:
            self._pool = self._started()

    def _started(self) -> ProcessPoolExecutor:
        pool = ProcessPoolExecutor(self.count, mp_context=_context(self._preload), initializer=_begin)
        weakref.finalize(self, pool.shutdown, cancel_futures=True)
        return pool


def _context(preload: tuple[str, ...]) -> BaseContext:
    # Not forked from this process: its threads, their locks and a GPU's state would not survive that.
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload([*preload])
    resource_tracker.ensure_running()  # it changes the mask of signals; afterwards it leaves it alone
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()  # inherits the mask, and its processes from it: Ctrl-C is for this process alone
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return context


def _begin() -> None:
    """In a worker, before its first job."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)


def _end_with_parent() -> None:
    parent = parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
