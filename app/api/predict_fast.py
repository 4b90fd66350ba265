"""POST /predict as a fast route: a prediction that is asked for in one piece, from headers and a body to a document.

One small image, which is nearly every request where requests are many, goes by calls: each step is told what came of
the one before it. As a task that waits for the same steps it takes as long again as all of them. Everything else goes
by `Predict.answer`, in a task.
"""

import asyncio
import time
from collections.abc import Callable, Mapping

from app.admission import Held
from app.api.predict import PATH, Asked, Predict, document_of_one, sound
from app.decoding.decoder import INLINE_BYTES, Outcome, Small
from app.engine.interface import NO_ANSWER_IN_TIME, Answer, EngineError, Expired, Stale, Submitted, Target
from app.http.deadlines import Deadlines

# Of a body whose one image may be decoded at once: that image, and what a form has around it.
SMALL_BODY = INLINE_BYTES + 1024


class PredictFastPath:
    """The fast route.

    Args:
        cors: pages of other origins may ask; they are answered by ASGI, where that is seen to.
    """

    method = "POST"
    path = PATH
    small_body = SMALL_BODY

    def __init__(self, predict: Predict, *, cors: bool) -> None:
        self.predict = predict
        self.answers: Deadlines[FastPrediction] = Deadlines(predict.deadline_seconds, FastPrediction.be_late)
        self._cors = cors

    def matches(self, headers: Mapping[bytes, bytes]) -> bool:
        return not (self._cors and b"origin" in headers)

    def start(
        self,
        headers: Mapping[bytes, bytes],
        query: bytes,
        body: bytes,
        done: Callable[[bytes | Exception], None],
    ) -> "FastPrediction":
        prediction = FastPrediction(
            self.predict, self.answers, headers=headers, query_string=query, body=body, ended=done
        )
        prediction.start()
        return prediction


class FastPrediction:
    """The way of one request.

    Args:
        deadlines: of as much time as a request may take.
        headers: by their names in lower case.
        ended: is told once what came of it, a document or an error; at the earliest when `start` has returned.
    """

    __slots__ = (
        "_asked", "_body", "_deadlines", "_ended", "_headers", "_held", "_predict", "_query_string",
        "_small", "_started", "_submitted", "_target", "_task",
    )  # fmt: skip
    _asked: Asked
    _target: Target
    _started: float

    def __init__(
        self,
        predict: Predict,
        deadlines: "Deadlines[FastPrediction]",
        *,
        headers: Mapping[bytes, bytes],
        query_string: bytes,
        body: bytes,
        ended: Callable[[bytes | Exception], None],
    ) -> None:
        self._predict = predict
        self._deadlines = deadlines
        self._headers = headers
        self._query_string = query_string
        self._body = body
        self._ended = ended
        self._held: Held | None = None
        self._small: Small | None = None
        self._submitted: Submitted | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        predict = self._predict
        try:
            asked = self._asked = predict.asked(self._headers, self._query_string)
            if len(self._body) > SMALL_BODY:
                self._take_a_task()
                return
            held = self._held = predict.admission.request(asked.size)
            held.take()
            files = predict.files(asked, self._body)
            if len(files) > 1:
                self._take_a_task()
                return
            held.take_items(1)
            self._target = predict.engine.target(asked.query.model, asked.query.version)
        except Exception as error:  # noqa: BLE001  whatever it is, the client is told
            asyncio.get_running_loop().call_soon(self._end, error)
            return
        self._started = time.perf_counter()
        self._deadlines.begin(self)
        self._small = predict.decoder.put([files[0].data], self._target.preprocess, self._decoded)

    def cancel(self) -> None:
        """Nobody waits for it any more, or it has ended; `ended` is not told."""
        self._let_go()
        if self._task is not None:
            self._task.cancel()

    def _decoded(self, outcomes: list[Outcome | None]) -> None:
        predict, asked = self._predict, self._asked
        self._small = None
        (outcome,) = outcomes
        if outcome is None:
            self._take_a_task()
            return
        try:
            pixels = sound(outcome)
            decoded = time.perf_counter()
            predict.metrics.decode_seconds(decoded - self._started)
            self._started = decoded
            self._submitted = predict.engine.put(
                self._target, [pixels], top_k=asked.query.top_k, deadline=asked.deadline, answered=self._answered
            )
        except Stale:
            self._take_a_task()
        except Exception as error:  # noqa: BLE001  as above
            self._end(error)

    def _answered(self, answer: Answer | EngineError) -> None:
        self._submitted = None
        if isinstance(answer, Stale):
            self._take_a_task()
            return
        try:
            if isinstance(answer, EngineError):
                raise answer
            self._predict.metrics.answer_seconds(time.perf_counter() - self._started)
            document = document_of_one(self._target, answer)
        except Exception as error:  # noqa: BLE001  as above
            self._end(error)
        else:
            self._end(document)

    def be_late(self) -> None:
        self._end(Expired(NO_ANSWER_IN_TIME))

    def _end(self, outcome: bytes | Exception) -> None:
        self._let_go()
        self._ended(outcome)

    def _let_go(self) -> None:
        self._deadlines.end(self)
        if self._small is not None:
            self._small.dropped = True
            self._small = None
        if self._submitted is not None:
            self._submitted.drop()
            self._submitted = None
        if self._held is not None:
            self._held.give_back()

    def _take_a_task(self) -> None:
        """For all of it, again: it was no small image, or it has to be decoded for a version that came meanwhile."""
        self._let_go()
        self._task = asyncio.get_running_loop().create_task(self._wait())

    async def _wait(self) -> None:
        try:
            outcome: bytes | Exception = await self._predict.answer(self._asked, self._body)
        except Exception as error:  # noqa: BLE001  as above
            outcome = error
        self._task = None  # it is this task that ends
        self._ended(outcome)
