"""GET /health/live, GET /health/ready and GET /metrics, by FastAPI: what a monitoring system asks."""

from fastapi import APIRouter, Response
from fastapi.responses import PlainTextResponse
from prometheus_client import CONTENT_TYPE_LATEST

from app.api.openapi import problems
from app.api.schemas import HealthBody, LiveBody
from app.engine.interface import Engine
from app.http.draining import Draining
from app.http.problems import Problem
from app.telemetry.metrics import Metrics


def router(engine: Engine, metrics: Metrics, draining: Draining) -> APIRouter:
    """Returns the routes."""
    api = APIRouter()

    @api.get(
        "/health/live",
        operation_id="live",
        summary="Is the process alive",
        response_description="It is",
        tags=["health"],
    )
    async def live() -> LiveBody:
        """The process answers. Restart it when it does not."""
        return LiveBody(status="live")

    @api.get(
        "/health/ready",
        operation_id="ready",
        summary="Can predictions be answered",
        response_description="They can",
        tags=["health"],
        responses=problems("not_ready", "draining"),
    )
    async def ready() -> HealthBody:
        """Predictions can be answered. Send no traffic while they cannot."""
        if draining.begun:
            raise Problem("draining", "the server is shutting down")
        status = await engine.status()
        if not status.ready:
            raise Problem("not_ready", status.detail)
        return HealthBody(status="ready", served=status.served)

    @api.get(
        "/metrics",
        operation_id="metrics",
        summary="Figures for a monitoring system",
        response_description="All series",
        tags=["health"],
        response_class=PlainTextResponse,
    )
    async def exposition() -> Response:
        """In Prometheus's text format."""
        return Response(metrics.exposition(), media_type=CONTENT_TYPE_LATEST)

    return api
