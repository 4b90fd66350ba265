"""GET /models, GET /models/{model} and POST /models/{model}/reload, by FastAPI."""

import time
from typing import Annotated

from fastapi import APIRouter, Path, Response
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from app.api.openapi import problems
from app.api.schemas import ModelBody, ModelsBody, ReloadBody, model_body
from app.engine.interface import ModelControl
from app.engine.model_info import no_such_model
from app.http.problems import Problem

ModelName = Annotated[str, Path(description="its name, as `GET /models` lists it", examples=["strokes"])]


def router(engine: ModelControl, *, deadline_seconds: float) -> APIRouter:
    """Returns the routes. A reload is waited for no longer than `deadline_seconds`."""
    api = APIRouter()

    @api.get(
        "/models",
        operation_id="listModels",
        summary="List the models",
        response_description="All models, by name",
        tags=["models"],
    )
    async def models() -> ModelsBody:
        """Everything the store holds, what is served of it, and what is passed over."""
        models = list(map(model_body, await engine.models()))
        return ModelsBody(models=models, passed_over=await engine.passed_over())

    @api.get(
        "/models/{model}",
        operation_id="getModel",
        summary="Show one model",
        response_description="Its versions, the highest first",
        tags=["models"],
        response_model=ModelBody,
        responses=problems("model_not_found"),
    )
    async def model(model: ModelName) -> BaseModel:
        """One model: all its versions on disk, and which of them answers."""
        for info in await engine.models():
            if info.name == model:
                return model_body(info)
        raise Problem("model_not_found", no_such_model(model, await engine.passed_over()))

    @api.post(
        "/models/{model}/reload",
        operation_id="reloadModel",
        summary="Look for a new version now",
        response_description="What is served after the look",
        tags=["models"],
        response_model=ReloadBody,
        responses={
            409: {"model": ReloadBody, "description": "The newest version was refused; the old one serves on"},
            **problems(
                "model_not_found",
                "not_ready",
                "draining",
                "deadline_exceeded",
                deadline_exceeded="the look at 'strokes' still goes on; GET /models shows what comes of it",
            ),
        },
    )
    async def reload(model: ModelName) -> Response:
        """Looks into the model's files now, and reads what is served whole; answers after the swap, or with 504."""
        report = await engine.reload(model, deadline=time.monotonic() + deadline_seconds)
        body = ReloadBody.model_validate(report)
        return JSONResponse(body.model_dump(), status_code=409 if report.newest_refused else 200)

    return api
