"""LocalEngine: the models of this process. It puts store, queues and predictors together."""

import asyncio
import itertools
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from app.batching.batcher import Batcher
from app.engine.background import BackgroundTasks
from app.engine.catalogue import Catalogue, Entry, ResolvedModel
from app.engine.errors import DeadlineExceeded, Draining, EngineError
from app.engine.interface import Cancelable, ControlledEngine
from app.engine.model_info import ModelInfo, PassedOver, ReloadReport, Status
from app.engine.predictions import Answer, OnDone
from app.engine.rows import Item, Row, Table
from app.inference.executor import Executor
from app.inference.verification import verify
from app.lifecycle import describe
from app.lifecycle.loaded import LoadedVersion, LoadedVersions
from app.lifecycle.registry import Registry
from app.lifecycle.stores import storage_of, watcher_of
from app.settings import Settings
from app.telemetry.metrics import Metrics
from classifier.cores import usable_cores
from classifier.device import select_device
from classifier.preprocess import Pixels


class LocalEngine(ControlledEngine):
    """The engine whose models live in this process, on one device; see `app.engine.interface`.

    Args:
        owns_loop: nothing else runs on this event loop; see `app.inference.executor`.
    """

    def __init__(self, settings: Settings, metrics: Metrics, *, owns_loop: bool = False) -> None:
        self.device = select_device(settings.device)
        # Is called with the name of a model when something about it has changed; with None for what concerns all.
        self.on_change: Callable[[str | None], None] = lambda _: None
        self.versions = LoadedVersions()
        self._settings = settings
        self._metrics = metrics
        self._executor = Executor(
            self.device,
            cores=usable_cores(),
            torch_threads=settings.torch_threads,
            compiled=settings.compile,
            owns_loop=owns_loop,
        )
        self._batcher = Batcher(
            max_items=settings.max_batch,
            max_seconds=settings.max_batch_ms / 1000,
            max_waiting=settings.max_queue,
            max_concurrent=self._executor.max_concurrent,
        )
        self._registry = Registry(
            storage_of(settings),
            self.versions,
            load=self._load,
            on_change=self._changed,
            metrics=metrics,
        )
        self._watcher = watcher_of(settings)
        self._catalogue: Catalogue | None = None
        self._entry_ids = itertools.count()
        self._tasks = BackgroundTasks()
        self._closing = False

    @property
    def catalogue(self) -> Catalogue:
        """Returns what is served now."""
        if self._catalogue is None:
            self._catalogue = describe.catalogue(
                self._registry,
                default_model=self._settings.model,
                device=str(self.device),
                store=self._settings.store,
            )
        return self._catalogue

    async def start(self) -> None:
        _strict_fp32()
        self._executor.prepare_thread()
        self._metrics.waiting_items = lambda: self._batcher.waiting
        self._tasks.start("batcher", self._batcher.run())
        self._tasks.start("store", self._registry.watch(self._watcher))

    async def close(self) -> None:
        self._closing = True
        self._batcher.close()
        await self._tasks.close(cancel=["store"])
        await self._registry.close()
        self._executor.close()

    async def started(self) -> Status:
        waiting = [asyncio.create_task(event.wait()) for event in (self._registry.first_scan_done, self._tasks.failed)]
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
        return await self.status()

    async def failed(self) -> BaseException:
        return await self._tasks.failure()

    def resolve(self, model: str | None, version: int | None) -> ResolvedModel:
        return self.catalogue.resolve(model, version)

    def submit_nowait(
        self, resolved: ResolvedModel, items: Sequence[Pixels], *, top_k: int, deadline: float, on_done: OnDone
    ) -> Cancelable:
        version, decode = resolved.entry.version, resolved.entry.row_decoder.decode

        def on_rows(rows: Table | EngineError) -> None:
            if isinstance(rows, EngineError):
                on_done(rows)
            else:
                on_done(Answer(version, tuple([decode(row, top_k) for row in rows.tolist()])))

        return self.versions.submit(resolved.entry.id, items, top_k=top_k, deadline=deadline, on_rows=on_rows)

    async def models(self) -> list[ModelInfo]:
        known = self._registry.models
        return [describe.model_info(known[name], device=str(self.device)) for name in sorted(known)]

    async def passed_over(self) -> tuple[PassedOver, ...]:
        return self.catalogue.passed_over

    def model_info(self, name: str) -> ModelInfo | None:
        """Says what there is to know of one model; None where there is none of that name."""
        model = self._registry.models.get(name)
        return None if model is None else describe.model_info(model, device=str(self.device))

    async def reload(self, model: str, *, deadline: float) -> ReloadReport:
        if self._closing:
            raise Draining("the server is shutting down")
        try:
            async with asyncio.timeout(deadline - time.monotonic()):
                return await self._registry.refresh(model, afresh=True)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"the look at {model!r} still goes on; GET /models shows what comes of it"
            ) from error

    async def status(self) -> Status:
        dead = self._tasks.ended()
        missing = f"a background task has ended: {', '.join(dead)}" if dead else self.catalogue.why_not_ready
        return Status(
            ready=missing is None,
            detail=missing or "ready",
            device=str(self.device),
            served=self.catalogue.served,
            waiting_items=self._batcher.waiting,
        )

    def _changed(self, model: str | None) -> None:
        self._catalogue = None
        self.on_change(model)

    def _load(self, model: str, version: int, path: Path) -> LoadedVersion:
        """Makes what can answer of a version's file, in a thread. Raises: what `verify` raises."""
        self._executor.prepare_thread()
        predictor = verify(
            path,
            device=self.device,
            max_items=self._settings.max_batch,
            precision=self._settings.precision,
            slots=self._executor.max_concurrent,
            compile_with="inductor" if self._settings.compile else None,
        )

        async def compute(items: Sequence[Item]) -> list[Row]:
            began = time.perf_counter()
            rows = await self._executor.predict(predictor, items)
            self._metrics.batch_items(len(items))
            self._metrics.compute_seconds(time.perf_counter() - began)
            return rows

        preprocess = predictor.manifest.preprocess
        entry = Entry(
            id=next(self._entry_ids),
            model=model,
            version=version,
            preprocess=preprocess,
            digest=preprocess.digest,
            row_decoder=predictor.row_decoder,
        )
        lane = self._batcher.lane(
            compute,
            preferred_batch=self._executor.preferred_batch(predictor),
            exclusive=self._executor.exclusive(predictor),
        )
        return LoadedVersion(entry, lane)


def _strict_fp32() -> None:
    """TF32 keeps 10 bits of mantissa; the reference logits were made without it."""
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]  # the stubs lack it
