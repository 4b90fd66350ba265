"""POST /predict, the hot route: plain ASGI beside FastAPI, because a framework would cost more than the answer.

Its place in /openapi.json is in `app.api.document`.
"""

import json
import time
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope, Send

from app.admission import Admission
from app.api.attendance import Attendance
from app.api.errors import Problem, from_engine
from app.api.upload import File, check_content_type, files_in, read_body, upload_too_large
from app.engine import Answer, Engine, EngineError, Expired, ItemAnswer, ItemError, Stale, Target
from app.images import Decoder, ImageProblem
from app.metrics import Metrics
from app.settings import Settings
from classifier.preprocess import Pixels

PATH = "/predict"
TOP_K = 5


class Query(NamedTuple):
    """What the URL asks for."""

    model: str | None = None
    version: int | None = None
    top_k: int = TOP_K


class Predict:
    """Admission, upload, decoding, submit, answer."""

    def __init__(
        self, engine: Engine, decoder: Decoder, admission: Admission, settings: Settings, metrics: Metrics
    ) -> None:
        self._engine = engine
        self._decoder = decoder
        self._admission = admission
        self._metrics = metrics
        self._max_files = min(settings.max_files, settings.max_queue)  # more could never be admitted
        self._max_upload = int(settings.max_upload_mb * 1e6)
        self._upload_seconds = settings.upload_seconds
        self._deadline_seconds = settings.deadline_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            raise Problem("method_not_allowed", f"{PATH} takes POST", {"allow": "POST"})
        deadline = time.monotonic() + self._deadline_seconds
        query = parse_query(scope["query_string"])
        headers = dict(scope["headers"])
        content_type: bytes = headers.get(b"content-type", b"")
        check_content_type(content_type)
        _check_content_encoding(headers.get(b"content-encoding", b"identity"))
        size = self._announced_size(headers.get(b"content-length"))
        try:
            self._admission.requests.take(1)
            try:
                self._admission.body_bytes.take(size)
                try:
                    with Attendance(scope, upload_seconds=self._upload_seconds) as attendance:
                        body = await self._upload(receive)
                        scope["state"]["body_read"] = True
                        attendance.uploaded()
                        document = await self._answer(query, body, content_type, deadline)
                finally:
                    self._admission.body_bytes.give_back(size)
            finally:
                self._admission.requests.give_back(1)
        except EngineError as error:
            raise from_engine(error) from error
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(document))],
            }
        )
        await send({"type": "http.response.body", "body": document})

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
        self._metrics.upload_seconds(time.perf_counter() - started)
        return body

    async def _answer(self, query: Query, body: bytes, content_type: bytes, deadline: float) -> bytes:
        files = files_in(body, content_type, max_files=self._max_files)
        items = len(files)
        self._admission.items.take(items)
        try:
            while True:
                target = self._engine.target(query.model, query.version)
                try:
                    if items == 1:
                        return await self._one(target, files[0], query.top_k, deadline)
                    return await self._several(target, files, query.top_k, deadline)
                except Stale as error:  # swapped meanwhile, for one that wants other pixels
                    if time.monotonic() >= deadline:
                        raise Expired("the model was exchanged until the deadline had passed") from error
        finally:
            self._admission.items.give_back(items)

    async def _one(self, target: Target, file: File, top_k: int, deadline: float) -> bytes:
        started = time.perf_counter()
        (pixels,) = await self._decoder.decode([file.data], target.preprocess, deadline=deadline)
        if isinstance(pixels, ImageProblem):
            raise Problem(pixels.code, str(pixels)) from pixels
        answer = await self._submit(target, [pixels], top_k, deadline, started)
        item = answer.items[0]
        if isinstance(item, ItemError):
            raise Problem(item.code, item.detail)
        return b'{"model":"%s","version":%d,%s}' % (target.model.encode(), answer.version, _members(item))

    async def _several(self, target: Target, files: Sequence[File], top_k: int, deadline: float) -> bytes:
        started = time.perf_counter()
        decoded = await self._decoder.decode([file.data for file in files], target.preprocess, deadline=deadline)
        sound = [pixels for pixels in decoded if not isinstance(pixels, ImageProblem)]
        version = target.version
        answered: list[ItemAnswer | ItemError] = []
        if sound:
            answer = await self._submit(target, sound, top_k, deadline, started)
            version, answered = answer.version, list(answer.items)
        rows = iter(answered)
        items = [
            ItemError(pixels.code, str(pixels)) if isinstance(pixels, ImageProblem) else next(rows)
            for pixels in decoded
        ]
        for item in items:
            if isinstance(item, ItemError):
                self._metrics.error(item.code)
        results = b",".join(_result(file.filename, item) for file, item in zip(files, items, strict=True))
        return b'{"model":%s,"version":%s,"results":[%s]}' % (_json(target.model), _json(version), results)

    async def _submit(
        self, target: Target, items: Sequence[Pixels], top_k: int, deadline: float, started: float
    ) -> Answer:
        decoded = time.perf_counter()
        self._metrics.decode_seconds(decoded - started)
        answer = await self._engine.submit(target, items, top_k=top_k, deadline=deadline)
        self._metrics.answer_seconds(time.perf_counter() - decoded)
        return answer


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
