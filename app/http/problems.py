"""The errors that clients see: RFC 9457 problem documents with a stable `code`. All codes stand in one table."""

import asyncio
import json
import logging
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Scope

from app.engine.errors import EngineError

logger = logging.getLogger(__name__)

PROBLEM_TYPE = "application/problem+json"

# code: (status, title)
PROBLEMS: dict[str, tuple[int, str]] = {
    "bad_request": (400, "The request cannot be understood"),
    "bad_multipart": (400, "The multipart body cannot be read"),
    "no_file": (400, "There is no image in the request"),
    "not_found": (404, "There is nothing at this address"),
    "model_not_found": (404, "There is no such model"),
    "version_not_found": (404, "There is no such version"),
    "version_not_loaded": (404, "This version is not loaded"),
    "method_not_allowed": (405, "The method does not fit the address"),
    "upload_too_slow": (408, "The upload took too long"),
    "upload_too_large": (413, "The upload is too large"),
    "too_many_files": (413, "There are too many images in one request"),
    "too_many_pixels": (413, "The image is too large"),
    "unsupported_content_type": (415, "The content type is not accepted"),
    "unsupported_content_encoding": (415, "The content encoding is not accepted"),
    "unsupported_format": (415, "The image format is not accepted"),
    "bad_image": (422, "The image cannot be read"),
    "bad_parameter": (422, "A parameter is wrong"),
    "ambiguous_model": (422, "Several models are served, and none was named"),
    "header_too_large": (431, "The request's headers are too large"),
    "internal_error": (500, "The server failed"),
    "prediction_failed": (500, "The model failed on this image"),
    "overloaded": (503, "The server is overloaded"),
    "not_ready": (503, "The server is not ready"),
    "draining": (503, "The server is shutting down"),
    "behind": (503, "A newer version was seen already"),
    "deadline_exceeded": (504, "The answer took too long"),
}

_as_json = json.JSONEncoder(ensure_ascii=False).encode  # json.dumps makes an encoder each time

_STATUS_LINES = {
    status: b"HTTP/1.1 %d %b\r\n" % (status, HTTPStatus(status).phrase.encode()) for status, _ in PROBLEMS.values()
}

# Seconds after which another try may meet another state.
_RETRY_AFTER = {"overloaded": 1, "not_ready": 5, "draining": 5, "behind": 1}


@dataclass(slots=True, eq=False)  # as every exception: equal to itself alone, and so hashable
class Problem(Exception):
    """An error that a client is told of. It may be raised anywhere on the HTTP side.

    Args:
        code: one of `PROBLEMS`.
        detail: for the client, about this very request.
        headers: of the answer, besides those that belong to the code.
    """

    code: str
    detail: str
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def status(self) -> int:
        """Returns the HTTP status of its answer."""
        return PROBLEMS[self.code][0]

    @property
    def closes(self) -> bool:
        """Says whether its answer is the last on its connection, because nobody waits for the rest of the request."""
        return self.code == "upload_too_slow"

    def response(self, scope: Scope) -> Response:
        """Returns the answer to the request of `scope`, and notes the code in the scope's state for the metrics."""
        scope["state"]["problem"] = self.code
        body = self.document(scope["state"]["request_id"])
        return Response(body, self.status, self.all_headers(), media_type=PROBLEM_TYPE)

    def document(self, request_id: str) -> bytes:
        """Returns the document of RFC 9457, section 3, with `code` and `request_id` as extensions."""
        status, title = PROBLEMS[self.code]
        document = {
            "type": "about:blank",
            "title": title,
            "status": status,
            "detail": self.detail,
            "code": self.code,
            "request_id": request_id,
        }
        return _as_json(document).encode(errors="replace")

    def all_headers(self) -> dict[str, str]:
        """Returns the answer's headers: its own, and those that belong to the code."""
        headers = dict(self.headers)
        if self.code in _RETRY_AFTER:
            headers["retry-after"] = str(_RETRY_AFTER[self.code])
        if self.closes:
            headers["connection"] = "close"
        return headers


def problem_of(error: BaseException, request_id: bytes) -> Problem:
    """Returns what a client is told of whatever ended its request. A bug is logged here, with its traceback."""
    if isinstance(error, Problem):
        return error
    if isinstance(error, EngineError):
        return from_engine(error)
    if isinstance(error, asyncio.CancelledError):
        return Problem("draining", "the server has shut down")  # the grace period is over
    logger.error("a request failed", exc_info=error, extra={"values": {"request_id": request_id.decode()}})
    return Problem("internal_error", "the server's log tells more")


def problem_bytes(problem: Problem, request_id: bytes, lines: bytes, *, keep_alive: bool) -> bytes:
    """Returns a whole HTTP/1.1 response.

    Args:
        lines: more header lines, each with its line end.
        keep_alive: whether the connection stays open; if not, a header says so.
    """
    body = problem.document(request_id.decode())
    headers = {
        "content-length": str(len(body)),
        "content-type": PROBLEM_TYPE,
        **problem.all_headers(),
        "x-request-id": request_id.decode(),
    }
    if not keep_alive:
        headers["connection"] = "close"
    more = "".join([f"{name}: {value}\r\n" for name, value in headers.items()]).encode("latin-1")
    return b"".join((_STATUS_LINES[problem.status], lines, more, b"\r\n", body))


def from_engine(error: EngineError) -> Problem:
    """Returns the problem with an engine's code and message."""
    return Problem(error.code, str(error))


# FastAPI's own errors, and ours raised in its routes: the same documents.


async def on_problem(request: Request, error: Exception) -> Response:
    """Answers with a `Problem`, or with that of an `EngineError`."""
    if isinstance(error, EngineError):
        error = from_engine(error)
    if not isinstance(error, Problem):
        raise TypeError("registered for Problem and EngineError")
    return error.response(request.scope)


async def on_http_exception(request: Request, error: Exception) -> Response:
    """Answers where Starlette finds no route, or no method of a route."""
    status = getattr(error, "status_code", 500)
    headers = dict(getattr(error, "headers", None) or {})
    if "GET" in headers.get("Allow", ""):
        headers["Allow"] = "GET, HEAD"  # see app.http.middleware.RequestIdAndMetrics
    code = {404: "not_found", 405: "method_not_allowed"}.get(status, "bad_request")
    return Problem(code, f"{request.method} {request.url.path}", headers).response(request.scope)


async def on_validation_error(request: Request, error: Exception) -> Response:
    """Answers where FastAPI does not accept a parameter, and names each that is wrong."""
    errors = error.errors() if isinstance(error, RequestValidationError) else []
    detail = "; ".join(f"{'.'.join(map(str, each['loc'][1:]))}: {each['msg']}" for each in errors)
    return Problem("bad_parameter", detail).response(request.scope)


async def on_unexpected(request: Request, _: Exception) -> Response:
    """Answers after a bug. Starlette raises the error again behind this answer, and so it is logged."""
    return Problem("internal_error", "the server's log tells more").response(request.scope)


HANDLERS: dict[int | type[Exception], Callable[[Request, Exception], Coroutine[Any, Any, Response]]] = {
    Problem: on_problem,
    EngineError: on_problem,
    HTTPException: on_http_exception,
    RequestValidationError: on_validation_error,
    Exception: on_unexpected,
}
