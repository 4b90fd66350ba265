"""A store whose versions are not loaded but noted, so that what is served is no matter of networks."""

import asyncio
import itertools
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from app.batching.batcher import Batcher
from app.engine.catalogue import Catalogue, Entry
from app.engine.model_info import VersionInfo
from app.engine.rows import Item, Row, RowDecoder
from app.lifecycle.describe import catalogue, model_info
from app.lifecycle.loaded import LoadedVersion, LoadedVersions
from app.lifecycle.registry import Registry
from app.lifecycle.storage import Fingerprint, LocalFolder, ModelListing, VersionFile
from app.lifecycle.watcher import FolderWatcher
from app.telemetry.metrics import Metrics
from classifier.checkpoint import Checkpoint
from tests.support.checkpoints import DIGITS, checkpoint, publish
from tests.support.raw import PATIENCE

SOUND = checkpoint()


class Disk(LocalFolder):
    """Notes which versions are read whole."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.read: list[int] = []
        self.reading: Callable[[int], object] = self.read.append

    def read_whole(self, model: str, file: VersionFile) -> VersionFile:
        self.reading(file.version)
        return super().read_whole(model, file)


class OddDisk(Disk):
    """Is on a file system of another kind: `seen` makes its fingerprints of those of this machine."""

    def __init__(self, folder: Path, seen: Callable[[Fingerprint], Fingerprint]) -> None:
        super().__init__(folder)
        self._see = seen

    def versions(self, model: str, known: Mapping[int, VersionFile]) -> ModelListing | None:
        listing = super().versions(model, {})
        if listing is None:
            return None
        files = {number: self._seen(file) for number, file in listing.versions.items()}
        same = {number: old for number, old in known.items() if number in files and self._is_same(old, files[number])}
        return replace(listing, versions={**files, **same})

    def read_whole(self, model: str, file: VersionFile) -> VersionFile:
        return self._seen(super().read_whole(model, file))

    def is_unchanged(self, file: VersionFile) -> bool:
        return file.fingerprint.is_renumbered(self._see(Fingerprint.of(file.path.stat())))

    def _is_same(self, old: VersionFile, new: VersionFile) -> bool:
        return old.fingerprint == new.fingerprint and (old.header is not None or not old.transient)

    def _seen(self, file: VersionFile) -> VersionFile:
        assert isinstance(file.fingerprint, Fingerprint)
        return replace(file, fingerprint=self._see(file.fingerprint))


class Shelf:
    """A store on `folder` whose loads are noted; those in `faulty` fail as told."""

    def __init__(self, folder: Path, disk: Disk | None = None) -> None:
        self.folder = folder
        self.disk = disk or Disk(folder)
        self.loads: list[int] = []
        self.changes = 0
        self.faulty: dict[int, Exception] = {}
        self.loading: Callable[[int], object] = self.loads.append
        self.metrics = Metrics()
        self.versions = LoadedVersions()
        self.registry = Registry(self.disk, self.versions, load=self._load, on_change=self._count, metrics=self.metrics)
        self.watcher = FolderWatcher(folder, poll_seconds=0.05)
        self._ids = itertools.count()

    def publish(self, version: int, content: Checkpoint | bytes = SOUND) -> Path:
        return publish(self.folder, version, content)

    async def look(self, model: str = "digits", *, afresh: bool = False) -> tuple[int | None, bool, list[int], bool]:
        """What is served, whether that changed, what is refused, and whether the newest is."""
        report = await self.registry.refresh(model, afresh=afresh)
        return report.served_version, report.changed, [r.version for r in report.refused], report.newest_refused

    def gated(self) -> tuple[asyncio.Event, threading.Event]:
        """Set when a load has begun; and to be set before it may end."""
        begun, gate, self.loading = _gate(self.loads)
        return begun, gate

    def gated_reading(self) -> tuple[asyncio.Event, threading.Event]:
        """The same for a version that is read whole."""
        begun, gate, self.disk.reading = _gate(self.disk.read)
        return begun, gate

    @property
    def served(self) -> dict[str, int]:
        models = self.registry.models.values()
        return {model.name: model.serving.number for model in models if model.serving is not None}

    @property
    def refusals(self) -> int:
        """How many refusals were counted."""
        lines = self.metrics.exposition().decode().splitlines()
        return sum(int(float(line.split()[1])) for line in lines if line.startswith("flambeau_refusals_total{"))

    def catalogue(self, default_model: str | None = None) -> Catalogue:
        return catalogue(self.registry, default_model=default_model, device="cpu", store=self.folder)

    def states(self) -> dict[int, str]:
        return {version.version: version.state for version in self.infos()}

    def reason(self, version: int) -> str:
        return next(each.reason or "" for each in self.infos() if each.version == version)

    def infos(self) -> tuple[VersionInfo, ...]:
        (model,) = self.registry.models.values()
        return model_info(model, device="cpu").versions

    def _load(self, model: str, version: int, path: Path) -> LoadedVersion:
        assert path.is_file()
        self.loading(version)
        if version in self.faulty:
            raise self.faulty[version]
        entry = Entry(next(self._ids), model, version, DIGITS, DIGITS.digest, RowDecoder(("a", "b"), None))
        return LoadedVersion(entry, Batcher(max_items=1, max_seconds=1, max_waiting=1).lane(_compute_nothing))

    def _count(self, _: str | None) -> None:
        self.changes += 1


def _gate(noted: list[int]) -> tuple[asyncio.Event, threading.Event, Callable[[int], object]]:
    begun, gate = asyncio.Event(), threading.Event()
    tell = asyncio.get_running_loop().call_soon_threadsafe

    def note(version: int) -> None:
        noted.append(version)
        tell(begun.set)
        gate.wait(PATIENCE)

    return begun, gate, note


async def _compute_nothing(items: Sequence[Item]) -> list[Row]:
    raise AssertionError(f"nobody submits {items}")
