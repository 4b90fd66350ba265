"""Catalogue: what an engine serves and why it does not serve the rest, at one moment, as plain data.

The rules for which version a request means stand here, so that every process that has the catalogue agrees.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from app.engine.errors import Ambiguous, NotFound, NotReady, Stale
from app.engine.predictions import Target
from app.engine.rows import Reader
from classifier.preprocess import Preprocess


@dataclass(frozen=True, slots=True)
class Entry:
    """A version that answers. `number` is its own in all the life of an engine; `digest` is the preprocess's."""

    number: int
    model: str
    version: int
    preprocess: Preprocess
    digest: str
    reader: Reader


@dataclass(frozen=True, slots=True)
class OnDisk:
    """A model's versions in the store, and why none of them is served, where none is."""

    versions: frozenset[int]
    why_not_served: str


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What is known after a look at the store.

    `replaced` versions still answer what was submitted to them. `default` is the model that answers when none is named,
    `complete` whether all of the store has been looked at. `why_not_ready` says what is missing, in words that say what
    to do; None where nothing is.
    """

    served: Mapping[str, Entry] = field(default_factory=dict)
    replaced: tuple[Entry, ...] = ()
    on_disk: Mapping[str, OnDisk] = field(default_factory=dict)
    default: str | None = None
    complete: bool = False
    device: str = ""
    why_not_ready: str | None = "the first look at the store is not over"

    def target(self, model: str | None, version: int | None) -> Target:
        """As `Engine.target`."""
        entry = self.entry(model or self._default_model(), version)
        return Target(entry.model, version, entry.preprocess, entry.digest)

    def bound(self, target: Target) -> Entry:
        """The version that answers `target` now. Raises: NotFound, NotReady, Stale."""
        entry = self.entry(target.model, target.version)
        if entry.digest != target.digest:
            raise Stale(f"version {entry.version} wants its images prepared differently")
        return entry

    def entry(self, model: str, version: int | None) -> Entry:
        """The served version of a model, if it is the one that is asked for. Raises: NotFound, NotReady."""
        entry = self.served.get(model)
        if entry is not None and version in (None, entry.version):
            return entry
        if not self.complete:
            raise NotReady(self.why_not_ready or "the first look at the store is not over")
        if model not in self.on_disk:
            raise NotFound("model_not_found", f"there is no model {model!r}; GET /models lists what there is")
        if version is None:
            raise NotReady(self.on_disk[model].why_not_served)
        if version in self.on_disk[model].versions:
            raise NotFound("version_not_loaded", f"version {version} of {model!r} is on disk, but not loaded")
        raise NotFound("version_not_found", f"there is no version {version} of {model!r}")

    def _default_model(self) -> str:
        if self.default is not None:
            return self.default
        if not self.served or not self.complete:  # another one may still be on its way
            raise NotReady(self.why_not_ready or "nothing is served")
        if len(self.served) > 1:
            names = ", ".join(sorted(self.served))
            raise Ambiguous(f"several models are served; name one of {names} with ?model=")
        return next(iter(self.served))
