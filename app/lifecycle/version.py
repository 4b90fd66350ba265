"""A version of a model in the store: its file, its state, and the states that may follow each other."""

from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import Enum, auto

from app.engine.model_info import PassedOver, Refusal
from app.lifecycle.loaded import LoadedVersion
from app.lifecycle.storage import VersionFile


class VersionState(Enum):
    """What a version is at the moment."""

    FOUND = auto()  # its file is there, and nothing has been decided about it
    REJECTED = auto()  # it cannot be served, and its file would have to change for that
    REJECTED_FOR_NOW = auto()  # it could not be read or loaded; the next look tries again
    AVAILABLE = auto()  # it may be loaded
    LOADING = auto()
    READY = auto()  # it answers
    RETIRING = auto()  # it was replaced; it leaves when it has answered what was submitted to it


_NEXT = {
    VersionState.FOUND: {VersionState.AVAILABLE, VersionState.REJECTED, VersionState.REJECTED_FOR_NOW},
    VersionState.AVAILABLE: {VersionState.LOADING},
    VersionState.REJECTED: set(),
    VersionState.REJECTED_FOR_NOW: {VersionState.LOADING},
    VersionState.LOADING: {
        VersionState.READY,
        VersionState.REJECTED,
        VersionState.REJECTED_FOR_NOW,
        VersionState.AVAILABLE,
    },
    VersionState.READY: {VersionState.RETIRING},
    VersionState.RETIRING: set(),
}


@dataclass(slots=True, eq=False)
class Version:
    """A version, as long as its file has the same content.

    Args:
        file: may be replaced by another one with the same content.
        reason: why it was last rejected; None if it never was, or was loaded since.
        content: the hash of the content that was loaded, or rejected for what it is. None: it was not read whole, or
            was damaged.
        loaded: what answers, while it is ready.
        loaded_at: since when it answers.
    """

    file: VersionFile
    state: VersionState = VersionState.FOUND
    reason: str | None = None
    content: str | None = None
    loaded: LoadedVersion | None = field(default=None, repr=False)
    loaded_at: datetime | None = None

    @property
    def number(self) -> int:
        return self.file.version

    @property
    def may_be_loaded(self) -> bool:
        """Says whether a look may try to load it."""
        if self.state is VersionState.REJECTED_FOR_NOW:
            return self.file.header is not None
        return self.state is VersionState.AVAILABLE

    def becomes_available(self) -> None:
        """It may be loaded: its headers are sound, or a load was given up."""
        self._become(VersionState.AVAILABLE)

    def begins_to_load(self) -> None:
        self._become(VersionState.LOADING)

    def becomes_ready(self, loaded: LoadedVersion) -> None:
        self._become(VersionState.READY)
        self.reason = None
        self.content = self._header_sha256
        self.loaded = loaded
        self.loaded_at = datetime.now(UTC)

    def begins_to_retire(self) -> None:
        self._become(VersionState.RETIRING)
        self.loaded = None

    def is_rejected(self, reason: str, *, transient: bool, for_its_content: bool = False) -> None:
        """Notes why it cannot be served.

        Args:
            transient: the reason may pass by itself.
            for_its_content: the same bytes would be rejected again.
        """
        self._become(VersionState.REJECTED_FOR_NOW if transient else VersionState.REJECTED)
        self.content = self._header_sha256 if for_its_content else None
        self.reason = reason.encode(errors="backslashreplace").decode()  # names of files may be no text

    @property
    def _header_sha256(self) -> str | None:
        return None if self.file.header is None else self.file.header.sha256

    def _become(self, state: VersionState) -> None:
        if state not in _NEXT[self.state]:
            raise AssertionError(f"version {self.number} cannot become {state.name} when it is {self.state.name}")
        self.state = state


@dataclass(slots=True, eq=False)
class Model:
    """A model of the store.

    Args:
        versions: those that have a file, by number, the highest first.
        serving: the version that answers. Its file may have gone, or may have been replaced by another one.
        passed_over: what lies in its folder and is no version.
    """

    name: str
    versions: dict[int, Version] = field(default_factory=dict)
    serving: Version | None = None
    passed_over: tuple[PassedOver, ...] = ()

    @property
    def refusals(self) -> tuple[Refusal, ...]:
        """The files that are there and cannot be served, the highest first."""
        return tuple(Refusal(each.number, each.reason) for each in self.versions.values() if each.reason is not None)
