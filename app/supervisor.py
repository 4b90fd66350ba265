"""The supervisor: starts the engine process and the front-ends, starts again what dies, and ends all of them.

It holds what outlives them: the port, the engine's socket, and the folder of what they count.
"""

import asyncio
import logging
import shutil
import signal
import socket
import sys
import tempfile
import time
from pathlib import Path

from app.child import Orders
from app.log import event
from app.settings import Settings

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
        self._folder = Path(tempfile.mkdtemp(prefix="flambeau-"))
        (self._folder / "counts").mkdir()
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._stopping = asyncio.Event()
        self._code = 0

    async def run(self) -> int:
        """The exit code: 0 after a signal, else that of the process that could not go on."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        try:
            with socket.socket(socket.AF_UNIX) as engine_socket:
                engine_socket.bind(str(self._folder / _ENGINE))
                engine_socket.listen()
                work = [self._keep(_ENGINE, "app.engine_process", engine_socket)]
                work += [self._keep(f"front-end-{i}", "app.front_end", self._listener) for i in range(self._front_ends)]
                keeping = [asyncio.create_task(each) for each in work]
                await self._stopping.wait()
                self._listener.close()  # so that nobody connects whom no front-end will accept
                await self._end([name for name in self._processes if name != _ENGINE])
                await self._end([_ENGINE])  # last: the front-ends wait for its answers
                await asyncio.wait(keeping)
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        return self._code

    def _stop(self) -> None:
        """The second time, without waiting for connections."""
        if self._stopping.is_set():
            self._signal(list(self._processes))
        self._stopping.set()

    async def _keep(self, name: str, module: str, listener: socket.socket) -> None:
        """One process after the other, until the server stops or there is no point."""
        early = 0
        while not self._stopping.is_set():
            began = time.monotonic()
            process = await self._start(name, module, listener)
            self._processes[name] = process
            code = await process.wait()
            early = early + 1 if time.monotonic() - began < _SOON_SECONDS else 0
            if self._stopping.is_set():
                return
            if code == 2 or early == _MAX_EARLY_ENDS:
                self._code = 2 if code == 2 else 1
                self._stopping.set()
                return
            event(logger, "a process has ended; it is started again", level=logging.ERROR, process=name, code=code)

    async def _start(self, name: str, module: str, listener: socket.socket) -> asyncio.subprocess.Process:
        orders = Orders(
            settings=self._settings,
            process=name,
            listener=listener.fileno(),
            folder=self._folder,
            front_ends=self._front_ends,
            address=self._address,
        )
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module),
            stdin=asyncio.subprocess.PIPE,
            pass_fds=[listener.fileno()],
            process_group=0,  # Ctrl-C reaches the supervisor alone, which lets them finish
        )
        if process.stdin is not None:
            process.stdin.write(orders.model_dump_json().encode() + b"\n")
        return process

    async def _end(self, names: list[str]) -> None:
        self._signal(names)
        waiting = [asyncio.create_task(self._processes[name].wait()) for name in names if name in self._processes]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=self._settings.grace_seconds + _LAST_SECONDS)
            if late:
                event(logger, "killing what did not end in time", level=logging.ERROR, processes=len(late))
                for name in names:
                    if self._processes[name].returncode is None:
                        self._processes[name].kill()
                await asyncio.wait(late)

    def _signal(self, names: list[str]) -> None:
        for name in names:
            if name in self._processes and self._processes[name].returncode is None:
                self._processes[name].terminate()
