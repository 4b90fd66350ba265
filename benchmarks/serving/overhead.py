"""Measures where the CPU time of one small prediction goes, stage by stage, and what each safeguard costs.

    python -m benchmarks.serving.overhead [--rounds 9] [--json FILE]

All runs in this process, so the kernel's part of HTTP is not in the figures. Its part of the way to the engine and back
is. Each stage runs as in the server, for 32 requests at a time. A figure is the least of several rounds, in
microseconds of CPU for one request.
"""

import argparse
import asyncio
import json
import socket
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import torch
import uvloop
from rich.console import Console
from rich.table import Table
from starlette.types import Message

from app.admission import Admission
from app.api.application import create_app
from app.api.multipart import files_in
from app.api.predict_json import PredictJson
from app.decoding.decoder import Decoder
from app.engine.catalogue import Entry, ResolvedModel
from app.engine.predictions import Answer, ItemAnswer, OnDone, Prediction
from app.engine.rows import Item, RowDecoder
from app.http.deadlines import Deadlines
from app.http.disconnect import NOTIFIER, CancelOnDisconnect, DisconnectNotifier
from app.http.server import Server
from app.inference.local_engine import LocalEngine
from app.inference.verification import verify
from app.ipc.engine_server import EngineServer
from app.ipc.remote_engine import RemoteEngine
from app.ipc.rendezvous import rendezvous
from app.settings import Settings
from app.telemetry.metrics import Metrics
from benchmarks.harness import seeded
from benchmarks.harness.load import Body, body_of, request_of
from classifier.preprocess import Pixels

AT_ONCE = 32
TURNS = 40

T = TypeVar("T")
Turn = Callable[[], Awaitable[object]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", type=Path, help="the file to write the figures to")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder:
        figures = uvloop.run(_measured(Path(folder), arguments.rounds))
    table = Table("stage", "us of CPU a request")
    for name, value in figures.items():
        table.add_row(name, f"{value:.1f}")
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=1) + "\n")


async def _measured(folder: Path, rounds: int) -> dict[str, float]:
    store = folder / "store"
    (store / "digits").mkdir(parents=True)
    checkpoint = seeded.digits(store / "digits" / "1.safetensors")
    images = seeded.drawings(AT_ONCE)
    bodies = [body_of([image], form=True) for image in images]
    settings = Settings(store=store, device="cpu", torch_threads=1)
    stages: dict[str, Turn] = {
        "a front-end without its engine": _http(settings, bodies, below_asgi=True),
        "the same by ASGI": _http(settings, bodies, below_asgi=False),
        "of that: the file in the form": partial(
            _each, lambda body: files_in(body.data, body.content_type.encode(), max_files=1), bodies
        ),
        "of that: decode": partial(_decode, _decoder(settings), images),
    }
    figures = {name: await _least(turn, rounds) for name, turn in stages.items()}
    figures |= await _engine_figures(settings, checkpoint, images, rounds)
    figures |= {
        name: await _least(partial(_each, step, images), rounds) for name, step in _safeguards(settings).items()
    }
    return figures


async def _least(turn: Turn, rounds: int) -> float:
    """Returns microseconds of CPU for one request."""
    least = float("inf")
    for _ in range(rounds):
        began = time.process_time()
        for _ in range(TURNS):
            await turn()
        least = min(least, (time.process_time() - began) / TURNS / AT_ONCE * 1e6)
    return least


async def _each(step: Callable[[T], object], values: Sequence[T]) -> None:
    for value in values:
        step(value)


async def _engine_figures(
    settings: Settings, checkpoint: Path, images: Sequence[bytes], rounds: int
) -> dict[str, float]:
    """Measures computing, and the way to the engine and back, which is a whole submit less computing."""
    engine = LocalEngine(settings, Metrics(), owns_loop=True)
    predictor = verify(checkpoint, device=torch.device("cpu"), max_items=settings.max_batch)
    with rendezvous() as meeting:
        remote = RemoteEngine(meeting.front_ends, max_waiting=AT_ONCE)
        serving = asyncio.create_task(EngineServer(engine, Metrics()).serve(meeting.engine))
        await engine.start()
        await remote.start()
        await remote.started()
        target = remote.resolve(None, None)
        pixels = await _decode(_decoder(settings), images)
        answers: list[Answer] = []

        async def submit() -> None:
            submits = (remote.submit(target, [each], top_k=5, deadline=time.monotonic() + 30) for each in pixels)
            answers[:] = await asyncio.gather(*submits)

        async def compute() -> None:
            predictor.predict([Item(each, 5) for each in pixels])

        computing, whole = await _least(compute, rounds), await _least(submit, rounds)
        as_json = PredictJson()
        responding = await _least(
            partial(_each, lambda _: as_json.one("digits", 1, answers[0].items[0]), images), rounds
        )
        await remote.close()
        serving.cancel()
        await engine.close()
    return {
        "to the engine and back": whole - computing,
        f"compute, in batches of {AT_ONCE}": computing,
        "of a front-end: the answer as JSON": responding,
    }


def _safeguards(settings: Settings) -> dict[str, Callable[[bytes], object]]:
    """Returns what a bare server would leave out. Most of it is part of the stages above."""
    metrics = Metrics()
    admission = Admission(requests=1024, body_bytes=1e9, items=1024, pixels=1e9)

    def count(_: bytes) -> None:
        metrics.began()
        metrics.upload_seconds(0.001)
        metrics.decode_seconds(0.001)
        metrics.answer_seconds(0.01)
        metrics.answered("POST", "/predict", 200, None)
        metrics.ended()

    def admit(image: bytes) -> None:
        for budget, amount in ((admission.requests, 1), (admission.body_bytes, len(image)), (admission.items, 1)):
            budget.acquire(amount)
            budget.release(amount)

    scope = {"state": {NOTIFIER: DisconnectNotifier()}}

    def attend(_: bytes) -> None:
        with CancelOnDisconnect(scope, _no_messages, upload_seconds=settings.upload_seconds) as work:
            work.uploaded()

    deadlines: Deadlines[bytes] = Deadlines(settings.deadline_seconds, print)

    def keep_deadline(image: bytes) -> None:
        deadlines.begin(image)
        deadlines.end(image)

    return {
        "safeguard: metrics": count,
        "safeguard: admission": admit,
        "safeguard, by ASGI: slow uploads and hang-ups": attend,
        "safeguard: the deadline": keep_deadline,
    }


async def _no_messages() -> Message:
    raise AssertionError("where there is a notifier nobody waits for a message")


def _decoder(settings: Settings) -> Decoder:
    budget = Admission(requests=1, body_bytes=1, items=1, pixels=settings.max_pending_megapixels * 1e6).pixels
    return Decoder(max_pixels=int(settings.max_megapixels * 1e6), pixels=budget, threads=1)


async def _decode(decoder: Decoder, images: Sequence[bytes]) -> list[Any]:
    decoded = (decoder.decode([image], seeded.DIGITS, deadline=time.monotonic() + 30) for image in images)
    return [pixels for (pixels,) in await asyncio.gather(*decoded)]


def _http(settings: Settings, bodies: Sequence[Body], *, below_asgi: bool) -> Turn:
    """Returns a turn of requests through all of a front-end, from bytes to bytes."""
    metrics = Metrics()
    app = create_app(_Instant(socket.socket(), max_waiting=AT_ONCE), settings, metrics)
    server = Server(app.asgi, settings, metrics, fast_routes=app.fast_routes if below_asgi else ())
    server.config.load()
    connections = []
    for _ in bodies:
        transport = _Transport()
        protocol = server.config.http_protocol_class(server.config, server.server_state, {})  # type: ignore[call-arg]
        protocol.connection_made(transport)
        connections.append((protocol, transport))
    requests = [request_of(body) for body in bodies]

    async def turn() -> None:
        for (protocol, transport), request in zip(connections, requests, strict=True):
            transport.answered = False
            protocol.data_received(request)
        while not all(transport.answered for _, transport in connections):  # noqa: ASYNC110  these turns are measured
            await asyncio.sleep(0)

    return turn


class _Transport(asyncio.Transport):
    """A connection that leads nowhere."""

    answered = False

    def write(self, data: Any) -> None:  # noqa: ARG002
        self.answered = True

    def close(self) -> None:
        pass

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return {"sockname": ("127.0.0.1", 80), "peername": ("127.0.0.1", 50000)}.get(name, default)

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass


class _Instant(RemoteEngine):
    """An engine that answers at once, and always the same."""

    def resolve(self, model: str | None, version: int | None) -> ResolvedModel:  # noqa: ARG002
        return ResolvedModel(_ENTRY, version)

    def submit_nowait(
        self,
        resolved: ResolvedModel,  # noqa: ARG002
        items: Sequence[Pixels],  # noqa: ARG002
        *,
        top_k: int,  # noqa: ARG002
        deadline: float,  # noqa: ARG002
        on_done: OnDone,
    ) -> "_Given":
        asyncio.get_running_loop().call_soon(on_done, _ANSWER)
        return _Given()


class _Given:
    """What was put into that engine."""

    def cancel(self) -> None:
        pass


_ENTRY = Entry(0, "digits", 1, seeded.DIGITS, seeded.DIGITS.digest, RowDecoder(tuple("0123456789"), 0.0))
_ANSWER = Answer(1, (ItemAnswer(tuple(Prediction(str(i), i, 1 / (i + 2)) for i in range(5)), 2.5, True),))


if __name__ == "__main__":
    main()
