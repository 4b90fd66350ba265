"""Ray Serve: several replicas of one process that does it all, on the machines of a Ray cluster.

    serve run app.processes.ray_serve:application store=s3://bucket/models min_replicas=2 max_replicas=8

Each replica is an engine in a process of its own behind the same HTTP interface, with the same documents and metrics.
It takes new versions from the store by itself, as a pod of Kubernetes does. This module imports Ray, and torch only
where a replica begins.
"""

import os
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, model_validator
from ray import serve
from starlette.types import ASGIApp

from app.settings import Settings
from app.telemetry.log import configure

_LOOK_SECONDS = 0.5  # between two looks whether a replica that ends has answered what it holds


class Replicas(BaseModel):
    """Says how many replicas there are, and what each is given. Whatever else is said is a setting of the server.

    What is not said is read from the environment and `.env` of whoever starts them, and holds for all replicas.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    min_replicas: int = Field(1, ge=1, description="How many there are at least.")
    max_replicas: int | None = Field(None, ge=1, description="How many there are at the most; None: as at least.")
    cpus: float = Field(1, gt=0, description="The cores of each.")
    gpus: float = Field(0, ge=0, description="The GPUs of each.")

    @property
    def settings(self) -> Settings:
        """The settings of each replica. Raises: SettingsError; SystemExit, where there is no such setting."""
        return Settings.read([_flag(name.replace("_", "-"), value) for name, value in (self.model_extra or {}).items()])

    @model_validator(mode="after")
    def _agrees_with_itself(self) -> Self:
        if self.max_replicas is not None and self.max_replicas < self.min_replicas:
            raise ValueError("max_replicas is less than min_replicas")
        return self


def _flag(name: str, value: object) -> str:
    """Returns a setting as a flag; of a switch, `serve run` says true or false."""
    match str(value).lower():
        case "true":
            return f"--{name}"
        case "false":
            return f"--no-{name}"
    return f"--{name}={value}"


@serve.ingress()
class Replica:
    """Is one server of several.

    Args:
        settings: the values of `Settings`.
    """

    def __init__(self, settings: dict[str, Any]) -> None:
        self._settings = Settings.model_validate(settings)

    def __serve_build_asgi_app__(self) -> ASGIApp:
        """Returns the application, whose lifespan starts the engine and closes it."""
        os.environ.setdefault("OMP_WAIT_POLICY", "passive")
        from app.api.application import create_app
        from app.inference.local_engine import LocalEngine
        from app.telemetry.metrics import Metrics

        settings, metrics = self._settings, Metrics()
        configure(level=settings.log_level, json_lines=settings.log_format == "json")
        return create_app(LocalEngine(settings, metrics), settings, metrics).asgi


def application(arguments: Replicas) -> Any:
    """Returns what `serve run` runs.

    A replica gets no more requests at a time than it admits; Ray Serve holds the others back. The number of replicas
    follows the requests in progress: one is added where each has a whole batch of them.
    """
    settings = arguments.settings
    deployment = serve.deployment(
        Replica,
        name="flambeau",
        max_ongoing_requests=settings.max_requests,
        autoscaling_config={
            "min_replicas": arguments.min_replicas,
            "max_replicas": arguments.max_replicas or arguments.min_replicas,
            "target_ongoing_requests": settings.max_batch,
        },
        ray_actor_options={"num_cpus": arguments.cpus, "num_gpus": arguments.gpus},
        graceful_shutdown_wait_loop_s=_LOOK_SECONDS,
        graceful_shutdown_timeout_s=settings.grace_seconds,
    )
    return deployment.bind(settings.model_dump())
