"""POST /predict as a fast route: from headers and a whole body to a document, by calls.

One small image, which is nearly every request where requests are many, is answered without a task and a coroutine. The
steps are those of `Predict` and `ImageClassifier`, which the way by ASGI takes as well.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from app.admission import Permit
from app.api.multipart import File
from app.api.predict import PATH, Predict
from app.api.prediction import Item
from app.decoding.image import SMALL_BYTES
from app.engine.errors import Expired
from app.engine.interface import NO_ANSWER_IN_TIME
from app.http.deadlines import Deadlines
from app.http.exchange import Cancelable


class PredictFastPath:
    """The fast route, for all requests of one process.

    Args:
        cors: pages of other origins may ask. They are answered by ASGI, where a middleware sees to CORS.
    """

    method = "POST"
    path = PATH
    # Of a body whose one image may be decoded at once: that image, and what a form has around it.
    small_body = SMALL_BYTES + 1024

    def __init__(self, predict: Predict, *, cors: bool) -> None:
        self.predict = predict
        self.deadlines: Deadlines[FastPrediction] = Deadlines(predict.deadline_seconds, FastPrediction.be_late)
        self._cors = cors

    def matches(self, headers: Mapping[bytes, bytes]) -> bool:
        """Whether a request with these headers is answered here."""
        return not (self._cors and b"origin" in headers)

    def start(
        self,
        headers: Mapping[bytes, bytes],
        query: bytes,
        body: bytes,
        done: Callable[[bytes | Exception], None],
    ) -> "FastPrediction":
        """Begins to answer a request; see `app.http.exchange.FastRoute`."""
        prediction = FastPrediction(self, done)
        prediction.start(headers, query, body)
        return prediction


class FastPrediction:
    """The way of one request."""

    __slots__ = ("_done", "_files", "_path", "_permit", "_work")
    _files: list[File]

    def __init__(self, path: PredictFastPath, done: Callable[[bytes | Exception], None]) -> None:
        self._path = path
        self._done = done
        self._permit: Permit | None = None
        self._work: Cancelable | None = None

    def start(self, headers: Mapping[bytes, bytes], query: bytes, body: bytes) -> None:
        """Parses the request and begins to classify its images. Whatever goes wrong, `done` is told it later."""
        path, predict = self._path, self._path.predict
        try:
            request = predict.parse(headers, query)
            permit = self._permit = predict.admission.permit(request.size)
            permit.acquire()
            files = self._files = predict.files(request, body)
            permit.acquire_items(len(files))
            self._work = predict.classifier.start(
                [file.data for file in files],
                request.query,
                deadline=request.deadline,
                done=self._classified,
                failed=self._end,
            )
        except Exception as error:  # noqa: BLE001  whatever it is, the client is told
            self._work = asyncio.get_running_loop().call_soon(self._end, error)
            return
        path.deadlines.begin(self)

    def cancel(self) -> None:
        """Drops the request; `done` is not told any more. Does nothing if it has ended."""
        self._path.deadlines.end(self)
        if self._work is not None:
            self._work.cancel()
            self._work = None
        if self._permit is not None:
            self._permit.release()

    def be_late(self) -> None:
        """Ends the request: its deadline has passed."""
        self._end(Expired(NO_ANSWER_IN_TIME))

    def _classified(self, model: str, version: int | None, items: Sequence[Item]) -> None:
        try:
            outcome: bytes | Exception = self._path.predict.render(self._files, model, version, items)
        except Exception as error:  # noqa: BLE001  as above
            outcome = error
        self._end(outcome)

    def _end(self, outcome: bytes | Exception) -> None:
        self.cancel()
        self._done(outcome)
