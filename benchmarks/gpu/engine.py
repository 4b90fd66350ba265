"""Measures the engine on a GPU without HTTP: LocalEngine under submits of pixels."""

import asyncio
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import uvloop

from app.inference.local_engine import LocalEngine
from app.settings import Settings
from app.telemetry.metrics import Metrics
from benchmarks.gpu.utilization import busy_percent, median
from benchmarks.harness import seeded
from benchmarks.harness.seeded import store_of

DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Engine:
    """What LocalEngine did.

    Args:
        max_batch: the setting of that name.
        items: how many images one submit has.
        busy: the percentage of the time in which the GPU computed something, the median of samples. None if it is not
            known.
    """

    network: str
    precision: str
    max_batch: int
    items: int
    images_per_second: float
    busy: float | None


def engine(
    networks: Sequence[str], precisions: Sequence[str], max_batches: Sequence[int], *, device: str, seconds: float
) -> Iterator[Engine]:
    """Measures submits of one image and of 32 images, with four batches on their way at all times."""
    for network in networks:
        with store_of(network) as store:
            for precision in precisions:
                for max_batch in max_batches:
                    settings = Settings(
                        store=store,
                        device=device,
                        precision=precision,
                        max_batch=max_batch,
                        max_queue=4 * max_batch + 32,
                        poll_seconds=DAY,
                    )
                    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                        rates = runner.run(_engine_rates(settings, (1, 32), seconds))
                    for items, (rate, busy) in rates.items():
                        yield Engine(network, precision, max_batch, items, rate, busy)


async def _engine_rates(
    settings: Settings, several_items: Sequence[int], seconds: float
) -> dict[int, tuple[float, float | None]]:
    """Returns images per second, and how busy the GPU was, for each number of items in a submit.

    Raises: RuntimeError, if the engine has nothing to serve.
    """
    local = LocalEngine(settings, Metrics())
    await local.start()
    try:
        status = await local.started()
        if not status.ready:
            raise RuntimeError(status.detail)
        return {items: await _engine_rate(local, settings, items, seconds) for items in several_items}
    finally:
        await local.close()


async def _engine_rate(
    local: LocalEngine, settings: Settings, items: int, seconds: float
) -> tuple[float, float | None]:
    resolved = local.resolve(None, None)
    random = np.random.default_rng(seeded.SEED)
    pixels = [random.integers(0, 256, resolved.entry.preprocess.shape, dtype=np.uint8) for _ in range(items)]
    done, going_on = 0, True

    async def one_after_another() -> None:
        nonlocal done
        while going_on:
            await local.submit(resolved, pixels, top_k=5, deadline=time.monotonic() + DAY)
            done += items

    async with asyncio.TaskGroup() as group:
        for _ in range(max(1, 4 * settings.max_batch // items)):
            group.create_task(one_after_another())
        await asyncio.sleep(seconds / 2)
        with busy_percent(settings.device) as samples:
            before, began = done, time.perf_counter()
            await asyncio.sleep(seconds)
            rate = (done - before) / (time.perf_counter() - began)
        going_on = False
    return rate, median(samples)
