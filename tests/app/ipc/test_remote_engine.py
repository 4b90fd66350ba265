"""The link between a front-end and the engine process: both ends on one loop, or one end that a test speaks for."""

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.engine.catalogue import Entry, Route, StoredVersions
from app.engine.errors import DeadlineExceeded, NotReady, Stale
from app.engine.predictions import Answer, ItemAnswer, ItemError
from app.engine.rows import RowDecoder
from app.inference.local_engine import LocalEngine
from app.ipc import wire
from app.ipc.engine_server import EngineServer
from app.ipc.remote_engine import RemoteEngine
from app.ipc.rendezvous import Rendezvous, accept, connect, rendezvous
from app.settings import Settings
from app.telemetry.metrics import Metrics
from classifier.preprocess import Pixels
from tests.app.telemetry.test_metrics import samples
from tests.support.checkpoints import DIGITS, checkpoint, png, publish, to_pixels
from tests.support.waiting import until

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("torch_as_it_was")]

PATIENCE = 30.0  # seconds; a deadline, not a pace
ENTRY = Entry(5, "digits", 1, DIGITS, DIGITS.digest, RowDecoder(tuple("0123456789"), None))
SERVED = (
    wire.ModelUpdate("digits", None, StoredVersions(frozenset({1}), ""), Route(5, {1: 5}), (ENTRY,)),
    wire.StateUpdate(None, True, "cpu", None, ()),
)


@pytest.fixture
def meeting() -> Iterator[Rendezvous]:
    with rendezvous() as meeting:
        yield meeting


@pytest.fixture
def store(tmp_path: Path) -> Path:
    publish(tmp_path / "store", 1, checkpoint(seed=1))
    return tmp_path / "store"


def soon() -> float:
    return time.monotonic() + PATIENCE


def image(seed: int = 0) -> Pixels:
    return to_pixels(png(seed))


@dataclass
class Side:
    """The engine process's, without the process."""

    local: LocalEngine
    metrics: Metrics
    serving: "asyncio.Task[None]"

    def computed(self) -> float:
        return samples(self.metrics.exposition().decode())["flambeau_batch_items_sum", frozenset()]

    async def stop_serving(self) -> None:
        self.serving.cancel()
        await asyncio.wait([self.serving])


@asynccontextmanager
async def engine_side(meeting: Rendezvous, store: Path, **settings: Any) -> AsyncIterator[Side]:
    metrics = Metrics()
    local = LocalEngine(Settings(store=store, device="cpu", poll_seconds=600, **settings), metrics, owns_loop=True)
    side = Side(local, metrics, asyncio.create_task(EngineServer(local, metrics).serve(meeting.engine)))
    await local.start()
    try:
        yield side
    finally:
        await side.stop_serving()
        await local.close()


@asynccontextmanager
async def front_end(
    meeting: Rendezvous, *, max_waiting: int = 10_000, silent_seconds: float = 600
) -> AsyncIterator[RemoteEngine]:
    remote = RemoteEngine(meeting.front_ends, max_waiting=max_waiting, silent_seconds=silent_seconds)
    await remote.start()
    try:
        yield remote
    finally:
        await remote.close()


@dataclass
class Peer:
    """What speaks for the other end of a connection; its frames are `(kind, number, body)`."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    frames: wire.FrameDecoder = field(default_factory=wire.FrameDecoder)
    heard: list[tuple[int, int, bytes]] = field(default_factory=list)

    def say(self, *frames: bytes) -> None:
        self.writer.write(b"".join(frames))

    def tell(self, *messages: wire.FromEngine) -> None:
        self.say(*(wire.frame(wire.CONTROL, 0, wire.FROM_ENGINE.dump_json(message)) for message in messages))

    async def hear(self, kind: int) -> tuple[int, bytes]:
        """The next frame of that kind: its number and its body."""
        async with asyncio.timeout(PATIENCE):
            while True:
                while self.heard:
                    found, number, body = self.heard.pop(0)
                    if found == kind:
                        return number, body
                data = await self.reader.read(1 << 16)
                assert data, "the connection has ended"
                self.heard += [(k, n, b[start:end]) for k, n, b, start, end in self.frames.feed(data)]

    def hang_up(self) -> None:
        self.writer.transport.abort()


async def readable(waited_for: socket.socket) -> None:
    loop, found = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(waited_for.fileno(), found.set)
    try:
        await found.wait()
    finally:
        loop.remove_reader(waited_for.fileno())


@asynccontextmanager
async def peers(meeting: Rendezvous) -> AsyncIterator["asyncio.Queue[Peer]"]:
    """For each connection of a front-end, one end that a test speaks for: an engine that does what it is told."""
    connected: asyncio.Queue[Peer] = asyncio.Queue()
    all_of_them: list[Peer] = []

    async def serve() -> None:
        while True:
            await readable(meeting.engine)
            all_of_them.append(Peer(*await asyncio.open_unix_connection(sock=accept(meeting.engine))))
            connected.put_nowait(all_of_them[-1])

    serving = asyncio.create_task(serve())
    try:
        yield connected
    finally:
        serving.cancel()
        await asyncio.wait([serving])
        for peer in all_of_them:
            peer.hang_up()


@asynccontextmanager
async def engine_that_is_told(
    meeting: Rendezvous, *, silent_seconds: float = 600
) -> AsyncIterator[tuple[RemoteEngine, Peer, "asyncio.Queue[Peer]"]]:
    """It has said that it serves `digits` 1, and not a word since."""
    async with peers(meeting) as connected, front_end(meeting, silent_seconds=silent_seconds) as remote:
        async with asyncio.timeout(PATIENCE):
            peer = await connected.get()
            peer.tell(*SERVED)
            await remote.started()
        yield remote, peer, connected


def submit(number: int, entry: int, images: int, *, seconds: float = PATIENCE) -> bytes:
    return b"".join(wire.submit_frame(number, entry, [image(i) for i in range(images)], top_k=3, seconds=seconds))


@asynccontextmanager
async def peer_of(meeting: Rendezvous, side: Side) -> AsyncIterator[tuple[Peer, int]]:
    """A front-end that a test speaks for, and the entry that is served."""
    await side.local.started()
    peer = Peer(*await asyncio.open_unix_connection(sock=connect(meeting.front_ends)))
    try:
        _, told = await peer.hear(wire.CONTROL)
        update = wire.FROM_ENGINE.validate_json(told)
        assert isinstance(update, wire.ModelUpdate)
        assert update.route is not None
        yield peer, update.route.default
    finally:
        peer.hang_up()


async def test_before_there_is_an_engine_process_the_answer_is_not_ready(meeting: Rendezvous) -> None:
    async with front_end(meeting) as remote:
        with pytest.raises(NotReady, match="being started"):
            remote.resolve(None, None)
        for question in (remote.models(), remote.reload("digits", deadline=soon())):
            with pytest.raises(NotReady):
                await question
        assert not (await remote.status()).ready


async def test_an_engine_process_that_has_not_spoken_yet_is_not_ready_and_lists_no_models(meeting: Rendezvous) -> None:
    async with peers(meeting) as connected, front_end(meeting) as remote:

        async def reload() -> bool:
            try:
                return (await remote.reload("digits", deadline=soon())).changed
            except NotReady:  # not connected yet
                return False

        asking = asyncio.create_task(until(reload))
        peer = await connected.get()
        await peer.hear(wire.CONTROL)
        with pytest.raises(NotReady, match="being started"):
            await remote.models()
        assert not (await remote.status()).ready
        asking.cancel()


async def test_an_engine_process_that_ends_answers_what_waits_with_not_ready(meeting: Rendezvous, store: Path) -> None:
    async with engine_side(meeting, store, max_batch=1) as side, front_end(meeting) as remote:
        await remote.started()
        target = remote.resolve(None, None)
        waiting = [
            asyncio.create_task(remote.submit(target, [image()] * 200, top_k=1, deadline=soon())) for _ in range(3)
        ]
        await until(lambda: side.computed() > 0)
        await side.stop_serving()
        for each in waiting:
            with pytest.raises(NotReady):
                await each
        assert (await remote.status()).waiting_items == 0


async def test_a_submit_at_the_very_moment_that_the_engine_process_ends_does_not_hang(meeting: Rendezvous) -> None:
    async with engine_that_is_told(meeting) as (remote, peer, _):
        target = remote.resolve(None, None)
        submits = []
        peer.hang_up()
        async with asyncio.timeout(PATIENCE):
            while (await remote.status()).ready:
                submits.append(asyncio.create_task(remote.submit(target, [image()], top_k=1, deadline=soon())))
                await asyncio.sleep(0)
            outcomes = await asyncio.gather(*submits, return_exceptions=True)
        assert all(isinstance(outcome, NotReady) for outcome in outcomes)


async def test_a_reload_that_waits_for_an_engine_process_that_ends_is_not_ready(meeting: Rendezvous) -> None:
    async with engine_that_is_told(meeting) as (remote, peer, _):
        waiting = asyncio.create_task(remote.reload("digits", deadline=soon()))
        await peer.hear(wire.CONTROL)
        peer.hang_up()
        with pytest.raises(NotReady):
            await waiting


async def test_an_engine_process_that_is_silent_for_too_long_is_not_ready_at_once(meeting: Rendezvous) -> None:
    async with engine_that_is_told(meeting, silent_seconds=-1) as (remote, _, _):
        assert (await remote.status()).detail.startswith("the engine process has said nothing")
        target = remote.resolve(None, None)
        for question in (
            remote.submit(target, [image()], top_k=1, deadline=soon()),
            remote.models(),
            remote.reload("digits", deadline=soon()),
        ):
            with pytest.raises(NotReady, match="said nothing"):
                await question


async def test_a_front_end_that_was_held_still_itself_does_not_blame_the_engine_process(meeting: Rendezvous) -> None:
    async with engine_that_is_told(meeting, silent_seconds=0.05) as (remote, peer, _):

        async def is_ready() -> bool:
            peer.say(wire.frame(wire.HEARTBEAT))
            return (await remote.status()).ready

        await until(is_ready)
        over = time.monotonic() + 0.2
        while time.monotonic() < over:  # nothing else runs meanwhile
            pass
        assert (await remote.status()).ready


async def test_an_engine_process_that_speaks_again_is_ready_again(meeting: Rendezvous) -> None:
    async with engine_that_is_told(meeting, silent_seconds=0.01) as (remote, peer, _):

        async def is_ready() -> bool:
            peer.say(wire.frame(wire.HEARTBEAT))
            return (await remote.status()).ready

        async def is_not_ready() -> bool:
            return not (await remote.status()).ready

        await until(is_not_ready)
        await until(is_ready)


@pytest.mark.slow
async def test_an_engine_process_says_something_now_and_then(meeting: Rendezvous, store: Path) -> None:
    async with engine_side(meeting, store) as side, peer_of(meeting, side) as (peer, _):
        for _ in range(2):
            assert await peer.hear(wire.HEARTBEAT) == (0, b"")


async def test_past_the_deadline_a_silent_engine_is_expired_and_told_that_nobody_waits(meeting: Rendezvous) -> None:
    async with engine_that_is_told(meeting) as (remote, peer, _):
        with pytest.raises(DeadlineExceeded):
            await remote.submit(remote.resolve(None, None), [image()], top_k=1, deadline=time.monotonic() + 0.01)
        number, _ = await peer.hear(wire.SUBMIT)
        assert await peer.hear(wire.CANCEL) == (number, b"")


async def test_an_answer_that_comes_when_nobody_waits_any_more_harms_nobody(meeting: Rendezvous) -> None:
    async with engine_that_is_told(meeting) as (remote, peer, _):
        target = remote.resolve(None, None)
        left, stays = (
            asyncio.create_task(remote.submit(target, [image()], top_k=1, deadline=soon())) for _ in range(2)
        )
        numbers = [(await peer.hear(wire.SUBMIT))[0] for _ in range(2)]
        left.cancel()
        with pytest.raises(asyncio.CancelledError):
            await left
        row = np.array([[0.5, 7]], np.float32)
        for number in numbers:
            peer.say(*wire.rows_frame(number, row))
        answer = await stays
        assert (answer.version, probabilities(answer.items)) == (1, {"7": 0.5})


async def test_a_version_replaced_while_images_are_on_their_way_is_stale_and_its_successor_is_known_by_then(
    meeting: Rendezvous, store: Path
) -> None:
    async with engine_side(meeting, store) as side, front_end(meeting) as remote:
        await remote.started()
        resolved, tell = remote.resolve(None, None), side.local.on_change
        submits: list[asyncio.Task[Answer]] = []

        def changed(model: str | None) -> None:
            tell(model)
            if side.local.catalogue.served == {"digits": 2} and not submits:  # and the front-end does not know it yet
                submits.append(asyncio.create_task(remote.submit(resolved, [image()], top_k=1, deadline=soon())))

        side.local.on_change = changed
        publish(store, 2, checkpoint(seed=2))
        await side.local.reload("digits", deadline=soon())
        with pytest.raises(Stale):
            await submits[0]
        answer = await remote.submit(remote.resolve(None, None), [image()], top_k=1, deadline=soon())
        assert answer.version == 2


async def test_an_entry_of_another_engine_process_is_stale_though_it_has_the_same_id(
    meeting: Rendezvous, store: Path
) -> None:
    async with front_end(meeting) as remote:
        async with engine_side(meeting, store):
            await until(lambda: is_ready(remote))
            resolved = remote.resolve(None, None)
        publish(store, 1, checkpoint(seed=2))
        async with engine_side(meeting, store):
            await until(lambda: is_ready(remote))
            assert remote.resolve(None, None).entry.id == resolved.entry.id
            with pytest.raises(Stale):
                await remote.submit(resolved, [image()], top_k=1, deadline=soon())


async def test_what_is_known_of_a_model_is_not_read_before_somebody_asks(meeting: Rendezvous) -> None:
    """One odd file in the store must not cost a front-end its connection."""
    async with engine_that_is_told(meeting) as (remote, peer, _):
        peer.tell(wire.ModelUpdate("odd", "no JSON", None, None, ()), SERVED[1])
        await until(lambda: "odd" in remote._connection.infos)  # type: ignore[union-attr]
        assert (await remote.status()).ready
        with pytest.raises(ValueError, match="Invalid JSON"):
            await remote.models()


async def test_a_change_of_one_model_is_said_of_that_model_alone(meeting: Rendezvous, store: Path) -> None:
    publish(store, 1, checkpoint(model="letters"), model="letters")
    async with engine_side(meeting, store) as side, peer_of(meeting, side) as (peer, _):
        said: list[wire.FromEngine] = []

        async def hear_until(kind: type) -> None:
            while not said or not isinstance(said[-1], kind):
                said.append(wire.FROM_ENGINE.validate_json((await peer.hear(wire.CONTROL))[1]))

        await hear_until(wire.StateUpdate)  # all that a new front-end is told
        said.clear()
        publish(store, 2, b"junk", model="letters")
        peer.say(wire.frame(wire.CONTROL, 7, wire.TO_ENGINE.dump_json(wire.Reload("letters", PATIENCE))))
        await hear_until(wire.Reloaded)
        updates = [each for each in said if isinstance(each, wire.ModelUpdate)]
        assert {each.model for each in updates} == {"letters"}
        info = wire.MODEL_INFO.validate_json(updates[-1].info or "")
        assert [version.state for version in info.versions] == ["refused", "ready"]


async def test_what_is_cancelled_before_a_batch_is_formed_is_not_computed(meeting: Rendezvous, store: Path) -> None:
    async with engine_side(meeting, store) as side, peer_of(meeting, side) as (peer, entry):
        peer.say(submit(1, entry, 2), submit(2, entry, 3), wire.frame(wire.CANCEL, 2), submit(3, entry, 1))
        assert [(await peer.hear(wire.ROWS))[0] for _ in range(2)] == [1, 3]
        assert side.computed() == 3
        assert (await side.local.status()).waiting_items == 0


async def test_cancelling_a_submit_drops_what_the_engine_has_not_computed_yet(meeting: Rendezvous, store: Path) -> None:
    async with engine_side(meeting, store, max_batch=1) as side, front_end(meeting) as remote:
        await remote.started()
        waiting = asyncio.create_task(
            remote.submit(remote.resolve(None, None), [image()] * 1000, top_k=1, deadline=soon())
        )
        await until(lambda: side.computed() > 0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert (await remote.status()).waiting_items == 0
        await until(lambda: nothing_waits(side))
        assert side.computed() < 1000


@pytest.mark.slow
async def test_when_a_front_end_is_gone_its_images_are_dropped_and_those_of_others_are_not(
    meeting: Rendezvous, store: Path
) -> None:
    async with engine_side(meeting, store, max_batch=1) as side, front_end(meeting) as remote:
        await remote.started()
        async with peer_of(meeting, side) as (peer, entry):
            peer.say(submit(1, entry, 800))
            await until(lambda: side.computed() > 0)
            other = asyncio.create_task(
                remote.submit(remote.resolve(None, None), [image()] * 10, top_k=1, deadline=soon())
            )
        assert len((await other).items) == 10
        await until(lambda: nothing_waits(side))
        assert side.computed() < 810


async def nothing_waits(side: Side) -> bool:
    return (await side.local.status()).waiting_items == 0


async def test_images_that_were_on_their_way_too_long_are_expired(meeting: Rendezvous, store: Path) -> None:
    async with engine_side(meeting, store) as side, peer_of(meeting, side) as (peer, entry):
        peer.say(submit(1, entry, 2, seconds=-1))
        number, error = await peer.hear(wire.ERROR)
        assert number == 1
        assert isinstance(wire.read_error(error), DeadlineExceeded)
        assert side.computed() == 0


async def test_a_front_end_finds_the_next_engine_process_by_itself(meeting: Rendezvous, store: Path) -> None:
    async with front_end(meeting) as remote:
        for version in (1, 2):
            publish(store, version, checkpoint(seed=version))
            async with engine_side(meeting, store):
                await until(lambda: is_ready(remote))
                answer = await remote.submit(remote.resolve(None, None), [image()], top_k=1, deadline=soon())
                assert answer.version == version
            with pytest.raises(NotReady):
                await until(lambda: bool(remote.resolve(None, None)) and False)


async def is_ready(remote: RemoteEngine) -> bool:
    return (await remote.status()).ready


async def test_two_front_ends_get_their_own_answers(meeting: Rendezvous, store: Path) -> None:
    async with engine_side(meeting, store), front_end(meeting) as one, front_end(meeting) as other:
        await one.started()
        await other.started()
        submits = [
            asyncio.create_task(remote.submit(remote.resolve(None, None), [image(i)], top_k=10, deadline=soon()))
            for i in range(8)
            for remote in (one, other)
        ]
        answers = [(await each).items for each in submits]
    for i in range(0, 16, 2):
        ours, theirs = (probabilities(each) for each in answers[i : i + 2])
        assert ours == pytest.approx(theirs, abs=1e-5)
        assert ours != pytest.approx(probabilities(answers[i - 2]), abs=1e-5)


def probabilities(items: tuple[ItemAnswer | ItemError, ...]) -> dict[str, float]:
    (item,) = items
    assert isinstance(item, ItemAnswer)
    return {each.label: each.probability for each in item.predictions}
