"""Registry: the state of each version, and the order of loads and swaps.

A version that does not pass its checks changes nothing but what is said of it. Files are read and weights are built in
threads. Every decision and every assignment happens on the event loop. Looks at one model come one after the other; a
look at another model does not wait for them. One version is loaded at a time, because loading takes memory.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from weakref import WeakValueDictionary

from app.engine.errors import Draining, NotFound
from app.engine.model_info import Refusal, ReloadReport
from app.lifecycle.loaded import LoadedVersion, LoadedVersions
from app.lifecycle.storage import Storage, VersionFile
from app.lifecycle.version import Model, Version
from app.lifecycle.version_policy import to_load
from app.lifecycle.watcher import Watcher
from app.telemetry.log import event
from app.telemetry.metrics import Metrics
from classifier.header import CheckpointError

logger = logging.getLogger(__name__)


class Registry:
    """All models of one store.

    Args:
        loaded: gets what is loaded, and lets it leave.
        load: makes what can answer of a file, in a thread. Raises CheckpointError or OSError where it cannot.
        on_change: is called on the event loop with the name of a model of which there is something else to say; with
            None when the first look at the whole store is over.
    """

    def __init__(
        self,
        storage: Storage,
        loaded: LoadedVersions,
        *,
        load: Callable[[Path], LoadedVersion],
        on_change: Callable[[str | None], None],
        metrics: Metrics,
    ) -> None:
        self.first_scan_done = asyncio.Event()
        self._storage = storage
        self._loaded = loaded
        self._load = load
        self._on_change = on_change
        self._metrics = metrics
        self._models: dict[str, Model] = {}
        # Of those models that somebody looks at: any client may ask for any name.
        self._locks: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()
        self._one_load = asyncio.Semaphore(1)
        self._looks: set[asyncio.Task[ReloadReport]] = set()
        self._closed = False

    @property
    def models(self) -> Mapping[str, Model]:
        """Returns what is known of each model that is in the store, or that is served."""
        return self._models

    async def watch(self, watcher: Watcher) -> None:
        """Looks at everything, then again whenever something changes, for ever."""
        await self.refresh_all()
        async for _ in watcher.changes():
            await self.refresh_all()

    async def refresh_all(self) -> None:
        """Looks at every model. What cannot be read now changes nothing; the next look tries again."""
        try:
            names = await asyncio.to_thread(self._storage.models)
        except OSError as error:
            event(
                logger, "the store cannot be read", level=logging.WARNING, store=error.filename, reason=error.strerror
            )
            names = []
        for name in sorted({*names, *self._models}):
            try:
                await self.refresh(name)
            except NotFound:  # its folder is gone, and nothing of it is served
                continue
        if not self.first_scan_done.is_set():
            self.first_scan_done.set()
            self._on_change(None)

    async def refresh(self, name: str) -> ReloadReport:
        """Looks at one model now, and swaps if something better is there.

        A look that has begun does not end with its caller: the thread that loads could not be stopped, and the next
        look would load the same file beside it.

        Raises: NotFound; Draining, if the registry was closed.
        """
        lock = self._locks.setdefault(name, asyncio.Lock())
        await lock.acquire()
        if self._closed:
            lock.release()
            raise Draining("the server is shutting down")
        look = asyncio.create_task(self._look(name), name=f"look at {name}")
        self._looks.add(look)
        look.add_done_callback(self._looks.discard)
        look.add_done_callback(lambda _: lock.release())
        return await asyncio.shield(look)

    async def close(self) -> None:
        """Ends the looks that go on. What they load is dropped."""
        self._closed = True
        for look in self._looks:
            look.cancel()
        if self._looks:
            await asyncio.wait(self._looks)

    async def _look(self, name: str) -> ReloadReport:
        model = await self._scan(name)
        before = model.serving
        for version in to_load(model.versions, model.serving):
            async with self._one_load:
                if await self._try(model, version):
                    break
        return _report(model, changed=model.serving is not before)

    async def _scan(self, name: str) -> Model:
        """Brings what is known of the files up to date. Raises: NotFound."""
        model = self._models.get(name) or Model(name)
        known = {number: version.file for number, version in model.versions.items()}
        try:
            files = await asyncio.to_thread(self._storage.versions, name, known)
        except OSError as error:
            event(logger, "a folder cannot be read", level=logging.WARNING, model=name, reason=error.strerror)
            self._keep(model)
            return model
        if files is None and model.serving is None:
            if self._models.pop(name, None) is not None:
                self._on_change(name)
            raise NotFound("model_not_found", f"there is no model {name!r} in the store")
        before = model.versions
        model.versions = {}
        for number, file in (files or {}).items():
            version = before.get(number)
            if version is None or (version.file is not file and version.file != file):
                version = self._found(model, file)
            model.versions[number] = version
        if before != model.versions or name not in self._models:
            self._keep(model)
        return model

    def _keep(self, model: Model) -> None:
        self._models[model.name] = model
        self._on_change(model.name)

    def _found(self, model: Model, file: VersionFile) -> Version:
        """Decides about a file that is new, or that has changed, or that was away for a while."""
        if model.serving is not None and model.serving.file == file:
            return model.serving
        version = Version(file)
        if file.problem is None:
            version.becomes_available()
        else:
            version.is_rejected(file.problem, transient=file.transient)
            self._tell_of_rejection(model, version)
        return version

    async def _try(self, model: Model, version: Version) -> bool:
        """Loads a version and swaps it in; False if it does not pass."""
        previous_reason = version.reason
        version.begins_to_load()
        self._on_change(model.name)
        reason, transient = "", False
        try:
            loaded = await asyncio.to_thread(self._load, version.file.path)
        except CheckpointError as error:
            reason = str(error)
        except OSError as error:
            reason, transient = f"cannot be read: {error.strerror or error}", True
        except MemoryError:
            reason, transient = "cannot be loaded: out of memory", True
        except asyncio.CancelledError:
            version.becomes_available()
            raise
        except Exception as error:  # noqa: BLE001  no file, however odd, may end the server or stop what it serves
            reason = f"cannot be loaded: {type(error).__name__}: {error}"
        else:
            self._swap(model, version, loaded)
            return True
        version.is_rejected(reason, transient=transient)
        if not (transient and reason == previous_reason):  # it is tried at each look, and told of once
            self._tell_of_rejection(model, version)
        self._on_change(model.name)
        return False

    def _swap(self, model: Model, version: Version, loaded: LoadedVersion) -> None:
        old, model.serving = model.serving, version
        self._loaded.add(loaded)
        version.becomes_ready(loaded)
        self._metrics.went_live(model.name, version.number)
        event(logger, "serving", model=model.name, version=version.number, was=None if old is None else old.number)
        if old is not None and old.loaded is not None:
            self._retire(model, old, old.loaded)
        self._on_change(model.name)

    def _retire(self, model: Model, old: Version, loaded: LoadedVersion) -> None:
        if model.versions.get(old.number) is old:  # its file may be loaded again, beside what is left of this one
            again = model.versions[old.number] = Version(old.file)
            again.becomes_available()
        old.begins_to_retire()
        name, number = model.name, old.number
        self._loaded.retire(loaded, lambda: event(logger, "retired", model=name, version=number))

    def _tell_of_rejection(self, model: Model, version: Version) -> None:
        self._metrics.refused(model.name)
        event(logger, "refused", level=logging.WARNING, model=model.name, version=version.number, reason=version.reason)


def refusals(model: Model) -> tuple[Refusal, ...]:
    """Lists the files of a model that are there and cannot be served, the highest first."""
    return tuple(
        Refusal(version.number, version.reason) for version in model.versions.values() if version.reason is not None
    )


def _report(model: Model, *, changed: bool) -> ReloadReport:
    refused = refusals(model)
    newest = max(model.versions, default=None)
    return ReloadReport(
        model=model.name,
        served_version=None if model.serving is None else model.serving.number,
        changed=changed,
        refused=refused,
        newest_refused=any(refusal.version == newest for refusal in refused),
    )
