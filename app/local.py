"""LocalEngine: the models of this process. The torch side's composition root: store + batchers + predictors."""

import asyncio
import logging
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

from app.batcher import Batcher, Lane
from app.engine import (
    Ambiguous,
    Answer,
    Draining,
    Expired,
    ItemAnswer,
    ItemError,
    ModelInfo,
    NotFound,
    NotReady,
    ReloadReport,
    Stale,
    Status,
    Target,
)
from app.log import event
from app.metrics import Metrics
from app.predictor import Item
from app.proof import prove
from app.settings import Settings
from app.store import ModelStore, Served
from classifier.cores import usable_cores
from classifier.device import choose as choose_device
from classifier.preprocess import Pixels, Preprocess

logger = logging.getLogger(__name__)

Outcome = ItemAnswer | ItemError


class Loaded:
    """A version that can answer: its lane, how to reach it, and how many submits still need it."""

    def __init__(self, lane: Lane[Item, Outcome], preprocess: Preprocess) -> None:
        self.lane = lane
        self.preprocess = preprocess
        self.digest = preprocess.digest
        self.in_flight = 0
        self.replaced = False


class LocalEngine:
    """The engine whose models live in this process, on one device; see `app.engine.Engine`."""

    def __init__(self, settings: Settings, metrics: Metrics) -> None:
        self.device = choose_device(settings.device)
        self._settings = settings
        self._metrics = metrics
        self._batcher = Batcher(
            max_items=settings.max_batch,
            max_seconds=settings.max_batch_ms / 1000,
            max_waiting=settings.max_queue,
        )
        self._store: ModelStore[Loaded] = ModelStore(
            settings.store,
            load=self._load,
            retired=self._retire,
            metrics=metrics,
            device=str(self.device),
            poll_seconds=settings.poll_seconds,
        )
        # One thread beside the event loop: a device computes one batch at a time.
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="compute")
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._error: BaseException | None = None
        self._dead = asyncio.Event()
        self._closing = False

    async def start(self) -> None:
        _strict_fp32()
        torch.set_num_threads(self._settings.torch_threads or _threads_beside_the_loop())
        self._metrics.waiting_items.set_function(lambda: self._batcher.waiting)
        for name, work in {"batcher": self._batcher.run(), "store": self._store.watch()}.items():
            task = asyncio.create_task(work, name=name)
            task.add_done_callback(self._task_ended)
            self._tasks[name] = task

    async def close(self) -> None:
        self._closing = True
        self._tasks["store"].cancel()
        self._batcher.close()
        await asyncio.wait(self._tasks.values())
        await self._store.close()
        self._thread.shutdown()

    async def started(self) -> Status:
        waiting = [asyncio.create_task(event.wait()) for event in (self._store.looked, self._dead)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        return await self.status()

    async def failed(self) -> BaseException:
        await self._dead.wait()
        return self._error or RuntimeError("a background task has ended")

    def target(self, model: str | None, version: int | None) -> Target:
        name = model or self._default_model()
        loaded = self._served(name, version).loaded
        return Target(name, version, loaded.preprocess, loaded.digest)

    async def submit(self, target: Target, items: Sequence[Pixels], *, top_k: int, deadline: float) -> Answer:
        served = self._served(target.model, target.version)
        loaded = served.loaded
        if loaded.digest != target.digest:
            raise Stale(f"version {served.version} wants its images prepared differently")
        loaded.in_flight += 1
        try:
            outcomes = await loaded.lane.submit([Item(pixels, top_k) for pixels in items], deadline=deadline)
        finally:
            loaded.in_flight -= 1
            self._tell_if_retired(target.model, served)
        return Answer(served.version, tuple(map(_answered, outcomes)))

    async def models(self) -> list[ModelInfo]:
        return self._store.models()

    async def reload(self, model: str, *, deadline: float) -> ReloadReport:
        if self._closing:
            raise Draining("the server is shutting down")
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await self._store.look(model)
        except TimeoutError as error:
            raise Expired(f"the look at {model!r} still goes on; GET /models shows what comes of it") from error

    async def status(self) -> Status:
        detail = self._why_not_ready()
        return Status(
            ready=detail is None,
            detail=detail or "ready",
            device=str(self.device),
            served={name: served.version for name, served in self._store.served.items()},
            waiting_items=self._batcher.waiting,
        )

    def _why_not_ready(self) -> str | None:
        default = self._settings.model
        if dead := [name for name, task in self._tasks.items() if task.done()]:
            return f"a background task has ended: {', '.join(dead)}"
        if not self._store.looked.is_set():
            return "the first look at the store is not over"
        if default is not None and default not in self._store.served:
            return self._why_not_served(default)
        if not self._store.served:
            return self._why_nothing_served()
        return None

    def _why_nothing_served(self) -> str:
        refused = [
            f"{model.name} {refusal.version}: {refusal.reason}"
            for model in self._store.models()
            for refusal in self._store.refusals(model.name)
        ]
        if refused:
            return "no checkpoint in the store can be served; " + "; ".join(refused[:3])
        return (
            f"the store {self._settings.store} is empty; train and publish a model: "
            f"python -m training strokes --store {self._settings.store}"
        )

    def _why_not_served(self, name: str) -> str:
        refused = "; ".join(f"version {r.version}: {r.reason}" for r in self._store.refusals(name)[:3])
        return f"no version of {name!r} can be served" + (f": {refused}" if refused else "")

    def _default_model(self) -> str:
        if self._settings.model is not None:
            return self._settings.model
        names = sorted(self._store.served)
        if not names or not self._store.looked.is_set():  # another one may still be on its way
            raise NotReady(self._why_not_ready() or "nothing is served")
        if len(names) > 1:
            raise Ambiguous(f"several models are served; name one of {', '.join(names)} with ?model=")
        return names[0]

    def _served(self, name: str, version: int | None) -> Served[Loaded]:
        served = self._store.served.get(name)
        if served is not None and version in (None, served.version):
            return served
        if not self._store.looked.is_set():
            raise NotReady("the first look at the store is not over")
        if not self._store.knows(name):
            raise NotFound("model_not_found", f"there is no model {name!r}; GET /models lists what there is")
        if version is not None and self._store.on_disk(name, version):
            raise NotFound("version_not_loaded", f"version {version} of {name!r} is on disk, but not loaded")
        if version is not None:
            raise NotFound("version_not_found", f"there is no version {version} of {name!r}")
        raise NotReady(self._why_not_served(name))

    def _load(self, path: Path) -> Loaded:
        predictor = prove(path, device=self.device, max_items=self._settings.max_batch)

        async def compute(items: Sequence[Item]) -> list[Outcome]:
            self._metrics.batch_items.observe(len(items))
            with self._metrics.compute_seconds.time():
                return await asyncio.get_running_loop().run_in_executor(self._thread, predictor.predict, items)

        return Loaded(self._batcher.lane(compute), predictor.manifest.preprocess)

    def _retire(self, name: str, served: Served[Loaded]) -> None:
        served.loaded.replaced = True
        self._tell_if_retired(name, served)

    def _tell_if_retired(self, name: str, served: Served[Loaded]) -> None:
        if served.loaded.replaced and served.loaded.in_flight == 0:
            event(logger, "retired", model=name, version=served.version)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """Each of them works until `close`; an end before that is a failure, whatever it looks like."""
        if not self._closing:
            self._error = None if task.cancelled() else task.exception()
            self._dead.set()


def _threads_beside_the_loop() -> int:
    """All cores but one: torch's threads wait for one another by spinning, and one too many slows them all tenfold."""
    return max(1, usable_cores() - 1)


def _strict_fp32() -> None:
    """TF32 keeps 10 bits of mantissa; the reference logits were made without it."""
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]  # the stubs lack it


def _answered(outcome: Outcome | Exception) -> Outcome:
    if isinstance(outcome, Exception):
        return ItemError("prediction_failed", f"the model failed on this image: {outcome}")
    return outcome
