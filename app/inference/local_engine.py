"""LocalEngine: the models of this process. The torch side's composition root: store + batchers + predictors."""

import asyncio
import itertools
import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from app.batching.batcher import Batcher, Lane, Submission
from app.engine.catalogue import Catalogue, Entry, OnDisk
from app.engine.interface import (
    Answer,
    Answered,
    Draining,
    Engine,
    EngineError,
    Expired,
    ModelInfo,
    ReloadReport,
    Status,
    Target,
)
from app.engine.rows import Row, table
from app.inference.executor import Workers
from app.inference.predictor import Item
from app.inference.verification import prove
from app.lifecycle.registry import ModelStore, Served
from app.settings import Settings
from app.telemetry.log import event
from app.telemetry.metrics import Metrics
from classifier.cores import usable_cores
from classifier.device import select_device
from classifier.preprocess import Pixels

logger = logging.getLogger(__name__)


class Loaded:
    """A version that can answer: its entry, its lane, and how many submits still need it.

    Args:
        retired: is told once, when it was replaced and nothing needs it any more.
    """

    def __init__(self, entry: Entry, lane: Lane[Item, Row], retired: "Callable[[Loaded], None]") -> None:
        self.entry = entry
        self.lane = lane
        self._retired = retired
        self._needed = 0
        self._replaced = False

    def need(self) -> None:
        self._needed += 1

    def let_go(self) -> None:
        self._needed -= 1
        self._tell_if_retired()

    def replace(self) -> None:
        self._replaced = True
        self._tell_if_retired()

    def _tell_if_retired(self) -> None:
        if self._replaced and not self._needed:
            self._retired(self)


@dataclass(slots=True, eq=False)
class _Submitted:
    """Some items in a lane, until they are answered or dropped."""

    loaded: Loaded
    top_k: int
    answered: Answered
    submission: Submission[Item, Row] | None = None

    def answer(self, outcome: list[Row | Exception] | EngineError) -> None:
        self.submission = None  # which refers to this
        if isinstance(outcome, EngineError):
            self.answered(outcome)
        else:
            entry, rows = self.loaded.entry, table(outcome, self.top_k).tolist()
            self.answered(Answer(entry.version, tuple([entry.reader.answer(row, self.top_k) for row in rows])))
        self.loaded.let_go()

    def drop(self) -> None:
        if self.submission is not None:
            self.loaded.lane.drop(self.submission)
            self.submission = None
            self.loaded.let_go()


class LocalEngine(Engine):
    """The engine whose models live in this process, on one device; see `app.engine.interface.Engine`.

    Args:
        alone: nothing else runs on this event loop; see `app.inference.executor`.
    """

    def __init__(self, settings: Settings, metrics: Metrics, *, alone: bool = False) -> None:
        self.device = select_device(settings.device)
        self.on_change: Callable[[], None] = lambda: None  # is told when `catalogue` or `models` has changed
        self._settings = settings
        self._metrics = metrics
        self._workers = Workers(
            self.device,
            cores=usable_cores(),
            torch_threads=settings.torch_threads,
            compiled=settings.compile,
            alone=alone,
        )
        self._batcher = Batcher(
            max_items=settings.max_batch,
            max_seconds=settings.max_batch_ms / 1000,
            max_waiting=settings.max_queue,
            at_once=self._workers.at_once,
        )
        self._store: ModelStore[Loaded] = ModelStore(
            settings.store,
            load=self._load,
            replaced=self._replace,
            changed=self._changed,
            metrics=metrics,
            device=str(self.device),
            poll_seconds=settings.poll_seconds,
        )
        self._catalogue: Catalogue | None = None
        self._numbered: dict[int, Loaded] = {}
        self._replaced: dict[Loaded, None] = {}  # those that something still waits for
        self._numbers = itertools.count()
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._error: BaseException | None = None
        self._dead = asyncio.Event()
        self._closing = False

    @property
    def catalogue(self) -> Catalogue:
        """What is served now."""
        if self._catalogue is None:
            self._catalogue = self._catalogued()
        return self._catalogue

    async def start(self) -> None:
        _strict_fp32()
        self._workers.prepare_thread()
        self._metrics.waiting_items = lambda: self._batcher.waiting
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
        self._workers.close()

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
        return self.catalogue.target(model, version)

    def served(self, entry: int) -> Loaded | None:
        """The version of that number in the catalogue, if it is served still."""
        return self._numbered.get(entry)

    def put(
        self, target: Target, items: Sequence[Pixels], *, top_k: int, deadline: float, answered: Answered
    ) -> "_Submitted":
        loaded = self._store.served[self.catalogue.bound(target).model].loaded
        submitted = _Submitted(loaded, top_k, answered)
        submitted.submission = loaded.lane.put(
            [Item(pixels, top_k) for pixels in items], deadline=deadline, answered=submitted.answer
        )
        loaded.need()
        return submitted

    async def models(self) -> list[ModelInfo]:
        return self.models_now()

    def models_now(self) -> list[ModelInfo]:
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
        dead = [name for name, task in self._tasks.items() if task.done()]
        missing = f"a background task has ended: {', '.join(dead)}" if dead else self.catalogue.why_not_ready
        return Status(
            ready=missing is None,
            detail=missing or "ready",
            device=str(self.device),
            served={name: entry.version for name, entry in self.catalogue.served.items()},
            waiting_items=self._batcher.waiting,
        )

    def _replace(self, served: Served[Loaded]) -> None:
        self._replaced[served.loaded] = None
        served.loaded.replace()

    def _retire(self, loaded: Loaded) -> None:
        del self._replaced[loaded]
        event(logger, "retired", model=loaded.entry.model, version=loaded.entry.version)
        self._changed()

    def _changed(self) -> None:
        self._catalogue = None
        self._numbered = {served.loaded.entry.number: served.loaded for served in self._store.served.values()}
        self.on_change()

    def _catalogued(self) -> Catalogue:
        on_disk = {
            name: OnDisk(versions, self._why_not_served(name)) for name, versions in self._store.on_disk().items()
        }
        return Catalogue(
            served={name: served.loaded.entry for name, served in self._store.served.items()},
            replaced=tuple(loaded.entry for loaded in self._replaced),
            on_disk=on_disk,
            default=self._settings.model,
            complete=self._store.looked.is_set(),
            device=str(self.device),
            why_not_ready=self._why_not_ready(),
        )

    def _why_not_ready(self) -> str | None:
        default = self._settings.model
        if not self._store.looked.is_set():
            return "the first look at the store is not over"
        if default is not None and default not in self._store.served:
            return self._why_not_served(default)
        if not self._store.served:
            return self._why_nothing_served()
        return None

    def _why_nothing_served(self) -> str:
        refused = [
            f"{name} {refusal.version}: {refusal.reason}"
            for name in sorted(self._store.on_disk())
            for refusal in self._store.refusals(name)
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

    def _load(self, path: Path) -> Loaded:
        self._workers.prepare_thread()
        predictor = prove(
            path,
            device=self.device,
            max_items=self._settings.max_batch,
            precision=self._settings.precision,
            slots=self._workers.at_once,
            compile_with="inductor" if self._settings.compile else None,
        )

        async def compute(items: Sequence[Item]) -> list[Row]:
            began = time.perf_counter()
            rows = await self._workers.predict(predictor, items)
            self._metrics.batch_items(len(items))
            self._metrics.compute_seconds(time.perf_counter() - began)
            return rows

        preprocess = predictor.manifest.preprocess
        entry = Entry(
            number=next(self._numbers),
            model=path.parent.name,
            version=int(path.stem),
            preprocess=preprocess,
            digest=preprocess.digest,
            reader=predictor.reader,
        )
        lane = self._batcher.lane(
            compute,
            max_together=self._workers.max_together(predictor),
            in_turn=self._workers.in_turn(predictor),
        )
        return Loaded(entry, lane, self._retire)

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        """Each of them works until `close`; an end before that is a failure, whatever it looks like."""
        if not self._closing:
            self._error = None if task.cancelled() else task.exception()
            self._dead.set()


def _strict_fp32() -> None:
    """TF32 keeps 10 bits of mantissa; the reference logits were made without it."""
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]  # the stubs lack it
