"""Puts the HTTP side together: one place where its parts are made and handed to each other."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.metadata import version
from typing import NamedTuple

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from app.admission import Admission
from app.api import health, models, pages
from app.api.openapi import document
from app.api.predict import METHODS, PATH, Predict
from app.api.predict_fast import PredictFastPath
from app.api.prediction import ImageClassifier
from app.decoding.decoder import Decoder
from app.engine.interface import ControlledEngine
from app.http.draining import Draining
from app.http.exchange import FastRoute
from app.http.middleware import LingeringClose, ProblemDocuments, RequestIdAndMetrics
from app.http.problems import HANDLERS
from app.settings import Settings
from app.telemetry.metrics import Metrics
from classifier.cores import usable_cores


class App(NamedTuple):
    """The application, for any ASGI server, and its fast routes, for ours.

    The lifespan of `asgi` is the engine's: it starts the engine and closes it.
    """

    asgi: ASGIApp
    fast_routes: tuple[FastRoute, ...]


def create_app(engine: ControlledEngine, settings: Settings, metrics: Metrics, draining: Draining | None = None) -> App:
    """Returns the application over an engine. Both ways to a prediction share its budgets, decoder and engine.

    Args:
        draining: says when the server drains; None: that server is not ours, and does not say it.
    """
    admission = Admission(
        requests=settings.max_requests,
        body_bytes=settings.max_pending_mb * 1e6,
        items=settings.max_queue,
        pixels=settings.max_pending_megapixels * 1e6,
        small_body=PredictFastPath.small_body,
    )
    decoder = Decoder(
        max_pixels=int(settings.max_megapixels * 1e6),
        pixels=admission.pixels,
        threads=settings.decode_threads or usable_cores(),
        draft=settings.jpeg_draft,
    )
    draining = draining or Draining()
    classifier = ImageClassifier(engine, decoder, metrics, hold_seconds=settings.hold_seconds, draining=draining)
    predict = Predict(classifier, admission, settings, metrics)
    app: ASGIApp = ProblemDocuments(_Dispatch(predict, _api(engine, decoder, settings, metrics, draining)))
    if settings.cors_origins:
        app = CORSMiddleware(
            app,
            allow_origins=settings.cors_origins,
            allow_methods=["GET", *METHODS],
            allow_headers=["*"],
            expose_headers=["x-request-id", "retry-after"],
        )
    fast_path = PredictFastPath(predict, cors=bool(settings.cors_origins))
    return App(RequestIdAndMetrics(LingeringClose(app, draining), metrics), (fast_path,))


class _Dispatch:
    """Sends requests for the hot route to it, and all others to FastAPI."""

    def __init__(self, predict: Predict, api: FastAPI) -> None:
        self._predict = predict
        self._api = api
        self._route = Route(PATH, predict, methods=METHODS)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["path"] == PATH:
            scope["route"] = self._route
            await self._predict(scope, receive, send)
        else:
            await self._api(scope, receive, send)


def _api(
    engine: ControlledEngine, decoder: Decoder, settings: Settings, metrics: Metrics, draining: Draining
) -> FastAPI:
    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await engine.start()
        try:
            yield
        finally:
            await engine.close()
            decoder.close()

    api = FastAPI(
        title="flambeau",
        summary="Image classifiers over HTTP",
        version=version("flambeau"),
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        exception_handlers=HANDLERS,
    )
    api.include_router(models.router(engine, deadline_seconds=settings.deadline_seconds))
    api.include_router(health.router(engine, metrics, draining))
    api.include_router(pages.router)
    api.openapi = lambda: document(api)  # type: ignore[method-assign]
    return api
