"""POST /predict, the hot route: plain ASGI beside FastAPI, because a framework would cost more than the answer.

Its place in /openapi.json is in `app.api.openapi`.
"""

import json
import time
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope, Send

from app.admission import Admission, Held
from app.api.multipart import File, check_content_type, files_in, read_body, upload_too_large
from app.decoding.decoder import Decoder, Outcome
from app.decoding.formats import ImageProblem
from app.engine.interface import Answer, Engine, Expired, ItemAnswer, ItemError, Stale, Target
from app.http.disconnect import CancelOnDisconnect
from app.http.problems import Problem
from app.settings import Settings
from app.telemetry.metrics import Metrics
from classifier.preprocess import Pixels

PATH = "/predict"
TOP_K = 5


class Query(NamedTuple):
    """What the URL asks for."""

    model: str | None = None
    version: int | None = None
    top_k: int = TOP_K


class Asked(NamedTuple):
    """What the head of a request says; `size` is what its body may take, `deadline` of `time.monotonic()`."""

    query: Query
    content_type: bytes
    size: int
    deadline: float


class Predict:
    """Admission, upload, decoding, submit, answer."""

    def __init__(
        self, engine: Engine, decoder: Decoder, admission: Admission, settings: Settings, metrics: Metrics
    ) -> None:
        self.engine = engine
        self.decoder = decoder
        self.admission = admission
        self.metrics = metrics
        self.deadline_seconds = settings.deadline_seconds
        self._max_files = min(settings.max_files, settings.max_queue)  # more could never be admitted
        self._max_upload = int(settings.max_upload_mb * 1e6)
        self._upload_seconds = settings.upload_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            raise Problem("method_not_allowed", f"{PATH} takes POST", {"allow": "POST"})
        asked = self.asked(dict(scope["headers"]), scope["query_string"])
        work = CancelOnDisconnect(scope, receive, upload_seconds=self._upload_seconds)
        with self.admission.request(asked.size) as held, work:
            body = await self._upload(receive)
            scope["state"]["body_read"] = True
            work.uploaded()
            document = await self._answer(asked, body, held)
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(document))],
            }
        )
        await send({"type": "http.response.body", "body": document})

    async def answer(self, asked: Asked, body: bytes) -> bytes:
        """The JSON document for a request whose body is there. Raises: Problem, EngineError."""
        with self.admission.request(asked.size) as held:
            return await self._answer(asked, body, held)

    def asked(self, headers: Mapping[bytes, bytes], query_string: bytes) -> Asked:
        """Its deadline begins. `headers` by their names in lower case. Raises: Problem."""
        deadline = time.monotonic() + self.deadline_seconds
        query = parse_query(query_string)
        content_type = headers.get(b"content-type", b"")
        check_content_type(content_type)
        _check_content_encoding(headers.get(b"content-encoding", b"identity"))
        return Asked(query, content_type, self._announced_size(headers.get(b"content-length")), deadline)

    def files(self, asked: Asked, body: bytes) -> list[File]:
        """Raises: Problem."""
        return files_in(body, asked.content_type, max_files=self._max_files)

    def _announced_size(self, content_length: bytes | None) -> int:
        """What a body may take: its Content-Length, or the limit where there is none."""
        if content_length is None:
            return self._max_upload
        size = int(content_length)  # the HTTP parser has seen to it that these are digits
        if size > self._max_upload:
            raise upload_too_large(self._max_upload)
        return size

    async def _upload(self, receive: Receive) -> bytes:
        started = time.perf_counter()
        body = await read_body(receive, max_bytes=self._max_upload)
        self.metrics.upload_seconds(time.perf_counter() - started)
        return body

    async def _answer(self, asked: Asked, body: bytes, held: Held) -> bytes:
        files = self.files(asked, body)
        held.take_items(len(files))
        while True:
            target = self.engine.target(asked.query.model, asked.query.version)
            try:
                if len(files) == 1:
                    return await self._one(target, files[0], asked)
                return await self._several(target, files, asked)
            except Stale as error:  # swapped meanwhile, for one that wants other pixels
                if time.monotonic() >= asked.deadline:
                    raise Expired("the model was exchanged until the deadline had passed") from error

    async def _one(self, target: Target, file: File, asked: Asked) -> bytes:
        started = time.perf_counter()
        (outcome,) = await self.decoder.decode([file.data], target.preprocess, deadline=asked.deadline)
        answer = await self._submit(target, [sound(outcome)], asked, started)
        return document_of_one(target, answer)

    async def _several(self, target: Target, files: Sequence[File], asked: Asked) -> bytes:
        started = time.perf_counter()
        images = [file.data for file in files]
        decoded = await self.decoder.decode(images, target.preprocess, deadline=asked.deadline)
        whole = [pixels for pixels in decoded if not isinstance(pixels, ImageProblem)]
        version = target.version
        answered: list[ItemAnswer | ItemError] = []
        if whole:
            answer = await self._submit(target, whole, asked, started)
            version, answered = answer.version, list(answer.items)
        rows = iter(answered)
        items = [
            ItemError(pixels.code, str(pixels)) if isinstance(pixels, ImageProblem) else next(rows)
            for pixels in decoded
        ]
        for item in items:
            if isinstance(item, ItemError):
                self.metrics.error(item.code)
        results = b",".join(_result(file.filename, item) for file, item in zip(files, items, strict=True))
        return b'{"model":%s,"version":%s,"results":[%s]}' % (_json(target.model), _json(version), results)

    async def _submit(self, target: Target, items: Sequence[Pixels], asked: Asked, started: float) -> Answer:
        decoded = time.perf_counter()
        self.metrics.decode_seconds(decoded - started)
        answer = await self.engine.submit(target, items, top_k=asked.query.top_k, deadline=asked.deadline)
        self.metrics.answer_seconds(time.perf_counter() - decoded)
        return answer


def sound(outcome: Outcome) -> Pixels:
    """Of a request's only image. Raises: Problem."""
    if isinstance(outcome, ImageProblem):
        raise Problem(outcome.code, str(outcome)) from outcome
    return outcome


def document_of_one(target: Target, answer: Answer) -> bytes:
    """The JSON for a request's only image. Raises: Problem."""
    (item,) = answer.items
    if isinstance(item, ItemError):
        raise Problem(item.code, item.detail)
    return b'{"model":"%s","version":%d,%s}' % (target.model.encode(), answer.version, _members(item))


def parse_query(query_string: bytes) -> Query:
    """Raises: Problem (bad_parameter)."""
    if not query_string:
        return Query()
    values = dict(parse_qsl(query_string.decode("latin-1"), keep_blank_values=True))
    return Query(
        values.get("model"),
        _positive(values, "version") if "version" in values else None,
        _positive(values, "top_k") if "top_k" in values else TOP_K,
    )


def _positive(values: dict[str, str], name: str) -> int:
    text = values[name]
    if not (text.isascii() and text.isdigit() and len(text) <= 18 and int(text) >= 1):
        raise Problem("bad_parameter", f"{name} must be a whole number from 1, not {text[:40]!r}")
    return int(text)


def _check_content_encoding(encoding: bytes) -> None:
    if encoding.strip().lower() not in (b"identity", b""):
        raise Problem(
            "unsupported_content_encoding", f"the content encoding is {encoding.decode('latin-1')}; send it as it is"
        )


def _json(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False).encode(errors="replace")


def _members(item: ItemAnswer) -> bytes:
    """As JSON by hand: less than half the time of a general encoder, on the one path where it counts."""
    rows = [
        f'{{"label":{_quoted(label)},"index":{index},"probability":{probability:.6g}}}'
        for label, index, probability in item.predictions
    ]
    if item.score is None:
        return f'"predictions":[{",".join(rows)}]'.encode()
    # The score to its last digit: a client that compares it with the threshold comes to the same end.
    in_distribution = "true" if item.in_distribution else "false"
    return f'"predictions":[{",".join(rows)}],"in_distribution":{in_distribution},"score":{item.score!r}'.encode()


@lru_cache(maxsize=4096)
def _quoted(label: str) -> str:
    return json.dumps(label, ensure_ascii=False)


def _result(filename: str | None, item: ItemAnswer | ItemError) -> bytes:
    if isinstance(item, ItemError):
        return b'{"filename":%s,"error":%s}' % (_json(filename), _json({"code": item.code, "detail": item.detail}))
    return b'{"filename":%s,%s}' % (_json(filename), _members(item))
