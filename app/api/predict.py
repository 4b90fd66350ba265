"""POST /predict, the hot route: plain ASGI beside FastAPI, because a framework would cost more than the answer.

What is small, or came whole, does not even go by ASGI: see `app.api.predict_fast`. Both ways parse, classify and render
by what stands here. The route's place in /openapi.json is in `app.api.openapi`.
"""

import time
from collections.abc import Mapping, Sequence
from typing import NamedTuple
from urllib.parse import parse_qsl

from starlette.types import Receive, Scope, Send

from app.admission import Admission
from app.api.multipart import File, files_in, read_body, upload_too_large
from app.api.predict_json import PredictJson
from app.api.prediction import TOP_K, ImageClassifier, Item, Query
from app.engine.predictions import ItemError
from app.http.disconnect import CancelOnDisconnect
from app.http.problems import Problem
from app.settings import Settings
from app.telemetry.metrics import Metrics

PATH = "/predict"
# Where several servers answer, one may have taken a new version that another has not taken yet. A client that says here
# which version has answered it is answered by no older one.
MIN_VERSION = "flambeau-min-version"
_MIN_VERSION = MIN_VERSION.encode()
# A PUT, as `curl -T` sends it, asks the same: a prediction changes nothing, so it may as well be sent twice.
METHODS = ("POST", "PUT")


class PredictRequest(NamedTuple):
    """What the URL and the headers of a request say.

    `size` is what its body may take in bytes. `deadline` is of `time.monotonic()`.
    """

    query: Query
    content_type: bytes
    size: int
    deadline: float


class Predict:
    """Parses, classifies and renders; as an ASGI application, all of it for one request."""

    def __init__(self, classifier: ImageClassifier, admission: Admission, settings: Settings, metrics: Metrics) -> None:
        self.classifier = classifier
        self.admission = admission
        self.deadline_seconds = settings.deadline_seconds
        self._metrics = metrics
        self._json = PredictJson()
        self._max_files = min(settings.max_files, settings.max_queue)  # more could never be admitted
        self._max_upload = int(settings.max_upload_mb * 1e6)
        self._upload_seconds = settings.upload_seconds

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] not in METHODS:
            raise Problem("method_not_allowed", f"{PATH} takes {' or '.join(METHODS)}", {"allow": ", ".join(METHODS)})
        headers = dict(scope["headers"])
        request = self.parse(headers, scope["query_string"])
        min_version = _min_version(headers)
        work = CancelOnDisconnect(scope, receive, upload_seconds=self._upload_seconds)
        with self.admission.permit(request.size) as permit, work:
            body = await self._upload(receive)
            scope["state"]["body_read"] = True
            work.uploaded()
            files = self.files(request, body)
            permit.acquire_items(len(files))
            images = [file.data for file in files]
            answer = await self.classifier.classify(images, request.query, deadline=request.deadline)
            if answer.version is not None and answer.version < min_version and request.query.version is None:
                raise Problem(
                    "behind",
                    f"this server answers by version {answer.version} of {answer.model}; "
                    f"version {min_version} or a newer one is wanted",
                )
            document = self.render(files, answer.model, answer.version, answer.items)
        await send(
            {
                "type": "http.response.start",
                "status": 200,
                "headers": [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(document))],
            }
        )
        await send({"type": "http.response.body", "body": document})

    def parse(self, headers: Mapping[bytes, bytes], query_string: bytes) -> PredictRequest:
        """Reads what comes before the body; the request's deadline begins. `headers` are by names in lower case.

        Raises: Problem.
        """
        deadline = time.monotonic() + self.deadline_seconds
        query = parse_query(query_string)
        if b"content-encoding" in headers:
            _check_content_encoding(headers[b"content-encoding"])
        return PredictRequest(
            query, headers.get(b"content-type", b""), self._announced_size(headers.get(b"content-length")), deadline
        )

    def files(self, request: PredictRequest, body: bytes) -> list[File]:
        """Finds the images in the body. Raises: Problem."""
        return files_in(body, request.content_type, max_files=self._max_files)

    def render(self, files: Sequence[File], model: str, version: int | None, items: Sequence[Item]) -> bytes:
        """The JSON document for these files. Of several, each has its result or its error, and errors are counted.

        Raises: Problem, if the only file has an error.
        """
        if len(files) == 1:
            return self._json.one(model, version, items[0])
        for item in items:
            if isinstance(item, ItemError):
                self._metrics.error(item.code)
        return self._json.several(model, version, [file.filename for file in files], items)

    def _announced_size(self, content_length: bytes | None) -> int:
        """Returns what a body may take: its Content-Length, or the limit where there is none."""
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


def parse_query(query_string: bytes) -> Query:
    """Reads what is asked for from the URL. An empty value is none, and of several the last counts.

    Raises: Problem (bad_parameter).
    """
    if not query_string:
        return Query()
    values = dict(parse_qsl(query_string.decode("latin-1")))
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


def needs_asgi(headers: Mapping[bytes, bytes]) -> bool:
    """Says whether a request asks for what the fast path does not know."""
    return _MIN_VERSION in headers


def _min_version(headers: Mapping[bytes, bytes]) -> int:
    """Returns the version that may answer at least; 0 where any may. Raises: Problem (bad_parameter)."""
    value = headers.get(_MIN_VERSION)
    return 0 if value is None else _positive({MIN_VERSION: value.decode("latin-1").strip()}, MIN_VERSION)


def _check_content_encoding(encoding: bytes) -> None:
    if encoding.strip().lower() not in (b"identity", b""):
        raise Problem(
            "unsupported_content_encoding",
            f"the content encoding is {encoding.decode('latin-1')}; send the image as it is, without Content-Encoding",
        )
