"""What is said of the models: in `GET /models`, in readiness, and in the catalogue of what is served."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from app.engine.catalogue import NOT_COMPLETE, Catalogue, Route, StoredVersions
from app.engine.model_info import ModelInfo, VersionInfo
from app.lifecycle.registry import refusals
from app.lifecycle.version import Model, Version, VersionState

_SHOWN = 3  # refusals that a message names


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
    )


def catalogue(
    models: Mapping[str, Model], *, default_model: str | None, complete: bool, device: str, store: Path
) -> Catalogue:
    """Says what is served, and why the rest is not.

    Args:
        default_model: the model that answers when a request names none.
        complete: whether the whole store has been looked at.
        store: the store's folder, as a person named it.
    """
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
        why_not_ready=_why_not_ready(models, default_model, store) if complete else NOT_COMPLETE,
    )


def _why_not_ready(models: Mapping[str, Model], default_model: str | None, store: Path) -> str | None:
    served = [name for name, model in models.items() if model.serving is not None]
    if default_model is not None and default_model not in served:
        return _why_not_served(models.get(default_model) or Model(default_model))
    if served:
        return None
    refused = [
        f"{name} {refusal.version}: {refusal.reason}" for name in sorted(models) for refusal in refusals(models[name])
    ]
    if refused:
        return "no checkpoint in the store can be served; " + "; ".join(refused[:_SHOWN])
    return f"the store {store} is empty; train and publish a model: python -m training strokes --store {store}"


def _why_not_served(model: Model) -> str:
    refused = "; ".join(f"version {r.version}: {r.reason}" for r in refusals(model)[:_SHOWN])
    return f"no version of {model.name!r} can be served" + (f": {refused}" if refused else "")


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
