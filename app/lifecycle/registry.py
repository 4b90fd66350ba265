"""Registry: the state of each version, and the order of loads and swaps.

A version that does not pass its checks changes nothing but what is said of it. Files are read and weights are built in
threads. Every decision and every assignment happens on the event loop. Looks at one model come one after the other; a
look at another model does not wait for them. One version is loaded at a time, because loading takes memory.
"""

import asyncio
import errno
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from weakref import WeakValueDictionary

from app.engine.errors import Draining, NotFound
from app.engine.model_info import ReloadReport, no_such_model
from app.lifecycle.in_thread import DaemonThreads
from app.lifecycle.loaded import LoadedVersion, LoadedVersions
from app.lifecycle.scanner import Scanner
from app.lifecycle.storage import Storage, StoreListing, VersionFile
from app.lifecycle.version import Model, Version
from app.lifecycle.version_policy import to_load
from app.lifecycle.watcher import Watcher
from app.telemetry.log import event
from app.telemetry.metrics import Metrics
from classifier.header import CheckpointError, DamagedError

logger = logging.getLogger(__name__)

_THREADS = 16  # that ask the store at once


class Registry:
    """All models of one store.

    Args:
        loaded: gets what is loaded, and lets it leave.
        load: makes what can answer of a model, a version and its file, in a thread. Raises CheckpointError or OSError
            where it cannot.
        on_change: is called on the event loop with the name of a model of which there is something else to say; with
            None when the first look at the whole store is over.
    """

    def __init__(
        self,
        storage: Storage,
        loaded: LoadedVersions,
        *,
        load: Callable[[str, int, Path], LoadedVersion],
        on_change: Callable[[str | None], None],
        metrics: Metrics,
    ) -> None:
        self.first_scan_done = asyncio.Event()
        self._storage = storage
        self._loaded = loaded
        self._load = load
        self._on_change = on_change
        self._metrics = metrics
        self._threads = DaemonThreads(_THREADS)
        self._scanner = Scanner(storage, metrics, self._threads)
        self._models: dict[str, Model] = {}
        # Of those models that somebody looks at: any client may ask for any name.
        self._turns: WeakValueDictionary[str, _Turns] = WeakValueDictionary()
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

    @property
    def store(self) -> StoreListing:
        """Returns what was last found in the store's own folder."""
        return self._scanner.store

    @property
    def store_problem(self) -> str | None:
        """Returns why the store's own folder cannot be read now; None where it can."""
        return self._scanner.store_problem

    async def refresh_all(self) -> None:
        """Looks at every model. What cannot be read now changes nothing; the next look tries again."""
        changed = await self._scanner.scan_store()
        if changed and self.first_scan_done.is_set():
            self._on_change(None)
        for name in sorted({*self.store.models, *self._models}):
            try:
                await self.refresh(name)
            except NotFound:  # its folder is gone, and nothing of it is served
                continue
        if not self.first_scan_done.is_set():
            self.first_scan_done.set()
            self._on_change(None)

    async def refresh(self, name: str, *, afresh: bool = False) -> ReloadReport:
        """Looks at one model now, and swaps if something better is there.

        A look that has begun does not end with its caller: the thread that loads could not be stopped, and the next
        look would load the same file beside it. All who wait for the next look get the same one.

        Args:
            afresh: looks into every file, also into one that seems to be the same, and reads what is served whole.

        Raises: NotFound; Draining, if the registry was closed.
        """
        turns = self._turns.setdefault(name, _Turns())
        begun = turns.begun
        await turns.lock.acquire()
        if self._closed:
            turns.lock.release()
            raise Draining("the server is shutting down")
        if turns.begun > begun and turns.look is not None and (turns.is_afresh or not afresh):
            turns.lock.release()  # a look that began after this caller had asked is over
            return turns.look.result()
        look = asyncio.create_task(self._look(name, afresh=afresh), name=f"look at {name}")
        turns.begin(look, afresh=afresh)
        self._looks.add(look)
        look.add_done_callback(self._looks.discard)
        look.add_done_callback(lambda _: turns.lock.release())
        return await asyncio.shield(look)

    async def close(self) -> None:
        """Ends the looks that go on. What they load is dropped."""
        self._closed = True
        for look in self._looks:
            look.cancel()
        if self._looks:
            await asyncio.wait(self._looks)

    async def _look(self, name: str, *, afresh: bool) -> ReloadReport:
        model = await self._scan(name, afresh=afresh)
        before = model.serving
        for version in to_load(model.versions, model.serving):
            if await self._try(model, version):
                break
        return _report(model, changed=model.serving is not before)

    async def _scan(self, name: str, *, afresh: bool) -> Model:
        """Brings what is known of the files up to date. Raises: NotFound."""
        model = self._models.get(name) or Model(name)
        is_there, changed = await self._scanner.scan(model, afresh=afresh)
        if not is_there and model.serving is None:
            if self._models.pop(name, None) is not None:
                self._on_change(name)
            raise NotFound("model_not_found", no_such_model(name, self.store.passed_over))
        if changed or name not in self._models:
            self._models[name] = model
            self._on_change(name)
        return model

    async def _try(self, model: Model, version: Version) -> bool:
        """Loads a version and swaps it in; False if it does not pass."""
        previous_reason = version.reason
        version.begins_to_load()
        self._on_change(model.name)
        reason, transient, for_its_content = "", False, False
        try:
            path = await self._threads.call(self._storage.fetch, model.name, version.file)
            async with self._one_load:
                loaded = await asyncio.to_thread(self._load_unchanged, model.name, version.file, path)
        except DamagedError as error:
            reason = str(error)
        except CheckpointError as error:
            reason, for_its_content = str(error), True
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
        version.is_rejected(reason, transient=transient, for_its_content=for_its_content)
        if not (transient and reason == previous_reason):  # it is tried at each look, and told of once
            self._scanner.tell_of_rejection(model, version)
        self._on_change(model.name)
        return False

    def _load_unchanged(self, model: str, file: VersionFile, path: Path) -> LoadedVersion:
        """Loads a file, in a thread. Raises: what `load` raises; OSError, if the file was replaced meanwhile.

        Args:
            path: of the file, or of the copy that was fetched.
        """
        try:
            loaded = self._load(model, file.version, path)
        except CheckpointError:
            if self._storage.is_unchanged(file):
                raise
        else:
            if self._storage.is_unchanged(file) or self._has_same_content(model, file):
                return loaded
        raise OSError(errno.ESTALE, "the file was replaced while it was read")

    def _has_same_content(self, model: str, file: VersionFile) -> bool:
        """Says whether only the fingerprint is another one: a publisher has just removed its temporary name, say."""
        again = self._storage.read_whole(model, file)
        return again.problem is None and again.header == file.header

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


class _Turns:
    """Those who want to look at one model, one after the other."""

    def __init__(self) -> None:
        self.lock = asyncio.Lock()
        self.begun = 0  # looks
        self.look: asyncio.Task[ReloadReport] | None = None
        self.is_afresh = False

    def begin(self, look: "asyncio.Task[ReloadReport]", *, afresh: bool) -> None:
        """Notes the look that begins."""
        self.begun += 1
        self.look = look
        self.is_afresh = afresh


def _report(model: Model, *, changed: bool) -> ReloadReport:
    newest = max(model.versions, default=None)
    return ReloadReport(
        model=model.name,
        served_version=None if model.serving is None else model.serving.number,
        changed=changed,
        refused=model.refusals,
        newest_refused=any(refusal.version == newest for refusal in model.refusals),
    )
