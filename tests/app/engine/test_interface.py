"""What every engine promises: the contract of app.engine.interface.Engine, run over each implementation."""

import asyncio
import gc
import math
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn
from torch.nn.modules.module import register_module_forward_pre_hook

from app.engine.errors import Ambiguous, DeadlineExceeded, Draining, NotFound, NotReady, Overloaded, Stale
from app.engine.interface import ControlledEngine
from app.engine.predictions import ItemAnswer, ItemError, Prediction
from app.inference.local_engine import LocalEngine
from app.ipc.engine_server import EngineServer
from app.ipc.remote_engine import RemoteEngine
from app.ipc.rendezvous import rendezvous
from app.lifecycle.storage import LocalFolder, VersionFile
from app.settings import Settings
from app.telemetry.metrics import Metrics
from classifier.checkpoint import Checkpoint, Reference
from classifier.cores import usable_cores
from classifier.manifest import Calibration, OutOfDistribution
from classifier.preprocess import Pixels
from tests.support.checkpoints import DIGITS, LARGE_PHOTOS, checkpoint, logits, png, publish, saying, to_pixels
from tests.support.engines import ScriptedEngine
from tests.support.images import encoded

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("torch_as_it_was")]

# An engine of a store with some settings, started, after its first look.
Start = Callable[..., AbstractAsyncContextManager[ControlledEngine]]


@asynccontextmanager
async def local_engine(settings: Settings, *, owns_loop: bool = False) -> AsyncIterator[ControlledEngine]:
    engine = LocalEngine(settings, Metrics(), owns_loop=owns_loop)
    await engine.start()
    try:
        yield engine
    finally:
        await engine.close()


@asynccontextmanager
async def remote_engine(settings: Settings) -> AsyncIterator[ControlledEngine]:
    """The engine process's side and the front-end's, on one loop."""
    engine = LocalEngine(settings.model_copy(update={"max_queue": 10_000}), Metrics(), owns_loop=True)
    with rendezvous() as meeting:
        serving = asyncio.create_task(EngineServer(engine, Metrics()).serve(meeting.engine))
        await engine.start()
        remote = RemoteEngine(meeting.front_ends, max_waiting=settings.max_queue)
        await remote.start()
        try:
            yield remote
        finally:
            await remote.close()
            serving.cancel()
            await asyncio.wait([serving])
            await engine.close()


@pytest.fixture(params=[local_engine, remote_engine])
def start(request: pytest.FixtureRequest, tmp_path: Path) -> Start:
    return partial(started, request.param, tmp_path / "store")


@asynccontextmanager
async def started(
    make: Callable[[Settings], AbstractAsyncContextManager[ControlledEngine]], store: Path, **settings: Any
) -> AsyncIterator[ControlledEngine]:
    async with make(Settings(store=store, device="cpu", **settings)) as engine:
        await engine.started()
        yield engine


def soon() -> float:
    return time.monotonic() + 30


def images(count: int) -> list[Pixels]:
    return [to_pixels(png(i)) for i in range(count)]


def energy(content: Checkpoint, image: Pixels) -> float:
    """By the formula, in float64."""
    values = logits(content.build(), DIGITS, torch.from_numpy(image[None]))[0].tolist()
    return math.log(math.fsum(math.exp(value) for value in values))


def blind_to_white() -> Checkpoint:
    """Its scores of a white image are not finite."""
    content = checkpoint()
    weights = {**content.network, "conv1.weight": torch.full((16, 1, 5, 5), 1e20), "conv1.bias": torch.zeros(16)}
    weights["conv2.weight"] = 1e20 * weights["conv2.weight"]
    black = encoded(Image.new("L", (28, 28)))
    pixels = torch.from_numpy(to_pixels(black)[None])
    content = replace(content, network=weights)
    return replace(content, reference=Reference((black,), pixels, logits(content.build(), DIGITS, pixels)))


def predictions(item: ItemAnswer | ItemError) -> tuple[Prediction, ...]:
    assert isinstance(item, ItemAnswer)
    return item.predictions


async def test_an_item_is_answered_with_its_predictions_by_the_served_version(start: Start, tmp_path: Path) -> None:
    publish(tmp_path / "store", 4, checkpoint())
    async with start() as engine:
        answer = await engine.submit(engine.resolve(None, None), images(1), top_k=3, deadline=soon())
    assert answer.version == 4
    first, second, third = predictions(answer.items[0])
    assert 1 >= first.probability >= second.probability >= third.probability >= 0


async def test_items_are_answered_in_their_order_and_as_if_alone(start: Start, tmp_path: Path) -> None:
    publish(tmp_path / "store", 1, checkpoint())
    async with start(max_batch=4) as engine:
        target = engine.resolve("digits", 1)
        together = await engine.submit(target, images(10), top_k=10, deadline=soon())
        for image, item in zip(images(10), together.items, strict=True):
            (by_itself,) = (await engine.submit(target, [image], top_k=10, deadline=soon())).items
            crowd, alone = predictions(item), predictions(by_itself)
            assert [each.class_index for each in crowd] == [each.class_index for each in alone]
            assert [each.probability for each in crowd] == pytest.approx([e.probability for e in alone], abs=1e-5)


async def test_an_item_is_told_whether_its_score_reaches_the_threshold(start: Start, tmp_path: Path) -> None:
    content = checkpoint()
    energies = [energy(content, image) for image in images(8)]
    threshold = sorted(energies)[4] - 1e-4  # between two of them: the sum is taken in another order
    publish(
        tmp_path / "store",
        1,
        saying(content, out_of_distribution=OutOfDistribution(method="energy", threshold=threshold)),
    )
    async with start() as engine:
        answer = await engine.submit(engine.resolve(None, None), images(8), top_k=1, deadline=soon())
    items = [item for item in answer.items if isinstance(item, ItemAnswer)]
    assert [item.score for item in items] == pytest.approx(energies, abs=1e-5)
    assert [item.in_distribution for item in items] == [each >= threshold for each in energies]
    assert sum(bool(item.in_distribution) for item in items) == 4


async def test_where_the_manifest_has_no_threshold_nothing_is_said_of_it(start: Start, tmp_path: Path) -> None:
    publish(tmp_path / "store", 1, checkpoint())
    async with start() as engine:
        (item,) = (await engine.submit(engine.resolve(None, None), images(1), top_k=1, deadline=soon())).items
    assert isinstance(item, ItemAnswer)
    assert (item.score, item.in_distribution) == (None, None)


async def test_the_probabilities_are_the_calibrated_ones_and_the_score_is_not(start: Start, tmp_path: Path) -> None:
    plain = saying(checkpoint(), out_of_distribution=OutOfDistribution(method="energy", threshold=0))
    publish(tmp_path / "store", 1, plain, model="plain")
    publish(tmp_path / "store", 1, saying(plain, calibration=Calibration(temperature=0.25)), model="cooled")
    async with start() as engine:
        answers = {
            model: (await engine.submit(engine.resolve(model, None), images(1), top_k=10, deadline=soon())).items[0]
            for model in ("plain", "cooled")
        }
    before, after = answers["plain"], answers["cooled"]
    assert isinstance(before, ItemAnswer)
    assert isinstance(after, ItemAnswer)
    sharpened = [each.probability**4 for each in before.predictions]
    expected = [each / sum(sharpened) for each in sharpened]
    assert [each.probability for each in after.predictions] == pytest.approx(expected, rel=1e-4)
    assert after.predictions[0].probability > before.predictions[0].probability + 0.01
    assert after.score == before.score


async def test_a_resolved_model_tells_a_decoder_what_it_needs(start: Start, tmp_path: Path) -> None:
    publish(tmp_path / "store", 1, checkpoint())
    async with start() as engine:
        entry, asked = engine.resolve(None, None)
    assert (entry.model, entry.version, asked) == ("digits", 1, None)
    assert entry.preprocess == DIGITS
    assert entry.digest == DIGITS.digest


async def test_nothing_to_serve_is_not_ready(start: Start) -> None:
    async with start() as engine:
        with pytest.raises(NotReady, match="python -m training strokes"):
            engine.resolve(None, None)
        assert not (await engine.status()).ready


async def test_what_is_not_there_is_not_found(start: Start, tmp_path: Path) -> None:
    publish(tmp_path / "store", 1, checkpoint())
    publish(tmp_path / "store", 2, checkpoint())
    async with start() as engine:
        for model, version, code in (
            ("birds", None, "model_not_found"),
            ("digits", 3, "version_not_found"),
            ("digits", 1, "version_not_loaded"),
        ):
            with pytest.raises(NotFound) as caught:
                engine.resolve(model, version)
            assert caught.value.code == code


async def test_a_model_all_of_whose_versions_are_refused_is_not_ready_and_says_why(
    start: Start, tmp_path: Path
) -> None:
    publish(tmp_path / "store", 1, b"junk")
    async with start() as engine:
        with pytest.raises(NotReady, match="version 1: not a safetensors file"):
            engine.resolve("digits", None)
        assert "not a safetensors file" in (await engine.status()).detail


async def test_several_models_and_none_named_is_ambiguous(start: Start, tmp_path: Path) -> None:
    publish(tmp_path / "store", 1, checkpoint())
    publish(tmp_path / "store", 1, checkpoint(), model="numbers")
    async with start() as engine:
        with pytest.raises(Ambiguous, match="digits, numbers"):
            engine.resolve(None, None)
        assert engine.resolve("numbers", None).entry.model == "numbers"


async def test_the_default_model_answers_where_none_is_named_and_readiness_waits_for_it(
    start: Start, tmp_path: Path
) -> None:
    publish(tmp_path / "store", 1, checkpoint())
    async with start(model="numbers") as engine:
        status = await engine.status()
        assert not status.ready
        assert "numbers" in status.detail
        publish(tmp_path / "store", 1, checkpoint(), model="numbers")
        await engine.reload("numbers", deadline=soon())
        assert (await engine.status()).ready
        assert engine.resolve(None, None).entry.model == "numbers"


async def test_a_reload_swaps_and_says_so(start: Start, tmp_path: Path) -> None:
    publish(tmp_path / "store", 1, checkpoint())
    async with start(poll_seconds=600) as engine:
        publish(tmp_path / "store", 2, checkpoint(seed=1))
        await engine.reload("digits", deadline=soon())
        report = await engine.reload("digits", deadline=soon())
        assert (report.served_version, report.refused, report.newest_refused) == (2, (), False)
        assert (await engine.status()).served == {"digits": 2}


async def test_a_refused_version_is_reported_and_changes_nothing(start: Start, tmp_path: Path) -> None:
    publish(tmp_path / "store", 1, checkpoint())
    async with start() as engine:
        publish(tmp_path / "store", 2, b"junk")
        report = await engine.reload("digits", deadline=soon())
        assert (report.served_version, report.changed, report.newest_refused) == (1, False, True)
        assert [refusal.version for refusal in report.refused] == [2]
        assert (await engine.status()).ready
        (model,) = await engine.models()
        assert [(v.version, v.state) for v in model.versions] == [(2, "refused"), (1, "ready")]


async def test_a_reload_reads_what_is_served_whole(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(tmp_path / "store", 1, checkpoint())
    read: list[int] = []
    read_whole = LocalFolder.read_whole

    def noted(storage: LocalFolder, model: str, file: VersionFile) -> VersionFile:
        read.append(file.version)
        return read_whole(storage, model, file)

    monkeypatch.setattr(LocalFolder, "read_whole", noted)
    async with start() as engine:
        assert read == []
        assert not (await engine.reload("digits", deadline=soon())).changed
    assert read == [1]


async def test_what_is_passed_over_is_told_of_the_store_and_of_each_model(start: Start, tmp_path: Path) -> None:
    publish(tmp_path / "store", 1, checkpoint()).with_name("best.pth").touch()
    (tmp_path / "store" / "ResNet50\udcff").mkdir()
    async with start() as engine:
        assert [each.path for each in await engine.passed_over()] == ["ResNet50\\udcff"]
        (model,) = await engine.models()
        assert [each.path for each in model.passed_over] == ["digits/best.pth"]


async def test_a_reload_past_its_deadline_is_expired_and_the_look_goes_on(start: Start, tmp_path: Path) -> None:
    publish(tmp_path / "store", 1, checkpoint())
    async with start() as engine:
        publish(tmp_path / "store", 2, checkpoint(seed=1))
        with pytest.raises(DeadlineExceeded, match="GET /models"):
            await engine.reload("digits", deadline=time.monotonic() - 1)
        assert (await engine.reload("digits", deadline=soon())).served_version == 2


async def test_a_reload_of_a_model_that_is_not_there_is_not_found(start: Start) -> None:
    async with start() as engine:
        with pytest.raises(NotFound):
            await engine.reload("birds", deadline=soon())


@pytest.mark.parametrize("name", ["..", "../digits", "a/b", "", "Digits"])
async def test_a_name_that_no_model_can_have_reaches_no_folder(start: Start, tmp_path: Path, name: str) -> None:
    publish(tmp_path / "store", 1, checkpoint())
    async with start() as engine:
        with pytest.raises(NotFound):
            await engine.reload(name, deadline=soon())


@pytest.mark.slow
async def test_what_was_submitted_is_answered_by_the_version_that_was_resolved(start: Start, tmp_path: Path) -> None:
    publish(tmp_path / "store", 1, checkpoint(seed=1))
    async with start(max_batch=1) as engine:
        target = engine.resolve(None, None)
        alone = await engine.submit(target, images(1), top_k=10, deadline=soon())
        waiting = asyncio.create_task(engine.submit(target, images(1) * 300, top_k=10, deadline=soon()))
        await asyncio.sleep(0)
        publish(tmp_path / "store", 2, checkpoint(seed=2))
        await engine.reload("digits", deadline=soon())
        answer = await waiting
        assert answer.version == 1
        assert all(item == alone.items[0] for item in answer.items)
        after = await engine.submit(engine.resolve(None, None), images(1), top_k=10, deadline=soon())
        assert after.version == 2
        assert after.items != alone.items


@pytest.mark.slow
@pytest.mark.parametrize("left", [False, True])
async def test_a_version_that_was_replaced_is_retired_when_nothing_waits_for_it(
    left: bool, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    publish(tmp_path / "store", 1, checkpoint(seed=1))
    async with local_engine(Settings(store=tmp_path / "store", device="cpu", max_batch=1)) as engine:
        assert isinstance(engine, LocalEngine)
        await engine.started()
        waiting = asyncio.create_task(engine.submit(engine.resolve(None, None), images(300), top_k=1, deadline=soon()))
        await asyncio.sleep(0)
        if left:
            waiting.cancel()
        await asyncio.wait([waiting])
        publish(tmp_path / "store", 2, checkpoint(seed=2))
        await engine.reload("digits", deadline=soon())
        assert engine.catalogue.served == {"digits": 2}
        assert "retired" in [record.message for record in caplog.records]


@pytest.mark.parametrize("background", [DIGITS.background, 255])
@pytest.mark.parametrize("version", [None, 1])
async def test_a_version_that_was_replaced_since_it_was_resolved_is_stale(
    start: Start, tmp_path: Path, version: int | None, background: int
) -> None:
    publish(tmp_path / "store", 1, checkpoint())
    async with start() as engine:
        resolved = engine.resolve("digits", version)
        publish(tmp_path / "store", 2, checkpoint(preprocess=DIGITS.model_copy(update={"background": background})))
        await engine.reload("digits", deadline=soon())
        with pytest.raises(Stale):
            await engine.submit(resolved, images(1), top_k=5, deadline=soon())


async def test_more_than_may_wait_is_overloaded(start: Start, tmp_path: Path) -> None:
    publish(tmp_path / "store", 1, checkpoint())
    async with start(max_queue=4) as engine:
        with pytest.raises(Overloaded):
            await engine.submit(engine.resolve(None, None), images(5), top_k=5, deadline=soon())


async def test_past_the_deadline_is_expired(start: Start, tmp_path: Path) -> None:
    publish(tmp_path / "store", 1, checkpoint())
    async with start() as engine:
        with pytest.raises(DeadlineExceeded):
            await engine.submit(engine.resolve(None, None), images(1), top_k=5, deadline=time.monotonic() - 1)


async def test_a_deadline_is_kept_while_the_engine_hangs() -> None:
    engine = ScriptedEngine()
    engine.gate.clear()
    with pytest.raises(DeadlineExceeded):
        await engine.submit(engine.resolve(None, None), images(1), top_k=5, deadline=time.monotonic() + 0.01)
    assert engine.cancelled.get_nowait() is engine.submitted.get_nowait()


async def test_cancelling_a_submit_drops_its_items(start: Start, tmp_path: Path) -> None:
    publish(tmp_path / "store", 1, checkpoint())
    async with start(max_batch=1) as engine:
        task = asyncio.create_task(
            engine.submit(engine.resolve(None, None), images(1) * 1000, top_k=5, deadline=soon())
        )
        await asyncio.sleep(0)
        assert (await engine.status()).waiting_items == 1000
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (await engine.status()).waiting_items == 0


async def test_an_item_that_fails_leaves_its_neighbours_their_answers(start: Start, tmp_path: Path) -> None:
    publish(tmp_path / "store", 1, blind_to_white())
    black, white = (np.full(DIGITS.shape, level, np.uint8) for level in (0, 255))
    async with start() as engine:
        answer = await engine.submit(engine.resolve(None, None), [black, white, black], top_k=5, deadline=soon())
    first, second, third = answer.items
    assert isinstance(second, ItemError)
    assert second.code == "prediction_failed"
    assert len(predictions(first)) == 5
    assert [each.class_index for each in predictions(first)] == [each.class_index for each in predictions(third)]


async def test_an_error_that_the_network_raises_stays_with_its_item(tmp_path: Path) -> None:
    publish(tmp_path / "store", 1, checkpoint())
    async with started(local_engine, tmp_path / "store") as engine:
        good = images(2)
        answer = await engine.submit(
            engine.resolve(None, None), [good[0], good[0][:20], good[1]], top_k=5, deadline=soon()
        )
    assert [isinstance(item, ItemError) for item in answer.items] == [False, True, False]


@pytest.mark.slow
async def test_an_answer_leaves_no_garbage_that_has_to_be_looked_for(start: Start, tmp_path: Path) -> None:
    """Looking for it takes tens of milliseconds once there is much, while everybody waits."""
    publish(tmp_path / "store", 1, checkpoint())
    async with start() as engine:
        target, (image,) = engine.resolve(None, None), images(1)
        await engine.submit(target, [image], top_k=5, deadline=soon())
        gc.collect()
        gc.disable()
        try:
            for _ in range(100):
                await engine.submit(target, [image], top_k=5, deadline=soon())
            assert gc.collect() < 100
        finally:
            gc.enable()


@pytest.mark.slow
async def test_closing_answers_what_was_accepted_and_refuses_what_is_new(start: Start, tmp_path: Path) -> None:
    publish(tmp_path / "store", 1, checkpoint())
    async with start(max_batch=1) as engine:
        target = engine.resolve(None, None)
        waiting = asyncio.create_task(engine.submit(target, images(1) * 200, top_k=5, deadline=soon()))
        await asyncio.sleep(0)
        closing = asyncio.create_task(engine.close())
        await asyncio.sleep(0)
        with pytest.raises(Draining):
            await engine.submit(target, images(1), top_k=5, deadline=soon())
        with pytest.raises(Draining):
            await engine.reload("digits", deadline=soon())
        assert len((await waiting).items) == 200
        await closing


async def test_a_version_says_what_its_manifest_says_of_trust(start: Start, tmp_path: Path) -> None:
    calibration = Calibration(temperature=1.3)
    out_of_distribution = OutOfDistribution(method="max_logit", threshold=2.5)
    publish(
        tmp_path / "store", 1, saying(checkpoint(), calibration=calibration, out_of_distribution=out_of_distribution)
    )
    async with start() as engine:
        (model,) = await engine.models()
    manifest = model.versions[0].manifest
    assert manifest is not None
    assert (manifest.calibration, manifest.out_of_distribution) == (calibration, out_of_distribution)


@pytest.mark.slow
@pytest.mark.skipif(usable_cores() < 2, reason="there is but one core here")
@pytest.mark.parametrize("owns_loop", [False, True])
async def test_photos_for_a_large_network_are_computed_at_once(tmp_path: Path, *, owns_loop: bool) -> None:
    publish(tmp_path / "store", 1, checkpoint(architecture="resnet18", preprocess=LARGE_PHOTOS))
    photo = to_pixels(png(0, (256, 224), "RGB"), LARGE_PHOTOS)
    together = threading.Barrier(2)

    def meet(module: nn.Module, _: Any) -> None:
        if isinstance(module, nn.Conv2d) and module.in_channels == 3:
            together.wait(30)

    async with local_engine(Settings(store=tmp_path / "store", device="cpu"), owns_loop=owns_loop) as engine:
        await engine.started()
        target = engine.resolve(None, None)
        with register_module_forward_pre_hook(meet):
            two = [engine.submit(target, [photo], top_k=1, deadline=soon()) for _ in range(2)]
            for answer in await asyncio.gather(*two):
                assert len(predictions(answer.items[0])) == 1


async def test_what_comes_while_a_small_network_computes_beside_http_is_its_next_batch(tmp_path: Path) -> None:
    publish(tmp_path / "store", 1, checkpoint())
    loop, began, gate = asyncio.get_running_loop(), asyncio.Event(), threading.Event()
    batches: list[int] = []

    def hold(module: nn.Module, taken: Any) -> None:
        if isinstance(module, nn.Conv2d) and module.in_channels == 1:
            batches.append(len(taken[0]))
            loop.call_soon_threadsafe(began.set)
            assert gate.wait(30)

    async with local_engine(Settings(store=tmp_path / "store", device="cpu")) as engine:
        await engine.started()
        target = engine.resolve(None, None)
        with register_module_forward_pre_hook(hold):
            waiting = [asyncio.create_task(engine.submit(target, images(1), top_k=1, deadline=soon()))]
            await began.wait()
            for _ in range(2):
                waiting.append(asyncio.create_task(engine.submit(target, images(1), top_k=1, deadline=soon())))
                for _ in range(10):  # turns of the loop: more than a submit takes until it could be in a batch
                    await asyncio.sleep(0)
            gate.set()
            await asyncio.gather(*waiting)
    assert batches == [1, 2]


@pytest.mark.slow
@pytest.mark.parametrize("owns_loop", [False, True])
async def test_photos_that_a_large_network_computes_at_once_are_answered_as_if_alone(
    tmp_path: Path, *, owns_loop: bool
) -> None:
    content = checkpoint(architecture="resnet18", preprocess=LARGE_PHOTOS)
    publish(tmp_path / "store", 1, content)
    pixels = [to_pixels(png(i, (256, 224), "RGB"), LARGE_PHOTOS) for i in range(12)]
    expected = logits(content.build(), LARGE_PHOTOS, torch.from_numpy(np.stack(pixels))).softmax(dim=1)
    async with local_engine(Settings(store=tmp_path / "store", device="cpu"), owns_loop=owns_loop) as engine:
        await engine.started()
        target = engine.resolve(None, None)
        several = [engine.submit(target, pixels[i : i + 2], top_k=10, deadline=soon()) for i in range(0, 12, 2)]
        items = [item for answer in await asyncio.gather(*several) for item in answer.items]
    for item, row in zip(items, expected, strict=True):
        by_class = {each.class_index: each.probability for each in predictions(item)}
        assert by_class == pytest.approx(dict(enumerate(row.tolist())), abs=1e-4)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
async def test_it_starts_on_a_gpu_and_agrees_with_the_cpu(tmp_path: Path) -> None:
    publish(tmp_path / "store", 1, checkpoint())
    answers = []
    for device in ("cpu", "cuda"):
        async with local_engine(Settings(store=tmp_path / "store", device=device)) as engine:
            assert (await engine.started()).device.startswith(device)
            answers.append(await engine.submit(engine.resolve(None, None), images(20), top_k=10, deadline=soon()))
    for on_cpu, on_gpu in zip(answers[0].items, answers[1].items, strict=True):
        by_label = {each.label: each.probability for each in predictions(on_cpu)}
        assert {each.label: each.probability for each in predictions(on_gpu)} == pytest.approx(by_label, abs=1e-3)


async def test_a_background_task_that_dies_makes_it_not_ready_and_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr("app.lifecycle.storage.list_models", broken)
    publish(tmp_path / "store", 1, checkpoint())
    async with started(
        local_engine, tmp_path / "store"
    ) as engine:  # and who waits for its first look does not wait for ever
        assert str(await engine.failed()) == "a bug"
        status = await engine.status()
        assert not status.ready
        assert "store" in status.detail


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="there is no C++ compiler here")
@pytest.mark.parametrize("owns_loop", [False, True])
async def test_compiled_networks_answer_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, owns_loop: bool
) -> None:
    """And nothing is compiled any more once the version is served: not in another thread, not for more images."""
    from torch._dynamo.utils import counters

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    publish(tmp_path / "store", 1, checkpoint())
    before = counters["stats"]["unique_graphs"]
    settings = Settings(store=tmp_path / "store", device="cpu", compile=True)
    async with local_engine(settings, owns_loop=owns_loop) as engine:
        assert (await engine.started()).ready
        graphs = counters["stats"]["unique_graphs"]
        compiled = await engine.submit(engine.resolve(None, None), images(40), top_k=10, deadline=soon())
        assert before < counters["stats"]["unique_graphs"] == graphs
    async with local_engine(Settings(store=tmp_path / "store", device="cpu")) as engine:
        await engine.started()
        plain = await engine.submit(engine.resolve(None, None), images(40), top_k=10, deadline=soon())
    for one, other in zip(compiled.items, plain.items, strict=True):
        by_label = {each.label: each.probability for each in predictions(other)}
        assert {each.label: each.probability for each in predictions(one)} == pytest.approx(by_label, abs=1e-4)
