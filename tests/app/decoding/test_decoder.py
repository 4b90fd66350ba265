"""Bytes become pixels: within which limits, in which order, and what is held while it happens."""

import asyncio
import io
import struct
import threading
import time
import zlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from PIL import _imaging as core
from pydantic import PrivateAttr

from app.admission import Budget
from app.decoding.decoder import Decoder
from app.decoding.formats import ImageProblem
from app.decoding.image import decode
from app.engine.errors import DeadlineExceeded, Overloaded
from benchmarks.harness.slow_images import jpeg_of_scans, tiff
from classifier.preprocess import Pixels, Preprocess
from tests.support.checkpoints import DIGITS, PHOTOS, png
from tests.support.gates import gated
from tests.support.images import encoded, png_chunk
from tests.support.waiting import until

ACCEPTED = ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"]
LARGE = (400, 300)


def soon() -> float:
    return time.monotonic() + 60


def decoder(
    *, max_pixels: int = 1_000_000, budget: Budget | None = None, threads: int = 1, draft: bool = False
) -> Decoder:
    return Decoder(max_pixels=max_pixels, pixels=budget or Budget("pixels", 10_000_000), threads=threads, draft=draft)


async def decoded(data: bytes, preprocess: Preprocess = DIGITS, **limits: Any) -> Pixels:
    (pixels,) = await decoder(**limits).decode([data], preprocess, deadline=soon())
    assert not isinstance(pixels, ImageProblem), pixels
    return pixels


async def problem(data: bytes, **limits: Any) -> ImageProblem:
    (outcome,) = await decoder(**limits).decode([data], DIGITS, deadline=soon())
    assert isinstance(outcome, ImageProblem)
    return outcome


def picture(size: tuple[int, int] = (28, 28)) -> Image.Image:
    return Image.open(io.BytesIO(png(size=size)))


def png_that_claims(width: int, height: int) -> bytes:
    """A sound header, and data for a few pixels."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    pieces = png_chunk(b"IHDR", header) + png_chunk(b"IDAT", zlib.compress(bytes(100))) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + pieces


@pytest.mark.anyio
class TestFormats:
    @pytest.mark.parametrize("kind", ACCEPTED)
    @pytest.mark.parametrize("size", [(28, 28), LARGE])
    async def test_every_accepted_format_becomes_the_pixels_of_its_picture(
        self, kind: str, size: tuple[int, int]
    ) -> None:
        data = encoded(picture(size), kind, **({"lossless": True} if kind == "WEBP" else {}))
        wanted = DIGITS.to_pixels(Image.open(io.BytesIO(data)))
        assert np.array_equal(await decoded(data), wanted)

    async def test_tiff_is_read_in_the_other_byte_order_too(self) -> None:
        assert encoded(picture(), "TIFF").startswith(b"II")
        assert np.unique(await decoded(big_endian_tiff(level=7))).tolist() == [7]

    async def test_an_animated_image_gives_its_first_frame(self) -> None:
        frames = [Image.new("L", (28, 28), level) for level in (10, 200)]
        data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
        assert np.unique(await decoded(data)).tolist() == [10]

    @pytest.mark.parametrize("kind", ["AVIF", "JPEG2000"])
    async def test_a_format_that_pillow_knows_too_is_named_and_not_accepted(self, kind: str) -> None:
        if kind == "AVIF":
            pytest.importorskip("PIL._avif")
        found = await problem(encoded(Image.new("RGB", (32, 32)), kind))
        assert found.code == "unsupported_format"
        assert str(found).startswith(("AVIF", "JPEG 2000"))

    @pytest.mark.slow
    @pytest.mark.parametrize("kind", ACCEPTED)
    async def test_an_image_that_was_cut_short_is_refused_at_every_length_never_guessed(self, kind: str) -> None:
        data = encoded(picture(), kind)
        whole = await decoded(data)
        for length in range(len(data)):
            (outcome,) = await decoder().decode([data[:length]], DIGITS, deadline=soon())
            if isinstance(outcome, ImageProblem):
                assert outcome.code == "bad_image"
            else:  # what is missing holds no pixels: a checksum, an end mark
                assert length > len(data) * 0.75
                assert np.array_equal(outcome, whole)

    @pytest.mark.parametrize("kind", ACCEPTED)
    async def test_a_large_image_that_was_cut_short_is_refused_as_well(self, kind: str) -> None:
        data = encoded(picture(LARGE), kind)
        assert (await problem(data[: len(data) * 3 // 4])).code == "bad_image"

    async def test_what_is_said_of_a_broken_image_holds_no_address_of_memory(self) -> None:
        assert " at 0x" not in str(await problem(b"\x89PNG\r\n\x1a\n" + bytes(100)))

    async def test_a_format_pillow_would_guess_is_not_tried(self) -> None:
        # TGA has no signature: Pillow takes nearly anything for it.
        assert (await problem(encoded(picture(), "TGA"))).code == "bad_image"


def big_endian_tiff(*, level: int) -> bytes:
    entries = [(256, 28), (257, 28), (258, 8), (259, 1), (262, 1), (273, 8), (277, 1), (278, 28), (279, 28 * 28)]
    directory = b"".join(struct.pack(">HHIHH", tag, 3, 1, value, 0) for tag, value in entries)
    image = bytes([level]) * (28 * 28)
    return (
        struct.pack(">2sHI", b"MM", 42, 8 + len(image)) + image + struct.pack(">H", len(entries)) + directory + bytes(4)
    )


@pytest.mark.anyio
class TestPixels:
    async def test_small_and_large_images_become_what_one_decoding_makes_of_them(self) -> None:
        for size in [(28, 28), (128, 128), (129, 129), LARGE]:
            data = png(size=size)
            assert np.array_equal(await decoded(data), decode(data, DIGITS))

    async def test_colours_go_through_the_pool_as_well(self) -> None:
        data = png(size=LARGE, mode="RGB")
        assert np.array_equal(await decoded(data, PHOTOS), decode(data, PHOTOS))

    async def test_the_outcomes_of_several_come_in_their_order(self) -> None:
        images = [png(1), b"no image", png(2, LARGE), png_that_claims(60_000, 60_000), png(3, LARGE), png(4)]
        outcomes = await decoder(threads=2).decode(images, DIGITS, deadline=soon())
        codes = [outcome.code if isinstance(outcome, ImageProblem) else "pixels" for outcome in outcomes]
        assert codes == ["pixels", "bad_image", "pixels", "too_many_pixels", "pixels", "pixels"]
        for i in (0, 2, 4, 5):
            assert np.array_equal(outcomes[i], decode(images[i], DIGITS))  # type: ignore[arg-type]


@pytest.mark.anyio
class TestTooManyPixels:
    @pytest.mark.parametrize("size", [(60_000, 60_000), (10_000, 10_000), (1001, 1000), (1_000_001, 1)])
    async def test_they_are_refused_by_what_the_header_says_before_anything_is_allocated(
        self, size: tuple[int, int]
    ) -> None:
        data = png_that_claims(*size)
        before = core.get_stats()["new_count"]
        assert (await problem(data, max_pixels=1_000_000)).code == "too_many_pixels"
        assert core.get_stats()["new_count"] == before

    async def test_as_many_as_are_allowed_are_decoded(self) -> None:
        assert (await decoded(png(size=(1000, 1000)), max_pixels=1_000_000)).shape == (28, 28, 1)

    async def test_the_answer_says_how_many_there_are_and_may_be(self) -> None:
        assert "1001x1000" in str(await problem(png(size=(1001, 1000))))
        assert "1 million" in str(await problem(png(size=(1001, 1000))))

    @pytest.mark.parametrize("kind", ACCEPTED)
    async def test_every_format_is_measured(self, kind: str) -> None:
        assert (await problem(encoded(picture((200, 200)), kind), max_pixels=30_000)).code == "too_many_pixels"


async def come(begun: threading.Semaphore) -> None:
    assert await asyncio.to_thread(begun.acquire, timeout=60)


@asynccontextmanager
async def busy(pool: Decoder) -> AsyncIterator[Decoder]:
    """Keeps a thread of the pool at one large image until the block is left."""
    preprocess, gate, begun = gated()
    decoding = asyncio.create_task(pool.decode([png(size=LARGE)], preprocess, deadline=soon()))
    await come(begun)
    try:
        yield pool
    finally:
        gate.set()
        await decoding


STRIPS = {
    278: (4, [1]),
    279: (4, struct.pack("<I", 128) * 3500),
    273: (4, struct.pack("<I", 8) * 3500),
}


@pytest.mark.anyio
class TestPool:
    """One thread, in which one image is being decoded until the gate opens."""

    SIZE = LARGE[0] * LARGE[1]

    async def test_the_deadline_ends_the_waiting_while_the_pool_is_busy(self) -> None:
        async with busy(decoder()) as pool:
            with pytest.raises(DeadlineExceeded):
                await pool.decode([png(size=LARGE)], DIGITS, deadline=time.monotonic() + 0.01)
            with pytest.raises(DeadlineExceeded):
                await pool.decode([png(size=LARGE)], DIGITS, deadline=time.monotonic() - 1)

    async def test_small_images_do_not_wait_for_the_pool(self) -> None:
        async with busy(decoder()) as pool:
            assert len(await pool.decode([png()], DIGITS, deadline=soon())) == 1

    async def test_a_small_file_that_may_inflate_to_much_is_left_to_the_pool(self) -> None:
        text = png_chunk(b"zTXt", b"Comment\x00\x00" + zlib.compress(bytes(1 << 19)))
        small = png()
        inflating = small[:33] + text * 20 + small[33:]
        assert len(inflating) < 32_000
        async with busy(decoder()) as pool:
            waiting = asyncio.create_task(pool.decode([inflating], DIGITS, deadline=soon()))
            await asyncio.sleep(0)
            assert not waiting.done()
        assert np.array_equal((await waiting)[0], decode(small, DIGITS))  # type: ignore[arg-type]

    @pytest.mark.parametrize("data", [jpeg_of_scans(128, 128, 2000), tiff(128, 128, STRIPS, bytes(128))])
    async def test_a_small_file_of_much_work_is_left_to_the_pool(self, data: bytes) -> None:
        assert len(data) < 32_000
        async with busy(decoder()) as pool:
            waiting = asyncio.create_task(pool.decode([data], DIGITS, deadline=soon()))
            await asyncio.sleep(0)
            assert len(await pool.decode([png()], DIGITS, deadline=soon())) == 1
            assert not waiting.done()
        assert np.array_equal((await waiting)[0], decode(data, DIGITS))  # type: ignore[arg-type]

    async def test_a_long_thin_image_that_a_resize_would_enlarge_is_left_to_the_pool(self) -> None:
        async with busy(decoder()) as pool:
            waiting = asyncio.create_task(pool.decode([png(size=(16, 1024))], DIGITS, deadline=soon()))
            await asyncio.sleep(0)
            assert not waiting.done()
        assert len(await waiting) == 1

    async def test_what_has_no_room_is_refused_and_what_has_is_not(self) -> None:
        async with busy(decoder(budget=Budget("pixels", self.SIZE * 2), threads=2)) as pool:
            with pytest.raises(Overloaded):
                await pool.decode([png(size=LARGE)] * 2, DIGITS, deadline=soon())
            assert len(await pool.decode([png(size=LARGE)], DIGITS, deadline=soon())) == 1

    async def test_what_has_no_room_is_refused_while_the_pool_is_busy_not_behind_it(self) -> None:
        async with busy(decoder(budget=Budget("pixels", self.SIZE))) as pool:
            async with asyncio.timeout(20):
                with pytest.raises(Overloaded):
                    await pool.decode([png(size=LARGE)], DIGITS, deadline=soon())

    async def test_what_is_wrong_with_a_large_image_is_told_while_the_pool_is_busy(self) -> None:
        async with busy(decoder(max_pixels=self.SIZE)) as pool:
            async with asyncio.timeout(20):
                outcomes = await pool.decode(
                    [png(size=(500, 400)), png(size=LARGE)[:20] + bytes(40_000)], DIGITS, deadline=soon()
                )
            assert [outcome.code for outcome in outcomes if isinstance(outcome, ImageProblem)] == [
                "too_many_pixels",
                "bad_image",
            ]

    async def test_the_images_of_one_request_do_not_refuse_one_another(self) -> None:
        budget = Budget("pixels", self.SIZE * 2)
        images = [png(i, LARGE) for i in range(5)]
        outcomes = await decoder(budget=budget, threads=2).decode(images, DIGITS, deadline=soon())
        assert [isinstance(outcome, ImageProblem) for outcome in outcomes] == [False] * 5
        assert budget.held == 0

    async def test_pixels_are_held_until_the_thread_is_through_also_when_the_caller_has_left(self) -> None:
        preprocess, gate, begun = gated()
        budget = Budget("pixels", 10_000_000)
        pool = decoder(budget=budget)
        left = asyncio.create_task(pool.decode([png(size=LARGE)], preprocess, deadline=soon()))
        await come(begun)
        left.cancel()
        await asyncio.wait([left])
        assert left.cancelled()
        assert budget.held == self.SIZE
        gate.set()
        await pool.decode([png(size=LARGE)], DIGITS, deadline=soon())  # one thread: the one before it is through
        assert budget.held == 0

    async def test_a_caller_that_left_before_the_turn_was_over_harms_nobody_beside_it(self) -> None:
        shared = decoder()
        left, stays = (asyncio.create_task(shared.decode([png(i)], DIGITS, deadline=soon())) for i in range(2))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.wait([left])
        assert np.array_equal((await stays)[0], decode(png(1), DIGITS))  # type: ignore[arg-type]

    async def test_small_images_of_a_caller_that_left_are_not_decoded(self) -> None:
        preprocess, gate, begun = gated()
        gate.set()
        shared = decoder()
        before = [asyncio.create_task(shared.decode([png()], DIGITS, deadline=soon())) for _ in range(12)]
        left = asyncio.create_task(shared.decode([png()], preprocess, deadline=soon()))
        await asyncio.sleep(0)
        left.cancel()
        await asyncio.wait([left, *before])
        await shared.decode([png()], DIGITS, deadline=soon())  # whoever comes after it: by now its turn is over
        assert not begun.acquire(blocking=False)

    async def test_cancelled_work_that_had_not_begun_is_dropped(self) -> None:
        preprocess, gate, begun = gated()
        budget = Budget("pixels", 10_000_000)
        pool = decoder(budget=budget)
        tasks = [asyncio.create_task(pool.decode([png(size=LARGE)], preprocess, deadline=soon())) for _ in range(3)]
        await come(begun)
        await until(lambda: budget.held == 3 * self.SIZE)
        tasks[1].cancel()
        await asyncio.wait([tasks[1]])
        await until(lambda: budget.held == 2 * self.SIZE)
        gate.set()
        await asyncio.gather(tasks[0], tasks[2])
        await come(begun)
        assert not begun.acquire(blocking=False)  # two have begun, not three

    async def test_a_broken_image_gives_its_pixels_back(self) -> None:
        budget = Budget("pixels", 10_000_000)
        data = png(size=LARGE)
        (outcome,) = await decoder(budget=budget).decode([data[: len(data) // 2]], DIGITS, deadline=soon())
        assert isinstance(outcome, ImageProblem)
        await until(lambda: budget.held == 0)

    async def test_what_is_said_of_a_broken_image_does_not_hold_it(self) -> None:
        data = png(size=LARGE)
        found = await problem(data[: len(data) // 2])
        assert (found.__traceback__, found.__cause__, found.__context__) == (None, None, None)


class Counted(Preprocess):
    """Counts the images that it prepares."""

    _prepared: list[None] = PrivateAttr(default_factory=list)

    def to_pixels(self, image: Image.Image) -> Pixels:
        self._prepared.append(None)
        return super().to_pixels(image)


class Failing(Preprocess):
    """Fails on every image."""

    _error: Exception = PrivateAttr(default_factory=MemoryError)

    def to_pixels(self, image: Image.Image) -> Pixels:  # noqa: ARG002
        raise self._error


@pytest.mark.anyio
class TestTurns:
    """Small images are decoded on the event loop, which has other things to do."""

    async def test_a_turn_of_the_loop_decodes_twelve_images_however_many_a_request_has(self) -> None:
        counted = Counted(**DIGITS.model_dump())
        shared = decoder()
        requests = [
            asyncio.create_task(shared.decode([png(i) for i in range(count)], counted, deadline=soon()))
            for count in (1, 32, 3, 20)
        ]
        turns, before = [], 0
        while not all(request.done() for request in requests):
            await asyncio.sleep(0)
            turns.append(len(counted._prepared) - before)
            before = len(counted._prepared)
        assert sum(turns) == 56
        assert max(turns) == 12

    async def test_a_request_with_more_goes_on_behind_the_others(self) -> None:
        shared, ended = decoder(), list[str]()

        async def ask(name: str, count: int) -> None:
            await shared.decode([png(i) for i in range(count)], DIGITS, deadline=soon())
            ended.append(name)

        await asyncio.gather(ask("many", 32), ask("one", 1), ask("another", 1))
        assert ended == ["one", "another", "many"]

    async def test_pixels_come_in_order_over_several_turns(self) -> None:
        images = [png(i) for i in range(30)]
        results = await decoder().decode(images, DIGITS, deadline=soon())
        for image, result in zip(images, results, strict=True):
            assert np.array_equal(result, decode(image, DIGITS))  # type: ignore[arg-type]

    async def test_a_bug_that_one_request_meets_costs_the_others_nothing(self) -> None:
        failing = Failing(**DIGITS.model_dump())
        failing._error = ZeroDivisionError("a bug")
        shared = decoder()
        preprocesses = [DIGITS, failing, DIGITS] + [failing] * 12 + [DIGITS]
        outcomes = await asyncio.gather(
            *[shared.decode([png()], preprocess, deadline=soon()) for preprocess in preprocesses],
            return_exceptions=True,
        )
        assert [isinstance(outcome, ZeroDivisionError) for outcome in outcomes] == [p is failing for p in preprocesses]


@pytest.mark.anyio
class TestMemory:
    """Too little memory is the server's trouble, and passes. It says nothing of the image."""

    @pytest.mark.parametrize("size", [(28, 28), LARGE])
    async def test_where_it_does_not_suffice_the_server_is_overloaded(self, size: tuple[int, int]) -> None:
        with pytest.raises(Overloaded, match="memory"):
            await decoder().decode([png(size=size)], Failing(**DIGITS.model_dump()), deadline=soon())

    @pytest.mark.parametrize("size", [(28, 28), LARGE])
    async def test_also_where_a_file_is_only_opened(
        self, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def no_memory(*_: object, **__: object) -> None:
            raise MemoryError

        data = encoded(picture(size), "JPEG")
        monkeypatch.setattr(Image, "open", no_memory)
        with pytest.raises(Overloaded, match="memory"):
            await decoder().decode([data], DIGITS, deadline=soon())

    async def test_pixels_that_were_held_are_free_again(self) -> None:
        budget = Budget("pixels", 10_000_000)
        with pytest.raises(Overloaded, match="memory"):
            await decoder(budget=budget).decode([png(size=LARGE)], Failing(**DIGITS.model_dump()), deadline=soon())
        await until(lambda: budget.held == 0)


@pytest.mark.anyio
class TestDraft:
    """What `jpeg_draft` changes."""

    @pytest.mark.slow
    async def test_large_photos_keep_nearly_the_pixels_that_they_have_without(self, shared_data: Path) -> None:
        paths = sorted((shared_data / "photos").iterdir())[:8]
        preprocess = Preprocess(mode="RGB", resize=256, crop=(224, 224), mean=(0,) * 3, std=(1,) * 3)
        differences = []
        for path in paths:
            photo = Image.open(path).convert("RGB")
            large = encoded(
                photo.resize((8 * photo.width, 8 * photo.height), Image.Resampling.BICUBIC), "JPEG", quality=90
            )
            exact = await decoded(large, preprocess, max_pixels=50_000_000, budget=Budget("pixels", 1e9))
            draft = await decoded(large, preprocess, max_pixels=50_000_000, budget=Budget("pixels", 1e9), draft=True)
            assert not np.array_equal(exact, draft)
            differences.append(np.abs(exact.astype(int) - draft))
        assert np.mean(differences) < 1
        assert max(difference.mean() for difference in differences) < 5

    async def test_photos_of_less_than_four_times_the_edge_are_decoded_whole(self) -> None:
        preprocess = Preprocess(mode="RGB", resize=100, crop=(100, 100), mean=(0,) * 3, std=(1,) * 3)
        data = encoded(picture((500, 399)).convert("RGB"), "JPEG")
        assert np.array_equal(await decoded(data, preprocess), await decoded(data, preprocess, draft=True))

    async def test_an_image_on_its_side_is_drafted_no_further(self) -> None:
        preprocess = Preprocess(mode="L", resize=(100, 400), crop=None, mean=(0,), std=(1,))
        data = encoded(picture((1700, 799)), "JPEG")
        drafted = await decoded(data, preprocess, max_pixels=2_000_000, draft=True)
        assert np.array_equal(drafted, decode(data, preprocess))
