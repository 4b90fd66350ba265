"""`python -m app`: settings, the port, and then a supervisor with its processes, or one process that does it all."""

import asyncio
import contextlib
import os
import resource
import socket
import sys
from collections.abc import Sequence

from app.engine.interface import Engine
from app.processes.gc_tuning import settle, unsettle
from app.settings import Settings, SettingsError
from app.telemetry.log import announce, configure
from classifier.cores import usable_cores


def main(arguments: Sequence[str]) -> int:
    """The exit code: 0 after a signal, 1 after a failure, 2 for what has to be put right first."""
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # torch's threads, here or in a child, spin no core away
    try:
        settings = Settings.read(arguments)
        configure(level=settings.log_level, json_lines=settings.log_format == "json")
        _allow_open_files(settings)
        listener = _listen(settings.host, settings.port)
        front_ends = usable_cores() - 1 if settings.front_ends is None else settings.front_ends
        if front_ends:
            return _supervised(settings, front_ends, listener)
        return _alone(settings, listener)
    except (SettingsError, ImportError, OSError, ValueError) as error:
        print(f"flambeau: {error}", file=sys.stderr)
        return 2


def _supervised(settings: Settings, front_ends: int, listener: socket.socket) -> int:
    from app.processes.supervisor import Supervisor

    address = _address(settings.host, listener)
    supervisor = Supervisor(settings, front_ends=front_ends, listener=listener, address=address)
    return asyncio.run(supervisor.run())


def _alone(settings: Settings, listener: socket.socket) -> int:
    """The engine, on a thread of its own, and HTTP in this process."""
    # Here, not above: the settings are checked, and --help is shown, without waiting for torch.
    import uvloop

    from app.inference.local_engine import LocalEngine
    from app.processes.serving import serve
    from app.telemetry.metrics import Metrics

    metrics = Metrics()
    engine = LocalEngine(settings, metrics)

    async def run() -> int:
        listening = asyncio.Event()
        announcing = asyncio.create_task(_announce(engine, listening, _address(settings.host, listener)))
        code = await serve(engine, settings, metrics, listener, listening)
        announcing.cancel()
        unsettle()
        return code

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


async def _announce(engine: Engine, listening: asyncio.Event, address: str) -> None:
    await listening.wait()
    status = await engine.started()
    settle()
    announce(status, address)


def _allow_open_files(settings: Settings) -> None:
    """As many as the connections need that may be open, where the system lets us: shells often set a limit of 1024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * settings.max_connections + 512  # as many again are open while they are told that there are too many
    wanted = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(ValueError, OSError):  # macOS allows fewer than its hard limit says
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


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


def _address(host: str, listener: socket.socket) -> str:
    name = f"[{host}]" if ":" in host else host
    return f"http://{name}:{listener.getsockname()[1]}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
