"""`python -m app`: settings -> engine -> create_app -> uvicorn, until a signal, or until the engine has failed."""

import asyncio
import contextlib
import gc
import logging
import resource
import signal
import socket
import sys
from collections.abc import Sequence

import uvloop

from app.engine import Engine
from app.log import configure, event
from app.main import create_app
from app.metrics import Metrics
from app.server import Server
from app.settings import Settings, SettingsError

logger = logging.getLogger("app")


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 after a signal, 1 after a failure, 2 for what has to be put right first."""
    try:
        settings = Settings.read(arguments)
        configure(level=settings.log_level, json_lines=settings.log_format == "json")
        _allow_open_files(settings)
        listener = _listen(settings.host, settings.port)
        metrics = Metrics()
        engine = _engine(settings, metrics)
    except (SettingsError, ImportError, OSError, ValueError) as error:
        print(f"flambeau: {error}", file=sys.stderr)
        return 2
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_serve(settings, engine, metrics, listener))


def _allow_open_files(settings: Settings) -> None:
    """As many as the connections need that may be open, where the system lets us: shells often set a limit of 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * settings.max_connections + 512  # as many again are open while they are told that there are too many
    wanted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # macOS allows fewer than its hard limit says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _engine(settings: Settings, metrics: Metrics) -> Engine:
    # Here, not above: the settings are checked, and --help is shown, without waiting for torch.
    from app.local import LocalEngine

    return LocalEngine(settings, metrics)


def _listen(host: str, port: int) -> socket.socket:
    """Bound before anything is loaded, so that a port that is taken is told of at once. Raises: OSError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        raise OSError(
            f"cannot listen on {host}:{port}: {error.strerror or error}; choose another with --host and --port"
        ) from error
    return listener


async def _serve(settings: Settings, engine: Engine, metrics: Metrics, listener: socket.socket) -> int:
    server = Server(create_app(engine, settings, metrics), settings, metrics)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, server.stop)
    serving = asyncio.create_task(server.serve(sockets=[listener]))
    announcing = asyncio.create_task(_announce(engine, server, _address(settings.host, listener)))
    watching = asyncio.create_task(_watch(engine, server))
    await serving
    announcing.cancel()
    gc.unfreeze()  # or libraries that look for leaks at exit report theirs
    return watching.result() if watching.done() else 0


async def _announce(engine: Engine, server: Server, address: str) -> None:
    """The one line that says what there is now."""
    await server.listening.wait()
    status = await engine.started()
    # Torch and FastAPI bring 380,000 objects that live as long as the process. Each full collection would look
    # through all of them while everybody waits: 80 ms, several times a second under load.
    gc.freeze()
    models = ", ".join(f"{name} {version}" for name, version in status.served.items()) or "none"
    detail = None if status.ready else status.detail
    event(logger, "ready" if status.ready else "not ready", address=address, models=models, device=status.device)
    if detail is not None:
        event(logger, detail, level=logging.WARNING)


async def _watch(engine: Engine, server: Server) -> int:
    """Waits for the engine to fail: a server that cannot predict does not go on."""
    error = await engine.failed()
    logger.error("the engine has failed", exc_info=error)
    server.stop()
    return 1


def _address(host: str, listener: socket.socket) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listener.getsockname()[1]}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
