"""Where batches are computed: on the event loop or in threads beside it, and with how many of torch's threads."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from app.engine.rows import Item, Row
from app.inference.predictor import Predictor

# A network is large if one image takes longer than this. It gains more from the last core than the front-ends lose.
# mnist_cnn takes 0.3 ms, ResNet-18 40.
_LARGE_SECONDS = 0.005

# The preferred size of a batch that is computed on the loop, for each of torch's threads. Larger ones gain little, and
# the front-ends wait for all of a batch's answers: with up to 64, both processes of two cores were idle for a fifth of
# the time.
_ITEMS_ON_THE_LOOP = 16

# Each thread that computes keeps threads of torch's, up to one for each core.
_MOST_CONCURRENT = 8


class Executor:
    """Computes the batches of one device.

    On a CPU, batches of large networks are computed at the same time, and share the cores. A batch that begins alone
    takes all of them, because a lone client has its answer sooner then. A batch that begins beside another takes its
    share: with a core for each batch, more images are done than with all cores for one. Batches of small networks are
    computed one after the other, and leave a core for HTTP.

    Args:
        cores: how many may be used.
        torch_threads: how many each batch takes, one batch at a time then. 0 decides by the network and by what else
            goes on.
        compiled: the networks are compiled. For another number of threads torch would compile anew, while a batch
            waits; so one batch is computed at a time.
        owns_loop: nothing else runs on this event loop, so that a small network may compute on it. (Two threads of one
            interpreter hand it to and fro, which then costs more than either does.)
    """

    def __init__(
        self,
        device: torch.device,
        *,
        cores: int,
        torch_threads: int = 0,
        compiled: bool = False,
        owns_loop: bool = False,
    ) -> None:
        self._cores = cores
        self._torch_threads = torch_threads or (self._all_but_one if compiled else 0)
        self._owns_loop = owns_loop
        self._on_cpu = device.type == "cpu"
        self.max_concurrent = 1
        if device.type == "cuda":
            self.max_concurrent = 2  # one batch is copied while another is computed
        elif self._on_cpu and not self._torch_threads:
            self.max_concurrent = min(cores, _MOST_CONCURRENT)
        self._threads = ThreadPoolExecutor(self.max_concurrent, thread_name_prefix="compute")
        self._computing = 0

    def prepare_thread(self) -> None:
        """Sets torch's threads for what the calling thread computes besides batches, such as a verification."""
        _use(self._usual_threads)

    def preferred_batch(self, predictor: Predictor) -> int | None:
        """Gives the preferred size of a batch that mixes several callers; None where the largest batch is best."""
        if not self._is_for_the_loop(predictor):
            return None
        return _ITEMS_ON_THE_LOOP * self._usual_threads

    def exclusive(self, predictor: Predictor) -> bool:
        """Says whether one batch at a time is best: what comes meanwhile makes the next one larger."""
        return self._on_cpu and not _is_large(predictor)

    async def predict(self, predictor: Predictor, items: Sequence[Item]) -> list[Row]:
        """Computes a batch. At the most `max_concurrent` callers wait at a time, on one event loop."""
        threads = self._threads_of(predictor)
        self._computing += 1
        try:
            if self._is_for_the_loop(predictor):
                return _predict(predictor, items, threads)
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, _predict, predictor, items, threads)
        finally:
            self._computing -= 1

    def close(self) -> None:
        self._threads.shutdown()

    def _is_for_the_loop(self, predictor: Predictor) -> bool:
        """Says whether it may compute on the loop.

        What comes meanwhile must fit into the kernel's buffers, and one photo fills them.
        """
        return self._owns_loop and self.exclusive(predictor)

    def _threads_of(self, predictor: Predictor) -> int:
        """Decides how many of torch's threads the next batch takes."""
        cores = self._cores if _is_large(predictor) else self._all_but_one
        return self._torch_threads or max(1, cores // (self._computing + 1))

    @property
    def _usual_threads(self) -> int:
        """Says how many threads a batch takes that is small and has no batch beside it."""
        return self._torch_threads or self._all_but_one

    @property
    def _all_but_one(self) -> int:
        """Torch's threads wait for one another by spinning, and one too many slows them all tenfold."""
        return max(1, self._cores - 1)


def _is_large(predictor: Predictor) -> bool:
    return predictor.seconds_alone > _LARGE_SECONDS


def _predict(predictor: Predictor, items: Sequence[Item], threads: int) -> list[Row]:
    _use(threads)
    return predictor.predict(items)


def _use(threads: int) -> None:
    """Sets how many of torch's threads the calling thread computes with: torch keeps the number by thread."""
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
