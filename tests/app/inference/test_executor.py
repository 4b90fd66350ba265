"""Where a batch is computed, and with how many of torch's threads."""

import asyncio
import threading
from typing import Any

import pytest
import torch

from app.engine.rows import Item
from app.inference.executor import Executor
from app.inference.predictor import Predictor
from tests.support.checkpoints import checkpoint, png, to_pixels

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("torch_as_it_was")]

CPU = torch.device("cpu")


class Network:
    """A large network or a small one that says where it was computed; `gate` holds it back."""

    def __init__(self, *, large: bool, slots: int = 8) -> None:
        self.gate = threading.Event()
        self.begun: asyncio.Queue[tuple[int, bool]] = asyncio.Queue()  # torch's threads, and whether on the loop
        self._loop, self._thread = asyncio.get_running_loop(), threading.get_ident()
        content = checkpoint()
        network = content.build()
        network.register_forward_pre_hook(lambda *_: self._begin())
        self.predictor = Predictor(network, content.manifest, device=CPU, max_items=4, slots=slots)
        self.predictor.seconds_alone = 0.04 if large else 0.0003

    def _begin(self) -> None:
        on_the_loop = threading.get_ident() == self._thread
        self._loop.call_soon_threadsafe(self.begun.put_nowait, (torch.get_num_threads(), on_the_loop))
        if not on_the_loop:
            assert self.gate.wait(30)

    def submit(self, workers: Executor) -> "asyncio.Task[Any]":
        return asyncio.create_task(workers.predict(self.predictor, [Item(to_pixels(png()), 1)]))

    async def threads(self) -> int:
        async with asyncio.timeout(30):
            return (await self.begun.get())[0]


@pytest.mark.parametrize("owns_loop", [False, True])
async def test_a_batch_of_a_large_network_takes_all_cores_alone_and_its_share_beside_others(*, owns_loop: bool) -> None:
    workers, network = Executor(CPU, cores=4, owns_loop=owns_loop), Network(large=True)
    assert workers.max_concurrent == 4
    assert not workers.exclusive(network.predictor)
    tasks, threads = [], []
    for _ in range(4):
        tasks.append(network.submit(workers))
        threads.append(await network.threads())
    assert threads == [4, 2, 1, 1]
    network.gate.set()
    async with asyncio.timeout(30):
        rows = await asyncio.gather(*tasks)
    assert all(len(each) == 1 for each in rows)
    await network.submit(workers)
    assert await network.threads() == 4
    workers.close()


async def test_a_batch_that_fails_leaves_its_share_to_others() -> None:
    workers, network = Executor(CPU, cores=4, owns_loop=True), Network(large=True)
    network.gate.set()
    for _ in range(3):
        with pytest.raises(ValueError, match="shape"):
            await workers.predict(network.predictor, [Item(to_pixels(png())[:20], 1)])
    await network.submit(workers)
    assert await network.threads() == 4
    workers.close()


async def test_a_small_network_computes_on_the_loop_with_all_cores_but_one_of_which_others_have_their_share() -> None:
    workers, small, large = Executor(CPU, cores=4, owns_loop=True), Network(large=False), Network(large=True)
    await small.submit(workers)
    assert small.begun.get_nowait() == (3, True)
    beside = large.submit(workers)
    assert await large.threads() == 4
    await small.submit(workers)
    assert small.begun.get_nowait() == (1, True)
    large.gate.set()
    await beside
    workers.close()


async def test_batches_on_the_loop_are_kept_so_small_that_front_ends_have_something_to_do_meanwhile() -> None:
    small, large = Network(large=False).predictor, Network(large=True).predictor
    for cores, threads, most in ((1, 0, 16), (2, 0, 16), (4, 0, 48), (4, 2, 32)):
        workers = Executor(CPU, cores=cores, torch_threads=threads, owns_loop=True)
        assert workers.preferred_batch(small) == most
        assert workers.preferred_batch(large) is None
        workers.close()
    beside_http = Executor(CPU, cores=4)
    assert beside_http.preferred_batch(small) is None
    beside_http.close()


async def test_beside_http_batches_of_a_small_network_are_computed_in_turn_in_a_thread_with_all_cores_but_one() -> None:
    workers, network = Executor(CPU, cores=4), Network(large=False)
    assert workers.exclusive(network.predictor)
    network.gate.set()
    await network.submit(workers)
    assert network.begun.get_nowait() == (3, False)
    workers.close()


async def test_on_a_gpu_one_batch_is_copied_while_another_is_computed_however_small_the_network() -> None:
    workers = Executor(torch.device("cuda"), cores=4)
    assert workers.max_concurrent == 2
    assert not workers.exclusive(Network(large=False).predictor)
    workers.close()


@pytest.mark.parametrize("large", [False, True])
async def test_who_says_how_many_threads_gets_so_many_and_one_batch_at_a_time(*, large: bool) -> None:
    workers, network = Executor(CPU, cores=4, torch_threads=2, owns_loop=True), Network(large=large)
    assert workers.max_concurrent == 1
    network.gate.set()
    await network.submit(workers)
    assert await network.threads() == 2
    workers.close()


@pytest.mark.parametrize("large", [False, True])
async def test_compiled_networks_are_always_computed_with_the_threads_that_they_were_compiled_for(
    *, large: bool
) -> None:
    workers, network = Executor(CPU, cores=4, compiled=True, owns_loop=True), Network(large=large)
    network.gate.set()
    workers.prepare_thread()
    assert torch.get_num_threads() == 3
    await network.submit(workers)
    assert await network.threads() == 3
    workers.close()


@pytest.mark.parametrize(("cores", "max_concurrent"), [(1, 1), (2, 2), (8, 8), (64, 8)])
async def test_there_are_as_many_batches_at_once_as_cores_up_to_eight(cores: int, max_concurrent: int) -> None:
    assert Executor(CPU, cores=cores).max_concurrent == max_concurrent


async def test_a_single_core_is_all_that_there_is() -> None:
    workers, network = Executor(CPU, cores=1), Network(large=True)
    network.gate.set()
    workers.prepare_thread()
    assert torch.get_num_threads() == 1
    await network.submit(workers)
    assert await network.threads() == 1
    workers.close()
