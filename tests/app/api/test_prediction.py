"""From images to predictions without HTTP: who is told what, when it is decoded again, and what cancelling drops."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import pytest

from app.admission import Budget
from app.api.prediction import Classification, ImageClassifier, Item, Query
from app.decoding.decoder import Decoder
from app.engine.errors import DeadlineExceeded, Draining, NotFound, NotReady, Overloaded, Stale, Starting
from app.engine.predictions import ItemAnswer, ItemError
from app.http.draining import Draining as ServerDraining
from app.telemetry.metrics import Metrics
from tests.support.checkpoints import PHOTOS, png
from tests.support.engines import ScriptedEngine
from tests.support.raw import PATIENCE
from tests.support.waiting import until

pytestmark = pytest.mark.anyio

STALE = Stale("version 2 wants its images prepared differently")


class Told:
    """A classifier over a scripted engine, and what its call-backs were told."""

    def __init__(self, *, hold_seconds: float = 0) -> None:
        self.engine = ScriptedEngine()
        self.draining = ServerDraining()
        decoder = Decoder(max_pixels=1_000_000, pixels=Budget("pixels", 10_000_000), threads=1)
        self.classifier = ImageClassifier(
            self.engine, decoder, Metrics(), hold_seconds=hold_seconds, draining=self.draining
        )
        self.outcomes: asyncio.Queue[tuple[str, int | None, Sequence[Item]] | Exception] = asyncio.Queue()

    def start(self, *images: bytes, seconds: float = 60, **query: Any) -> Classification:
        return self.classifier.start(
            images,
            Query(**query),
            deadline=time.monotonic() + seconds,
            done=lambda *outcome: self.outcomes.put_nowait(outcome),
            failed=self.outcomes.put_nowait,
        )

    async def items(self) -> Sequence[Item]:
        async with asyncio.timeout(PATIENCE):
            outcome = await self.outcomes.get()
        assert not isinstance(outcome, Exception), outcome
        return outcome[2]

    async def error(self) -> Exception:
        async with asyncio.timeout(PATIENCE):
            outcome = await self.outcomes.get()
        assert isinstance(outcome, Exception)
        return outcome


class TestOutcome:
    async def test_it_is_the_model_the_version_that_answered_and_an_item_for_each_image(self) -> None:
        told = Told()
        told.engine.version = 7
        told.start(png(), png(1), top_k=2)
        model, version, items = await asyncio.wait_for(told.outcomes.get(), PATIENCE)  # type: ignore[misc]
        assert (model, version, list(items)) == ("digits", 7, [told.engine.outcome] * 2)
        assert told.engine.submitted.get_nowait().top_k == 2

    async def test_items_come_in_the_order_of_the_images_whether_small_large_or_broken(self) -> None:
        told = Told()
        told.start(b"no image", png(), png(size=(400, 300)), b"%PDF", png())
        kinds = [item.code if isinstance(item, ItemError) else "answer" for item in await told.items()]
        assert kinds == ["bad_image", "answer", "answer", "unsupported_format", "answer"]
        assert len(told.engine.submitted.get_nowait().items) == 3

    async def test_where_no_image_can_be_decoded_the_engine_is_not_asked(self) -> None:
        told = Told()
        told.start(b"no image", version=3)
        model, version, items = await asyncio.wait_for(told.outcomes.get(), PATIENCE)  # type: ignore[misc]
        assert (model, version, len(items)) == ("digits", 3, 1)
        assert told.engine.submitted.empty()

    async def test_a_model_that_is_not_there_is_said_at_once_and_nobody_is_told_later(self) -> None:
        told = Told()
        with pytest.raises(NotFound):
            told.start(png(), model="nobody")
        told.start(png())
        await told.items()
        assert told.outcomes.empty()

    @pytest.mark.parametrize("later", [False, True])
    async def test_what_the_engine_says_instead_of_an_answer_is_told(self, later: bool) -> None:
        told, error = Told(), Overloaded("full")
        if later:
            told.engine.told = error
        else:
            told.engine.submit_error = error
        told.start(png())
        assert await told.error() is error

    async def test_a_bug_is_told_too(self) -> None:
        told = Told()
        told.engine.submit_error = ZeroDivisionError("a bug")
        told.start(png())
        assert isinstance(await told.error(), ZeroDivisionError)


class TestStale:
    @pytest.mark.parametrize("later", [False, True])
    async def test_images_are_decoded_again_as_the_new_version_wants_them(self, later: bool) -> None:
        told = Told()
        told.engine.gate.clear()
        if later:
            told.engine.told = STALE
        else:
            told.engine.submit_error = STALE
        told.start(png(), b"no image")
        before = await told.engine.submitted.get()
        told.engine.preprocess = PHOTOS
        told.engine.gate.set()
        assert [type(item) for item in await told.items()] == [ItemAnswer, ItemError]
        assert before.items[0].shape == (28, 28, 1)
        if later:
            assert told.engine.submitted.get_nowait().items[0].shape == (64, 64, 3)

    @pytest.mark.parametrize("later", [False, True])
    async def test_the_same_pixels_go_to_a_new_version_that_wants_the_same(self, later: bool) -> None:
        told = Told()
        if later:
            told.engine.told = STALE
        else:
            told.engine.submit_error = STALE
        told.start(png(), png(1))
        assert [type(item) for item in await told.items()] == [ItemAnswer, ItemAnswer]
        first, second = (told.engine.submitted.get_nowait() for _ in range(2))
        assert all(one is other for one, other in zip(first.items, second.items, strict=True))

    async def test_a_model_that_is_exchanged_until_the_deadline_is_not_waited_for(self) -> None:
        told = Told()
        told.engine.submit_error = STALE
        told.start(png(), seconds=0)
        assert isinstance(await told.error(), DeadlineExceeded)

    async def test_a_model_that_goes_meanwhile_is_told(self) -> None:
        told = Told()
        told.engine.submit_error = STALE
        told.start(png())
        told.engine.error = gone = NotFound("model_not_found", "it has gone")
        assert await told.error() is gone


class TestStarting:
    """An engine whose first look at the store is not over, or whose process is being started."""

    STARTING = Starting("the engine process is not there; it is being started")

    async def test_a_prediction_waits_until_it_has_started(self) -> None:
        told = Told(hold_seconds=60)
        told.engine.error = self.STARTING
        told.start(png(), b"no image", top_k=2)
        await asyncio.sleep(0)
        assert told.engine.submitted.empty()
        told.engine.error = None
        assert [type(item) for item in await told.items()] == [ItemAnswer, ItemError]
        assert told.engine.submitted.get_nowait().top_k == 2

    async def test_one_that_goes_while_images_are_decoded_is_waited_for_and_they_are_not_decoded_again(self) -> None:
        told = Told(hold_seconds=60)
        told.engine.submit_error = self.STARTING
        told.start(png())
        assert [type(item) for item in await told.items()] == [ItemAnswer]
        first, second = (told.engine.submitted.get_nowait() for _ in range(2))
        assert first.items[0] is second.items[0]

    async def test_it_is_waited_for_no_longer_than_it_may_be(self) -> None:
        told = Told(hold_seconds=0.01)
        told.engine.error = self.STARTING
        told.start(png())
        assert await told.error() is self.STARTING
        assert told.engine.submitted.empty()

    @pytest.mark.parametrize(("error", "hold_seconds"), [(STARTING, 0), (NotReady("empty"), 60), (Draining(""), 60)])
    async def test_what_will_not_start_is_said_at_once(self, error: NotReady, hold_seconds: float) -> None:
        told = Told(hold_seconds=hold_seconds)
        told.engine.error = error
        with pytest.raises(type(error)):
            told.start(png())
        assert told.outcomes.empty()

    async def test_once_the_server_drains_it_is_not_waited_for(self) -> None:
        told = Told(hold_seconds=60)
        told.engine.error = self.STARTING
        told.start(png())
        told.draining.begun = True
        assert await told.error() is self.STARTING
        with pytest.raises(Starting):
            told.start(png())

    async def test_shortly_before_the_deadline_the_reason_is_told(self) -> None:
        told = Told(hold_seconds=60)
        told.engine.error = self.STARTING
        told.start(png(), seconds=0.05)
        assert await told.error() is self.STARTING

    async def test_nobody_is_told_before_it_has_begun(self) -> None:
        told = Told(hold_seconds=1e-12)
        told.engine.error = self.STARTING
        told.start(png())
        assert told.outcomes.empty()
        assert await told.error() is self.STARTING

    async def test_a_model_that_is_not_there_once_it_has_started_is_told(self) -> None:
        told = Told(hold_seconds=60)
        told.engine.error = self.STARTING
        told.start(png(), model="nobody")
        told.engine.error = None
        assert isinstance(await told.error(), NotFound)

    async def test_a_prediction_that_is_cancelled_waits_no_more(self) -> None:
        told = Told(hold_seconds=60)
        told.engine.error = self.STARTING
        told.start(png()).cancel()
        told.start(png())  # its timer comes after that of the first one, if that one has any
        told.engine.error = None
        await told.items()
        assert told.engine.submitted.qsize() == 1
        assert told.outcomes.empty()

    async def test_nobody_waits_past_the_deadline(self) -> None:
        told = Told(hold_seconds=60)
        told.engine.error = self.STARTING
        with pytest.raises(DeadlineExceeded):
            await told.classifier.classify([png()], Query(), deadline=time.monotonic() + 0.01)


class TestCancel:
    async def test_before_it_is_decoded_the_engine_is_not_asked_and_nobody_is_told(self) -> None:
        told = Told()
        told.start(png()).cancel()
        told.start(png())
        await told.items()
        assert told.engine.submitted.qsize() == 1
        assert told.outcomes.empty()

    async def test_what_was_submitted_is_dropped(self) -> None:
        told = Told()
        told.engine.gate.clear()
        classification = told.start(png())
        submitted = await told.engine.submitted.get()
        for _ in range(2):
            classification.cancel()
        assert told.engine.cancelled.get_nowait() is submitted
        assert told.engine.cancelled.empty()


class TestClassify:
    """The same for a caller that waits."""

    async def test_the_answer_names_the_model_and_the_version(self) -> None:
        told = Told()
        answer = await told.classifier.classify([png()], Query(), deadline=time.monotonic() + 60)
        assert (answer.model, answer.version, list(answer.items)) == ("digits", 1, [told.engine.outcome])

    async def test_an_engine_that_hangs_is_waited_for_until_the_deadline_and_the_images_are_dropped(self) -> None:
        told = Told()
        told.engine.gate.clear()
        with pytest.raises(DeadlineExceeded):
            await told.classifier.classify([png()], Query(), deadline=time.monotonic() + 0.01)
        assert told.engine.cancelled.qsize() == 1

    async def test_cancelling_it_drops_the_images(self) -> None:
        told = Told()
        told.engine.gate.clear()
        waiting = asyncio.create_task(told.classifier.classify([png()], Query(), deadline=time.monotonic() + 60))
        await told.engine.submitted.get()
        waiting.cancel()
        await until(lambda: told.engine.cancelled.qsize() == 1)

    async def test_what_goes_wrong_is_raised(self) -> None:
        told = Told()
        told.engine.submit_error = Overloaded("full")
        with pytest.raises(Overloaded):
            await told.classifier.classify([png()], Query(), deadline=time.monotonic() + 60)
