"""Catalogue: what an engine serves and why it does not serve the rest, at one moment, as plain data.

The rules for which version a request means stand here, so that every process that has the catalogue agrees.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from app.engine.errors import Ambiguous, NotFound, NotReady, Starting
from app.engine.model_info import PassedOver, no_such_model
from app.engine.rows import RowDecoder
from classifier.preprocess import Preprocess

NOT_COMPLETE = "the first look at the store is not over"


@dataclass(frozen=True, slots=True)
class Entry:
    """A loaded version. No other version has its `id` as long as the engine lives; `digest` is the preprocess's."""

    id: int
    model: str
    version: int
    preprocess: Preprocess
    digest: str
    row_decoder: RowDecoder


@dataclass(frozen=True, slots=True)
class Route:
    """Which loaded versions answer for a model, by the ids of their entries.

    Args:
        default: answers where no version is named.
        versions: the entry of each version that may be named.
    """

    default: int
    versions: Mapping[int, int]


@dataclass(frozen=True, slots=True)
class StoredVersions:
    """A model's versions in the store, and why none of them is served, where none is."""

    versions: frozenset[int]
    why_not_served: str


class ResolvedModel(NamedTuple):
    """The version that a request means, chosen once; `asked` is the version that it named, if it named one."""

    entry: Entry
    asked: int | None


@dataclass(frozen=True, slots=True)
class Catalogue:
    """What is known after a look at the store.

    Args:
        entries: the versions that some route leads to, by their ids.
        routes: the models that are served, by name.
        stored: the models that are in the store, by name.
        default_model: the model that answers when none is named.
        complete: whether all of the store has been looked at.
        why_not_ready: what is missing, in words that say what to do; None where nothing is.
        passed_over: what lies in the store's own folder and is no model.
    """

    entries: Mapping[int, Entry] = field(default_factory=dict)
    routes: Mapping[str, Route] = field(default_factory=dict)
    stored: Mapping[str, StoredVersions] = field(default_factory=dict)
    default_model: str | None = None
    complete: bool = False
    device: str = ""
    why_not_ready: str | None = NOT_COMPLETE
    passed_over: tuple[PassedOver, ...] = ()

    def resolve(self, model: str | None, version: int | None) -> ResolvedModel:
        """Chooses the version that answers, as `Engine.resolve` does."""
        name = model or self._named_by_nobody()
        route = self.routes.get(name)
        if route is not None:
            entry = route.default if version is None else route.versions.get(version)
            if entry is not None:
                return ResolvedModel(self.entries[entry], version)
        raise self._why_not(name, version)

    @property
    def served(self) -> dict[str, int]:
        """The version of each model that answers where none is named."""
        return {model: self.entries[route.default].version for model, route in self.routes.items()}

    def _why_not(self, model: str, version: int | None) -> NotFound | NotReady:
        if not self.complete:
            return Starting(self.why_not_ready or NOT_COMPLETE)
        if model not in self.stored:
            return NotFound("model_not_found", no_such_model(model, self.passed_over))
        if version is None:
            return NotReady(self.stored[model].why_not_served)
        if version in self.stored[model].versions:
            return NotFound("version_not_loaded", f"version {version} of {model!r} is on disk, but not loaded")
        return NotFound("version_not_found", f"there is no version {version} of {model!r}")

    def _named_by_nobody(self) -> str:
        if self.default_model is not None:
            return self.default_model
        if not self.complete:  # another one may still be on its way
            raise Starting(self.why_not_ready or NOT_COMPLETE)
        if not self.routes:
            raise NotReady(self.why_not_ready or "nothing is served")
        if len(self.routes) > 1:
            names = ", ".join(sorted(self.routes))
            raise Ambiguous(f"several models are served; name one of {names} with ?model=")
        return next(iter(self.routes))
