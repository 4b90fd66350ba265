"""/predict as a fast route: from headers and a whole body to a document, by calls.

One small image, which is nearly every request where requests are many, is answered without a task and a coroutine. The
steps are those of `Predict` and `ImageClassifier`, which the way by ASGI takes as well.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence

from app.admission import Permit
from app.api.multipart import File
from app.api.predict import METHODS, PATH, Predict, needs_asgi
from app.api.prediction import Item
from app.decoding.image import SMALL_BYTES
from app.engine.errors import DeadlineExceeded
from app.engine.interface import NO_ANSWER_IN_TIME, Cancelable
from app.http.deadlines import Deadlines


class PredictFastPath:
    """The fast route, for all requests of one process.

    Args:
        cors: pages of other origins may ask. They are answered by ASGI, where a middleware sees to CORS.
    """

    methods = METHODS
    path = PATH
    # Of a body whose one image may be decoded at once: that image, and what a form has around it.
    small_body = SMALL_BYTES + 1024

    def __init__(self, predict: Predict, *, cors: bool) -> None:
        self.predict = predict
        self.deadlines: Deadlines[FastPrediction] = Deadlines(predict.deadline_seconds, FastPrediction.be_late)
        self._cors = cors

    def matches(self, headers: Mapping[bytes, bytes]) -> bool:
        """Says whether a request with these headers is answered here."""
        return not (needs_asgi(headers) or (self._cors and b"origin" in headers))

    def check(self, body_bytes: int) -> None:
        """Refuses a large image while there is no room for any; see `app.admission.Admission.check`.

        Raises: Overloaded.
        """
        self.predict.admission.check(body_bytes)

    def start(
        self,
        headers: Mapping[bytes, bytes],
        query: bytes,
        body: bytes,
        done: Callable[[bytes | Exception], None],
    ) -> "FastPrediction":
        """Begins to answer a request; see `app.http.exchange.FastRoute`."""
        prediction, predict = FastPrediction(self, done), self.predict
        try:
            request = predict.parse(headers, query)
            permit = prediction.permit = predict.admission.permit(request.size)
            permit.acquire()
            files = prediction.files = predict.files(request, body)
            permit.acquire_items(len(files))
            prediction.work = predict.classifier.start(
                [file.data for file in files],
                request.query,
                deadline=request.deadline,
                done=prediction.classified,
                failed=prediction.end,
            )
        except Exception as error:  # noqa: BLE001  whatever it is, the client is told
            prediction.work = asyncio.get_running_loop().call_soon(prediction.end, error)
        else:
            self.deadlines.begin(prediction)
        return prediction


class FastPrediction:
    """One request on its way, and what it holds until it ends."""

    __slots__ = ("_done", "_path", "files", "permit", "work")
    files: list[File]

    def __init__(self, path: PredictFastPath, done: Callable[[bytes | Exception], None]) -> None:
        self._path = path
        self._done = done
        self.permit: Permit | None = None
        self.work: Cancelable | None = None

    def cancel(self) -> None:
        """Drops the request; `done` is not told any more. Does nothing if it has ended."""
        self._path.deadlines.end(self)
        if self.work is not None:
            self.work.cancel()
            self.work = None
        if self.permit is not None:
            self.permit.release()

    def be_late(self) -> None:
        """Ends the request: its deadline has passed."""
        self.end(DeadlineExceeded(NO_ANSWER_IN_TIME))

    def classified(self, model: str, version: int | None, items: Sequence[Item]) -> None:
        """Ends the request with the document of these items."""
        self.work = None  # it is through
        try:
            outcome: bytes | Exception = self._path.predict.render(self.files, model, version, items)
        except Exception as error:  # noqa: BLE001  as above
            outcome = error
        self.end(outcome)

    def end(self, outcome: bytes | Exception) -> None:
        """Ends the request with a document, or with what went wrong."""
        self.cancel()
        self._done(outcome)
