"""Scanner: brings what is known of a store up to date with what lies in it, and tells the log and the metrics of that.

It decides about files that have changed. Only a file whose content is another one becomes another version: neither
another time nor another inode makes one.
"""

import logging
from collections.abc import Iterable
from typing import NamedTuple

from app.engine.model_info import PassedOver
from app.lifecycle.in_thread import DaemonThreads
from app.lifecycle.storage import Storage, StoreListing, VersionFile
from app.lifecycle.version import Model, Version, VersionState
from app.telemetry.log import event
from app.telemetry.metrics import Metrics

logger = logging.getLogger(__name__)


class Scanned(NamedTuple):
    """Says whether a model is in the store, and whether there is something else to say of it than before."""

    is_there: bool
    changed: bool


class Scanner:
    """Scans one store.

    Attributes:
        store: what was last found in the store's own folder.
        store_problem: why that folder cannot be read now; None where it can.
    """

    def __init__(self, storage: Storage, metrics: Metrics, threads: DaemonThreads) -> None:
        self.store = StoreListing(())
        self.store_problem: str | None = None
        self._storage = storage
        self._metrics = metrics
        self._threads = threads

    async def scan_store(self) -> bool:
        """Looks which models there are. Returns whether there is something else to say of the store itself."""
        before = self.store, self.store_problem
        try:
            self.store = await self._threads.call(self._storage.models)
            self.store_problem = self.store.problem
        except OSError as error:
            missing = isinstance(error, FileNotFoundError)
            self.store = StoreListing((), () if missing else self.store.passed_over)
            self.store_problem = "is not there" if missing else f"cannot be read: {error.strerror or error}"
        if self.store_problem != before[1]:
            if self.store_problem is None:
                event(logger, "the store can be read again")
            else:
                event(logger, f"the store {self.store_problem}", level=logging.WARNING, store=self._storage.name)
        self._metrics.store_is_readable(self.store_problem is None)
        _tell_of_passed_over(before[0].passed_over, self.store.passed_over)
        return (self.store.passed_over, self.store_problem) != (before[0].passed_over, before[1])

    async def scan(self, model: Model, *, afresh: bool) -> Scanned:
        """Looks at the files of one model.

        Args:
            afresh: every file is looked into, also one that seems to be the same, and what is served is read whole.
        """
        versions, passed_over = model.versions, model.passed_over
        known = {} if afresh else {number: version.file for number, version in versions.items()}
        try:
            listing = await self._threads.call(self._storage.versions, model.name, known)
        except OSError as error:  # nothing is known of its files then, and those that were known count
            if model.serving is None and not versions and model.name not in self.store.models:
                return Scanned(is_there=False, changed=False)  # anybody may ask for any name
            model.passed_over = (PassedOver(model.name, f"it cannot be read: {error.strerror or error}"),)
        else:
            found = {}
            for number, file in ({} if listing is None else listing.versions).items():
                version = versions.get(number)
                if version is None or afresh or (version.file is not file and version.file != file):
                    version = await self._decide(model, file, version, afresh=afresh)
                found[number] = version
            model.versions = found
            model.passed_over = () if listing is None else listing.passed_over
            if listing is None:
                return Scanned(is_there=False, changed=bool(versions or passed_over))
        _tell_of_passed_over(passed_over, model.passed_over)
        return Scanned(is_there=True, changed=(versions, passed_over) != (model.versions, model.passed_over))

    def tell_of_rejection(self, model: Model, version: Version) -> None:
        """Counts a version that was rejected, and logs why."""
        self._metrics.refused(model.name)
        event(logger, "refused", level=logging.WARNING, model=model.name, version=version.number, reason=version.reason)

    async def _decide(self, model: Model, file: VersionFile, before: Version | None, *, afresh: bool) -> Version:
        """Decides about a file that is new, or that may have changed, or that was away for a while.

        Where its header is that of a version which was read whole, it is read whole as well: it may be the same file
        again, or a damaged one.
        """
        alike = [each for each in (model.serving, before) if each is not None and _has_header_of(each, file)]
        same = [] if afresh else [each for each in alike if each.file.fingerprint.is_renumbered(file.fingerprint)]
        if not same and any(each.content is not None or each.state is VersionState.REJECTED for each in alike):
            file = await self._threads.call(self._storage.read_whole, model.name, file)
            same = [each for each in alike if _has_content_of(each, file) and not _is_asked_for_again(each, file)]
        elif not same:
            same = alike  # not read yet: it will be when it is loaded
        if same:
            same[0].file = file
            return same[0]
        return self._another(model, file, before)

    def _another(self, model: Model, file: VersionFile, before: Version | None) -> Version:
        """Makes a version of a file with another content, or with a problem; of the same problem it tells once."""
        version = Version(file)
        if file.problem is None:
            version.becomes_available()
            return version
        version.is_rejected(file.problem, transient=file.transient)
        if before is not None and (before.state, before.reason) == (version.state, version.reason):
            before.file = file
            return before
        self.tell_of_rejection(model, version)
        return version


def _has_header_of(version: Version, file: VersionFile) -> bool:
    return version.number == file.version and file.header is not None and version.file.header == file.header


def _has_content_of(version: Version, file: VersionFile) -> bool:
    """Says whether a file that was read whole has the content that was decided about."""
    return file.problem is None and _has_header_of(version, file) and version.content is not None


def _is_asked_for_again(version: Version, file: VersionFile) -> bool:
    """Says whether somebody has touched the file of a rejected version."""
    return version.reason is not None and file.fingerprint.is_touched(version.file.fingerprint)


def _tell_of_passed_over(before: Iterable[PassedOver], now: Iterable[PassedOver]) -> None:
    """Logs what was not passed over before."""
    for each in now:
        if each not in before:
            event(logger, "passed over", level=logging.WARNING, path=each.path, reason=each.reason)
