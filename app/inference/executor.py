"""Where batches are computed, on the event loop or in threads beside it, and with how many of torch's threads."""

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch

from app.engine.rows import Item, Row
from app.inference.predictor import Predictor

# A network that takes longer for one image is a large one: it gains more from the last core than the front-ends lose.
# mnist_cnn takes 0.3 ms, ResNet-18 40.
_LARGE_SECONDS = 0.005

# Of several callers in one batch on the loop, for each of torch's threads, unless twice as many wait and more. Larger
# ones gain little, and the front-ends wait for all of its answers: with up to 64, both processes of two cores were idle
# for a fifth of the time.
_ITEMS_ON_THE_LOOP = 16

# Each thread that computes keeps threads of torch's, up to one for each core.
_MOST_AT_ONCE = 8


class Executor:
    """One device's. On a CPU, batches of large networks that are computed at once share the cores: one that begins
    alone takes them all, one that begins beside another its share. More images are done with a core for each batch
    than with all for one; a lone client, though, has its answer sooner with all. Those of small networks are computed
    one after the other, with a core left for HTTP.

    Args:
        cores: that may be used.
        torch_threads: of each batch, one batch at a time then; 0 decides by the network and by what else goes on.
        compiled: networks are; for another number of threads torch would compile anew, while a batch waits.
        alone: nothing else runs on this event loop, so that a small network may compute on it, without a thread beside
            it. (Two threads of one interpreter hand it to and fro, which then costs more than either does.)
    """

    def __init__(
        self, device: torch.device, *, cores: int, torch_threads: int = 0, compiled: bool = False, alone: bool = False
    ) -> None:
        self._cores = cores
        self._torch_threads = torch_threads or (self._all_but_one if compiled else 0)
        self._alone = alone
        self._on_cpu = device.type == "cpu"
        self.at_once = 1
        if device.type == "cuda":
            self.at_once = 2  # one batch is copied while another is computed
        elif self._on_cpu and not self._torch_threads:
            self.at_once = min(cores, _MOST_AT_ONCE)
        self._threads = ThreadPoolExecutor(self.at_once, thread_name_prefix="compute")
        self._computing = 0

    def prepare_thread(self) -> None:
        """For what the calling thread computes besides batches, such as a proof."""
        _use(self._usual_threads)

    def max_together(self, predictor: Predictor) -> int | None:
        """Items of several callers in one batch, where it is best to have fewer than may be; else None."""
        if not self._is_for_the_loop(predictor):
            return None
        return _ITEMS_ON_THE_LOOP * self._usual_threads

    def in_turn(self, predictor: Predictor) -> bool:
        """Whether one batch at a time is best for it: the next one, as large as it can be by then, is sooner done."""
        return self._on_cpu and not _is_large(predictor)

    async def predict(self, predictor: Predictor, items: Sequence[Item]) -> list[Row]:
        """Of `at_once` callers at the most, on one event loop."""
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
        """Only as long as what comes meanwhile has room in the kernel's buffers: one photo fills them."""
        return self._alone and self.in_turn(predictor)

    def _threads_of(self, predictor: Predictor) -> int:
        """For the next batch."""
        cores = self._cores if _is_large(predictor) else self._all_but_one
        return self._torch_threads or max(1, cores // (self._computing + 1))

    @property
    def _usual_threads(self) -> int:
        """Of what is small and has no batch beside it."""
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
    """Of what this thread computes: torch keeps the number by thread."""
    if torch.get_num_threads() != threads:
        torch.set_num_threads(threads)
