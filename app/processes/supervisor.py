"""The supervisor: starts the engine process and the front-ends, starts again what dies, and ends all of them.

It holds what outlives them: the port, the rendezvous of front-ends and engine, and the memory in which they count.
Imports no torch.
"""

import asyncio
import contextlib
import logging
import signal
import socket
import sys
from collections.abc import Callable

from app.http.draining import drained
from app.processes.child import DRAIN, STOP, ChildConfig
from app.processes.errors import CannotStart
from app.processes.restarts import RestartPolicy
from app.processes.shared import Shared, shared
from app.settings import Settings
from app.telemetry.connections import connections
from app.telemetry.counters import SharedCounters, series, total
from app.telemetry.log import event

logger = logging.getLogger("app")

_SUPERVISOR = "supervisor"
_ENGINE = "engine"
_LAST_SECONDS = 5.0  # beyond the grace period, until a process is killed


class Supervisor:
    """The processes of one server.

    Args:
        front_ends: how many front-ends are kept running; from 1.
        listener: the bound socket that all front-ends accept connections on.
        address: the URL that the log names.
        restart_policy: makes the policy of each process.
    """

    def __init__(
        self,
        settings: Settings,
        *,
        front_ends: int,
        listener: socket.socket,
        address: str,
        restart_policy: Callable[[], RestartPolicy] = RestartPolicy,
    ) -> None:
        self._settings = settings
        self._front_ends = front_ends
        self._listener = listener
        self._address = address
        self._restart_policy = restart_policy
        self._processes: dict[str, asyncio.subprocess.Process] = {}
        self._shared: Shared
        self._stopping = asyncio.Event()
        self._hurry = asyncio.Event()
        self._told_to_stop = False
        self._code = 0

    async def run(self) -> int:
        """Starts all processes and keeps them running until a signal, or until one of them cannot go on.

        Returns: The exit code: 0 after a signal, 1 if a process cannot go on, 2 if a process says what has to be put
            right first.
        Raises: CannotStart, where a process, or what the processes share, cannot be made.
        """
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop)
        front_ends = [f"front-end-{i}" for i in range(self._front_ends)]
        with shared([_SUPERVISOR, _ENGINE, *front_ends]) as self._shared:
            numbers = SharedCounters(self._shared.counters[_SUPERVISOR])
            keeping = [asyncio.create_task(self._keep(_Child(name, numbers))) for name in (_ENGINE, *front_ends)]
            await self._stopping.wait()
            if self._told_to_stop:
                await self._drain(front_ends)
            self._listener.close()  # so that nobody connects whom no front-end will accept
            await self._end(front_ends)
            await self._end([_ENGINE])  # last: the front-ends wait for its answers
            await asyncio.wait(keeping)
        for each in keeping:
            each.result()
        return self._code

    def _stop(self) -> None:
        """Stops the server. The second time, it does not wait for connections."""
        if self._stopping.is_set():
            self._hurry.set()
            self._signal(list(self._processes))
        self._told_to_stop = True
        self._stopping.set()

    async def _drain(self, front_ends: list[str]) -> None:
        """Lets the front-ends send their clients away, until none is left or until the time is over."""
        self._signal(front_ends, DRAIN)
        await drained(
            lambda: connections(total(self._shared.counters.values())),
            self._listener,
            seconds=self._settings.drain_seconds,
            min_seconds=self._settings.drain_min_seconds,
            hurry=self._hurry,
        )

    async def _keep(self, child: "_Child") -> None:
        """Starts a process, and starts it again whenever it ends, until the server stops or the process is given up.

        In the end it stops the server.
        """
        policy = self._restart_policy()
        try:
            process: asyncio.subprocess.Process | None = await self._start(child)
            while process is not None:
                policy.started()
                code = await process.wait()
                if self._stopping.is_set():
                    return
                if code == 2:  # it has said itself what has to be put right
                    self._code = 2
                    return
                wait = policy.ended()
                if wait is None:
                    self._give_up("a process ends again and again", process=child.name, code=code)
                    return
                _log_error("a process has ended; it is started again", process=child.name, code=code, wait=wait or None)
                process = await self._start_again(child, wait)
        finally:
            self._stopping.set()

    async def _start_again(self, child: "_Child", wait: float) -> asyncio.subprocess.Process | None:
        """Waits, then starts the process once more. Returns None if the server stops instead."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._stopping.wait(), wait)
            return None
        child.count_restart()
        try:
            return await self._start(child)
        except CannotStart as error:
            self._give_up("a process cannot be started again", process=child.name, error=error)
            return None

    async def _start(self, child: "_Child") -> asyncio.subprocess.Process:
        """Starts a process and tells it its configuration. Raises: CannotStart."""
        is_engine, meeting = child.name == _ENGINE, self._shared.rendezvous
        config = ChildConfig(
            settings=self._settings,
            process=child.name,
            listener=None if is_engine else self._listener.fileno(),
            rendezvous=(meeting.engine if is_engine else meeting.front_ends).fileno(),
            counters=self._shared.counters,
            front_ends=self._front_ends,
            address=self._address,
        )
        try:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "app.processes.engine" if is_engine else "app.processes.front_end"),
                stdin=asyncio.subprocess.PIPE,
                pass_fds=config.descriptors,
                process_group=0,  # Ctrl-C reaches the supervisor alone, which lets them finish
            )
        except OSError as error:
            raise CannotStart(f"no process can be started: {error}") from error
        if process.stdin is not None:
            process.stdin.write(config.line())
        self._processes[child.name] = process
        if self._stopping.is_set():  # meanwhile; it was not among those that were told
            self._signal([child.name])
        return process

    def _give_up(self, message: str, **values: object) -> None:
        self._code = 1
        _log_error(message, **values)

    async def _end(self, names: list[str]) -> None:
        """Tells these processes to end, waits for them, and kills those that are late."""
        self._signal(names)
        waiting = [asyncio.create_task(self._processes[name].wait()) for name in names if name in self._processes]
        if waiting:
            _, late = await asyncio.wait(waiting, timeout=self._settings.grace_seconds + _LAST_SECONDS)
            if late:
                _log_error("killing what did not end in time", processes=len(late))
                for process in self._running(names):
                    process.kill()
                await asyncio.wait(late)

    def _signal(self, names: list[str], number: signal.Signals = STOP) -> None:
        for process in self._running(names):
            process.send_signal(number)

    def _running(self, names: list[str]) -> list[asyncio.subprocess.Process]:
        processes = [self._processes[name] for name in names if name in self._processes]
        return [each for each in processes if each.returncode is None]


class _Child:
    """What stays the same when a process is started again, and how often it was."""

    def __init__(self, name: str, numbers: SharedCounters) -> None:
        self.name = name
        self._numbers = numbers
        self._restarts = numbers.slot(series("flambeau_restarts", name))

    def count_restart(self) -> None:
        self._numbers.values[self._restarts] += 1


def _log_error(message: str, **values: object) -> None:
    event(logger, message, level=logging.ERROR, **values)
