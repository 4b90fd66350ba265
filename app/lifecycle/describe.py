"""What is said of the models: in `GET /models`, in readiness, and in the catalogue of what is served."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from app.engine.catalogue import NOT_COMPLETE, Catalogue, Route, StoredVersions
from app.engine.model_info import ModelInfo, PassedOver, VersionInfo
from app.lifecycle.registry import Registry
from app.lifecycle.version import Model, Version, VersionState

_SHOWN = 3  # reasons that a message names


def model_info(model: Model, *, device: str) -> ModelInfo:
    """Says what there is to know of a model.

    Args:
        device: where loaded versions are.
    """
    serving = model.serving
    shown = dict(model.versions)
    if serving is not None and shown.get(serving.number, serving).reason is None:
        shown[serving.number] = serving  # also when its file is gone; but a damaged file in its place is told of
    return ModelInfo(
        name=model.name,
        served_version=None if serving is None else serving.number,
        versions=tuple(_version_info(shown[number], serving, device) for number in sorted(shown, reverse=True)),
        passed_over=model.passed_over,
    )


def catalogue(registry: Registry, *, default_model: str | None, device: str, store: Path | str) -> Catalogue:
    """Says what is served, and why the rest is not.

    Args:
        default_model: the model that answers when a request names none.
        store: the store's folder or URL, as a person named it.
    """
    models, complete = registry.models, registry.first_scan_done.is_set()
    entries = {
        name: model.serving.loaded.entry
        for name, model in models.items()
        if model.serving is not None and model.serving.loaded is not None
    }
    stored = {name: StoredVersions(frozenset(model.versions), _why_not_served(model)) for name, model in models.items()}
    return Catalogue(
        entries={entry.id: entry for entry in entries.values()},
        routes={name: Route(entry.id, {entry.version: entry.id}) for name, entry in entries.items()},
        stored=stored,
        default_model=default_model,
        complete=complete,
        device=device,
        why_not_ready=_why_not_ready(registry, default_model, store) if complete else NOT_COMPLETE,
        passed_over=registry.store.passed_over,
    )


def _why_not_ready(registry: Registry, default_model: str | None, store: Path | str) -> str | None:
    models = registry.models
    where = store if isinstance(store, str) else store.absolute()
    served = [name for name, model in models.items() if model.serving is not None]
    if default_model in served or (served and default_model is None):
        return None
    if registry.store_problem is not None:
        return f"the store {where} {registry.store_problem}; the server keeps looking for it{_train(store)}"
    if default_model is not None and default_model in models:
        return _why_not_served(models[default_model])
    passed_over = [_said(each) for each in registry.store.passed_over]
    if default_model is not None:
        return f"there is no model {default_model!r} in the store {where}" + _first(passed_over)
    refused, beside = [], []
    for name in sorted(models):
        refused += [f"{name} {refusal.version}: {refusal.reason}" for refusal in models[name].refusals]
        beside += [_said(each) for each in models[name].passed_over]
    if refused or passed_over or beside:
        return "no checkpoint in the store can be served" + _first([*refused, *passed_over, *beside])
    return f"the store {where} {'holds no checkpoint' if models else 'is empty'}{_train(store)}"


def _why_not_served(model: Model) -> str:
    refused = [f"version {refusal.version}: {refusal.reason}" for refusal in model.refusals]
    return f"no version of {model.name!r} can be served" + _first([*refused, *map(_said, model.passed_over)])


def _first(reasons: Sequence[str]) -> str:
    more = len(reasons) - _SHOWN
    shown = "; ".join([*reasons[:_SHOWN], *([f"and {more} more, see GET /models"] if more > 0 else [])])
    return f": {shown}" if shown else ""


def _train(store: Path | str) -> str:
    return f"; train and publish a model: python -m training strokes --store {shlex.quote(str(store))}"


def _said(passed_over: PassedOver) -> str:
    return f"{passed_over.path} is passed over: {passed_over.reason}"


def _version_info(version: Version, serving: Version | None, device: str) -> VersionInfo:
    file, answers = version.file, serving is not None and version.number == serving.number
    return VersionInfo(
        version=version.number,
        state=_state(version),
        reason=version.reason,
        manifest=None if file.header is None else file.header.manifest,
        file_size=file.fingerprint.size,
        sha256=file.header.sha256 if file.header else None,
        device=device if answers else None,
        loaded_at=serving.loaded_at if serving is not None and answers else None,
    )


def _state(version: Version) -> Literal["loading", "ready", "available", "refused"]:
    """Says the state in the words of the HTTP interface."""
    if version.reason is not None:  # also while it is tried again
        return "refused"
    if version.state is VersionState.READY:
        return "ready"
    return "loading" if version.state is VersionState.LOADING else "available"
