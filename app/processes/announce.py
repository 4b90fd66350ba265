"""The log line that says what is served, and at which address. Imports no torch."""

import asyncio
import logging
import socket
from typing import TYPE_CHECKING

from app.telemetry.log import event
from classifier.cores import find_cores

if TYPE_CHECKING:  # the supervisor asks for `address_of`, and does without numpy and Pillow
    from app.engine.interface import Engine
    from app.engine.model_info import Status

logger = logging.getLogger("app")


def announce(status: "Status", address: str) -> None:
    """Logs one line with the address, the models, the device and the cores, and another one if something is missing."""
    models = ", ".join(f"{name} {version}" for name, version in status.served.items()) or "none"
    event(
        logger,
        "ready" if status.ready else "not ready",
        address=address,
        models=models,
        device=status.device,
        cores=str(find_cores()),
    )
    if not status.ready:
        event(logger, status.detail, level=logging.WARNING)


async def announce_when_started(engine: "Engine", listening: asyncio.Event, address: str) -> None:
    """Announces once connections are accepted and the engine has looked through the whole store."""
    await listening.wait()
    announce(await engine.started(), address)


def address_of(host: str, listener: socket.socket) -> str:
    """Returns the URL of a bound socket, with the host as the settings name it and the port that the system gave."""
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listener.getsockname()[1]}"
