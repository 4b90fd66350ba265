"""ModelStore: which versions are there, which are served, and the swap from one to the next.

The highest version of each model that passes its checks is served; one that does not pass changes nothing but what is
said of it. Files are read and weights built in threads; every decision and every assignment happens on the event
loop, one look at a time.
"""

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Generic, Literal, TypeVar

from watchfiles import awatch

from app.engine.errors import NotFound
from app.engine.model_info import ModelInfo, Refusal, ReloadReport, VersionInfo
from app.lifecycle.storage import Found, is_model_name, model_names, scan
from app.telemetry.log import event
from app.telemetry.metrics import Metrics
from classifier.header import CheckpointError

logger = logging.getLogger(__name__)

M = TypeVar("M")


@dataclass(frozen=True, slots=True)
class Served(Generic[M]):
    """A version that answers; `loaded` is what `load` made of its file."""

    found: Found
    loaded: M
    loaded_at: datetime

    @property
    def version(self) -> int:
        return self.found.version


class ModelStore(Generic[M]):
    """All models under one folder.

    Args:
        load: makes of a file, in a thread, what can answer. Raises CheckpointError or OSError for one that cannot.
        replaced: told, on the event loop, of what is served no longer.
        changed: told, on the event loop, that something else is to be said of the store than before.
        device: what is said of where loaded versions are.
        poll_seconds: how long a change may stay unseen where the file system does not announce it.
    """

    def __init__(
        self,
        folder: Path,
        *,
        load: Callable[[Path], M],
        replaced: Callable[[Served[M]], None],
        changed: Callable[[], None],
        metrics: Metrics,
        device: str,
        poll_seconds: float,
    ) -> None:
        self.folder = folder
        self.served: Mapping[str, Served[M]] = {}
        self.looked = asyncio.Event()  # the first look at all of the store is over
        self._load = load
        self._replaced = replaced
        self._changed = changed
        self._metrics = metrics
        self._device = device
        self._poll_seconds = poll_seconds
        self._versions: dict[str, Mapping[int, Found]] = {}
        self._loading: Found | None = None
        self._turn = asyncio.Lock()
        self._looking: asyncio.Task[ReloadReport] | None = None

    async def watch(self) -> None:
        """Looks at everything, then again whenever something changes, for ever."""
        await self.look_at_all()
        async for _ in self._changes():
            await self.look_at_all()

    async def _changes(self) -> AsyncGenerator[None, None]:
        """Something whenever anything below the folder changes, and after `poll_seconds` without a change."""
        told = ""
        while True:
            try:
                async for _ in awatch(
                    self.folder,
                    watch_filter=None,
                    debounce=200,
                    rust_timeout=int(self._poll_seconds * 1000),
                    yield_on_timeout=True,
                    ignore_permission_denied=True,
                ):
                    yield
                    if not self.folder.is_dir():
                        break
            except (OSError, RuntimeError) as error:  # RuntimeError: where no more watchers may run, say
                if self.folder.is_dir() and str(error) != told:
                    told = str(error)
                    event(logger, "cannot watch the store; looking now and then", level=logging.WARNING, reason=told)
            await asyncio.sleep(self._poll_seconds)
            yield

    async def look_at_all(self) -> None:
        """What cannot be read now, the store or a folder of it, changes nothing; the next look tries again."""
        try:
            names = await asyncio.to_thread(model_names, self.folder)
        except OSError as error:
            event(logger, "the store cannot be read", level=logging.WARNING, store=self.folder, reason=error.strerror)
            names = []
        for name in sorted({*names, *self._versions}):
            try:
                await self.look(name)
            except NotFound:  # its folder is gone, and nothing of it is served
                continue
        self.looked.set()
        self._changed()

    async def look(self, name: str) -> ReloadReport:
        """Looks at one model's folder now, and swaps if something better is there.

        A look that has begun does not end with its caller: the thread that loads could not be stopped, and whoever
        looked next would load the same file beside it.

        Raises: NotFound.
        """
        await self._turn.acquire()
        self._looking = asyncio.create_task(self._look(name), name="look")
        self._looking.add_done_callback(lambda _: self._turn.release())
        return await asyncio.shield(self._looking)

    async def close(self) -> None:
        """Ends the look that is going on; what it loads is dropped."""
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.wait([self._looking])

    def models(self) -> list[ModelInfo]:
        return [self._model_info(name) for name in sorted({*self._versions, *self.served})]

    def on_disk(self) -> Mapping[str, frozenset[int]]:
        """The versions of each model that is known, sound or not."""
        return {name: frozenset(self._versions.get(name, ())) for name in {*self._versions, *self.served}}

    def refusals(self, name: str) -> tuple[Refusal, ...]:
        found = self._versions.get(name, {}).values()
        return tuple(Refusal(each.version, each.refused) for each in found if each.refused is not None)

    async def _look(self, name: str) -> ReloadReport:
        before = self.served.get(name)
        await self._scan(name)
        for candidate in self._candidates(name):
            if await self._take(name, candidate):
                break
        return self._report(name, changed=self.served.get(name) is not before)

    async def _scan(self, name: str) -> None:
        known = self._versions.get(name, {})
        try:
            found = await asyncio.to_thread(scan, self.folder / name, known) if is_model_name(name) else None
        except OSError as error:
            event(logger, "a folder cannot be read", level=logging.WARNING, model=name, reason=error.strerror)
            self._versions.setdefault(name, {})
            self._changed()
            return
        if found is None and name not in self.served:
            self._versions.pop(name, None)
            self._changed()
            raise NotFound("model_not_found", f"there is no model {name!r} in the store")
        before = self._versions.get(name)
        self._versions[name] = found or {}
        if self._versions[name] != before:
            self._changed()
        for each in self._versions[name].values():
            if each.refused is not None and known.get(each.version) != each:
                self._refuse(name, each, each.refused, passing=each.passing)

    def _candidates(self, name: str) -> Iterator[Found]:
        """The files that would take over if they pass, the highest first."""
        served = self.served.get(name)
        found = self._versions[name]
        for version, each in found.items():
            if served is not None and served.version in found and version <= served.version:
                changed = version == served.version and each.fingerprint != served.found.fingerprint
                if changed and each.may_be_loaded:
                    yield each
                return
            if each.may_be_loaded:
                yield each

    async def _take(self, name: str, candidate: Found) -> bool:
        self._loading = candidate
        self._changed()
        try:
            loaded = await asyncio.to_thread(self._load, candidate.path)
        except CheckpointError as error:
            self._refuse(name, candidate, str(error))
        except OSError as error:
            self._refuse(name, candidate, f"cannot be read: {error.strerror or error}", passing=True)
        except MemoryError:
            self._refuse(name, candidate, "cannot be loaded: out of memory", passing=True)
        except Exception as error:  # noqa: BLE001  no file, however odd, may end the server or stop what it serves
            self._refuse(name, candidate, f"cannot be loaded: {type(error).__name__}: {error}")
        else:
            sound = replace(candidate, refused=None, passing=False)
            self._versions[name] = {**self._versions[name], sound.version: sound}
            self._swap(name, Served(sound, loaded, datetime.now(UTC)))
            return True
        finally:
            self._loading = None
            self._changed()
        return False

    def _swap(self, name: str, new: Served[M]) -> None:
        old = self.served.get(name)
        self.served = {**self.served, name: new}
        self._metrics.went_live(name, new.version)
        event(logger, "serving", model=name, version=new.version, was=old.version if old else None)
        if old is not None:
            self._replaced(old)

    def _refuse(self, name: str, found: Found, reason: str, *, passing: bool = False) -> None:
        """A refusal that may pass is tried again at each look, and told of when it is another one than before."""
        refused = replace(found, refused=reason, passing=passing)
        if refused == found and found.header is not None:  # (without a header, the scan has compared)
            return
        self._versions[name] = {**self._versions[name], found.version: refused}
        self._metrics.refused(name)
        event(logger, "refused", level=logging.WARNING, model=name, version=found.version, reason=reason)

    def _report(self, name: str, *, changed: bool) -> ReloadReport:
        served, refused = self.served.get(name), self.refusals(name)
        newest = max(self._versions[name], default=None)
        return ReloadReport(
            model=name,
            served_version=served.version if served else None,
            changed=changed,
            refused=refused,
            newest_refused=any(refusal.version == newest for refusal in refused),
        )

    def _model_info(self, name: str) -> ModelInfo:
        served = self.served.get(name)
        found = dict(self._versions.get(name, {}))
        if served is not None and found.get(served.version, served.found).refused is None:
            found[served.version] = served.found  # what answers is told of, also when its file is gone
        return ModelInfo(
            name=name,
            served_version=served.version if served else None,
            versions=tuple(self._version_info(served, found[version]) for version in sorted(found, reverse=True)),
        )

    def _version_info(self, served: Served[M] | None, found: Found) -> VersionInfo:
        state: Literal["loading", "ready", "available", "refused"] = "available"
        serving = served is not None and found.version == served.version
        if found.refused is not None:
            state = "refused"
        elif serving:
            state = "ready"
        elif found is self._loading:
            state = "loading"
        manifest = found.header.manifest if found.header else None
        return VersionInfo(
            version=found.version,
            state=state,
            reason=found.refused,
            architecture=manifest.architecture if manifest else None,
            labels=manifest.labels if manifest else None,
            input=manifest.preprocess if manifest else None,
            metrics=manifest.metrics if manifest else None,
            per_class=manifest.per_class if manifest else None,
            curve=manifest.curve if manifest else None,
            calibration=manifest.calibration if manifest else None,
            out_of_distribution=manifest.out_of_distribution if manifest else None,
            provenance=manifest.provenance if manifest else None,
            imported=manifest.imported if manifest else None,
            file_size=found.fingerprint.size,
            sha256=found.header.sha256 if found.header else None,
            device=self._device if serving else None,
            loaded_at=served.loaded_at if serving and served is not None else None,
        )
