"""The supervisor: starts the engine process and the front-ends, starts again what dies, and ends all of them.

It holds what outlives them: the port, the engine's socket, and the folder of what they count.
"""

import asyncio
import logging
import signal
import socket
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from app.processes.child import STOP, Orders
from app.settings import Settings
from app.telemetry.counters import Counts
from app.telemetry.log import event

logger = logging.getLogger("app")

# A process that ends so soon, so many times in a row, will not live: whoever runs this server should know.
_SOON_SECONDS = 10.0
_MAX_EARLY_ENDS = 3
_LAST_SECONDS = 5.0  # beyond the grace period, until a process is killed
_ENGINE = "engine"


class Supervisor:
    """The processes of one server."""

    def __init__(self, settings: Settings, *, front_ends: int, listener: socket.socket, address: str) -> None:
        self._settings = settings
        self._front_ends = front_ends
        self._listener = listener
        self._address = address
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._code = 0

    async def run(self) -> int:
        """The exit code: 0 after a signal, else that of the process that could not go on.

        Raises: OSError, for what a process cannot be started without.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        front_ends = [f"front-end-{i}" for i in range(self._front_ends)]
        with _folder([_ENGINE, *front_ends]) as folder, socket.socket(socket.AF_UNIX) as engine_socket:
            _listen(engine_socket, folder / _ENGINE)
            work = [self._keep(_ENGINE, "app.processes.engine", engine_socket, folder)]
            work += [self._keep(name, "app.processes.front_end", self._listener, folder) for name in front_ends]
            keeping = [asyncio.create_task(each) for each in work]
            await self._stopping.wait()
            self._listener.close()  # so that nobody connects whom no front-end will accept
            await self._end(front_ends)
            await self._end([_ENGINE])  # last: the front-ends wait for its answers
            await asyncio.wait(keeping)
        for each in keeping:
            each.result()
        return self._code

    def _stop(self) -> None:
        """The second time, without waiting for connections."""
        if self._stopping.is_set():
            self._signal(list(self._processes))
        self._stopping.set()

    async def _keep(self, name: str, module: str, listener: socket.socket, folder: Path) -> None:
        """One process after the other, until the server stops or there is no point. Its end stops the server."""
        early = 0
        try:
            while not self._stopping.is_set():
                began = time.monotonic()
                process = await self._start(name, module, listener, folder)
                self._processes[name] = process
                if self._stopping.is_set():  # while it was started: it is not among those that were told
                    self._signal([name])
                code = await process.wait()
                early = early + 1 if time.monotonic() - began < _SOON_SECONDS else 0
                if self._stopping.is_set():
                    return
                if code == 2:  # it has said itself what has to be put right
                    self._code = 2
                    return
                if early == _MAX_EARLY_ENDS:
                    self._code = 1
                    event(logger, "a process ends again and again", level=logging.ERROR, process=name, code=code)
                    return
                event(logger, "a process has ended; it is started again", level=logging.ERROR, process=name, code=code)
        finally:
            self._stopping.set()

    async def _start(self, name: str, module: str, listener: socket.socket, folder: Path) -> asyncio.subprocess.Process:
        orders = Orders(
            settings=self._settings,
            process=name,
            listener=listener.fileno(),
            folder=folder,
            front_ends=self._front_ends,
            address=self._address,
        )
        line = orders.model_dump_json().encode() + b"\n"
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module),
            stdin=asyncio.subprocess.PIPE,
            pass_fds=[listener.fileno()],
            process_group=0,  # Ctrl-C reaches the supervisor alone, which lets them finish
        )
        if process.stdin is not None:
            process.stdin.write(line)
        return process

    async def _end(self, names: list[str]) -> None:
        self._signal(names)
        waiting = [asyncio.create_task(self._processes[name].wait()) for name in names if name in self._processes]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=self._settings.grace_seconds + _LAST_SECONDS)
            if late:
                event(logger, "killing what did not end in time", level=logging.ERROR, processes=len(late))
                for name in names:
                    if name in self._processes and self._processes[name].returncode is None:
                        self._processes[name].kill()
                await asyncio.wait(late)

    def _signal(self, names: list[str]) -> None:
        for name in names:
            if name in self._processes and self._processes[name].returncode is None:
                self._processes[name].send_signal(STOP)


@contextmanager
def _folder(processes: Iterable[str]) -> Iterator[Path]:
    """Of this server alone, with room for all that its processes count. Raises: OSError, saying what to do."""
    with ExitStack() as stack:
        try:
            name = stack.enter_context(tempfile.TemporaryDirectory(prefix="flambeau-", ignore_cleanup_errors=True))
            folder = Path(name)
            (folder / "counts").mkdir()
            for process in processes:
                Counts(folder / "counts" / process).close()
        except OSError as error:
            raise OSError(
                f"no temporary folder can be made ({error.strerror}): set TMPDIR to a folder that can be written to, "
                "or --front-ends 0, which needs none"
            ) from error
        yield folder


def _listen(listener: socket.socket, path: Path) -> None:
    """Raises: OSError, saying what to do."""
    try:
        listener.bind(str(path))
    except OSError as error:
        raise OSError(f"no socket can be made in {path.parent} ({error}): set TMPDIR to another folder") from error
    listener.listen()
