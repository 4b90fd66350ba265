"""Batches at once, captured batches, and what becomes of a batch for which there is no memory.

Captured is by a CPU twin of CUDA graphs, which runs the same forward pass over the same buffers again.
"""

import gc
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from app.engine.rows import Item
from app.inference.predictor import Predictor
from app.inference.slots import Replay
from classifier.preprocess import Pixels
from tests.support.checkpoints import DIGITS, PHOTOS, checkpoint, logits, png, to_pixels

CPU = torch.device("cpu")
IMAGES = [to_pixels(png(i)) for i in range(24)]


class Twin:
    """A `Capture`.

    Args:
        room: of how many images a batch may be captured.
    """

    def __init__(self, *, room: int = 1000) -> None:
        self.room = room
        self.captured: list[int] = []
        self.replayed: list[int] = []

    def __call__(self, run: Callable[[], torch.Tensor]) -> tuple[Replay, torch.Tensor]:
        made = run()
        size = len(made)
        if size > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

        def replay() -> None:
            self.replayed.append(size)
            made.copy_(run())

        self.captured.append(size)
        return replay, made


def watched(hook: Callable[[int], object], *, max_items: int = 16, slots: int = 1) -> Predictor:
    """The hook is told, in the computing thread, of how many images a forward pass is about to be."""
    content = checkpoint()
    network = content.build()

    def before(module: nn.Module, arguments: tuple[Any, ...]) -> None:
        hook(len(arguments[0]))

    network.register_forward_pre_hook(before)
    return Predictor(network, content.manifest, device=CPU, max_items=max_items, slots=slots)


def predictor(*, max_items: int = 16, slots: int = 1, device: str = "cpu", precision: str = "fp32") -> Predictor:
    content = checkpoint()
    return Predictor(
        content.build(),
        content.manifest,
        device=torch.device(device),
        max_items=max_items,
        slots=slots,
        precision=precision,
    )


def assert_right(model: Predictor, images: list[Pixels]) -> None:
    """Complete, in order, and what the network alone says."""
    expected = logits(checkpoint().build(), DIGITS, torch.from_numpy(np.stack(images)))
    torch.testing.assert_close(model.logits(images), expected, rtol=1e-4, atol=1e-5)
    rows = model.predict([Item(image, 10) for image in images])
    assert [int(row[10]) for row in rows] == expected.argmax(dim=1).tolist()


def test_a_batch_is_computed_by_the_smallest_captured_one_that_holds_it() -> None:
    model, twin = predictor(max_items=12), Twin()
    model.warm_up(lambda: twin)
    assert twin.captured == [12, 8, 4, 2, 1]
    for count in (1, 2, 3, 4, 5, 8, 9, 12):
        model.logits(IMAGES[:count])
    assert twin.replayed == [1, 2, 4, 4, 8, 8, 12, 12]
    assert_right(model, IMAGES[:12])


def test_images_of_earlier_batches_beyond_a_batch_do_no_harm() -> None:
    model = predictor(max_items=8)
    model.warm_up(Twin)
    model.logits([np.full(DIGITS.shape, 255, np.uint8)] * 8)
    for count in (5, 3, 1, 7):
        assert_right(model, IMAGES[:count])


def test_what_was_answered_is_not_overwritten_by_the_next_batch() -> None:
    model = predictor()
    model.warm_up(Twin)
    images, others = IMAGES[:3], IMAGES[3:6]
    answered, rows = model.logits(images), model.predict([Item(image, 10) for image in images])
    before = answered.clone(), np.stack(rows)
    model.logits(others)
    model.predict([Item(image, 10) for image in others])
    assert torch.equal(answered, before[0])
    assert np.array_equal(np.stack(rows), before[1])


def test_each_slot_captures_for_itself() -> None:
    twins: list[Twin] = []
    model = predictor(max_items=4, slots=3)
    model.warm_up(lambda: twins.append(Twin()) or twins[-1])  # type: ignore[func-returns-value]
    assert [twin.captured for twin in twins] == [[4, 2, 1]] * 3


def test_a_network_that_cannot_be_captured_is_served_without(caplog: pytest.LogCaptureFixture) -> None:
    def cannot(run: Callable[[], torch.Tensor]) -> tuple[Replay, torch.Tensor]:
        raise RuntimeError("CUDA error: operation not permitted when stream is capturing\nmore of it")

    model = predictor()
    model.warm_up(lambda: cannot)
    assert model.max_items == 16
    assert_right(model, IMAGES)
    (record,) = caplog.records
    assert record.__dict__["values"]["reason"].endswith("when stream is capturing")


def test_where_memory_does_not_hold_the_largest_batches_captured_they_become_smaller() -> None:
    model, twin = predictor(max_items=16), Twin(room=5)
    model.warm_up(lambda: twin)
    assert twin.captured == [4, 2, 1]
    assert model.max_items == 4
    assert_right(model, IMAGES[:11])
    assert twin.replayed == [4, 4, 4] * 2  # the last of three images


def test_the_slot_with_the_least_room_decides() -> None:
    rooms = iter([100, 2, 100])
    model = predictor(max_items=8, slots=3)
    model.warm_up(lambda: Twin(room=next(rooms)))
    assert model.max_items == 2
    for _ in range(3):
        assert_right(model, IMAGES[:5])


def test_where_not_even_one_image_can_be_captured_there_is_too_little_memory() -> None:
    with pytest.raises(torch.OutOfMemoryError):
        predictor().warm_up(lambda: Twin(room=0))


NO_MEMORY = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."),
    RuntimeError("MPS backend out of memory (MPS allocated: 17 GB)"),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 4 bytes"),
]


@pytest.mark.parametrize("error", NO_MEMORY)
def test_a_batch_for_which_there_is_no_memory_is_halved_and_the_next_ones_are_no_larger(
    error: RuntimeError, caplog: pytest.LogCaptureFixture
) -> None:
    counts: list[int] = []

    def hook(count: int) -> None:
        counts.append(count)
        if count > 5:
            raise error

    model = watched(hook, max_items=16)
    assert len(model.logits(IMAGES)) == len(IMAGES)
    assert counts == [16, 8, 4, 4, 4, 4, 4, 4]
    assert model.max_items == 4
    assert [record.__dict__["values"]["max_items"] for record in caplog.records] == [8, 4]
    counts.clear()
    assert_right(model, IMAGES)
    assert set(counts) == {4}


def test_memory_that_runs_out_in_the_middle_leaves_what_was_computed() -> None:
    counts: list[int] = []

    def hook(count: int) -> None:
        counts.append(count)
        if len(counts) == 3:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model = watched(hook, max_items=8)
    assert len(model.predict([Item(image, 1) for image in IMAGES])) == 24
    assert counts == [8, 8, 8, 4, 4]
    assert_right(model, IMAGES)


def test_without_memory_for_one_image_it_is_that_images_error_and_the_slot_is_free_again() -> None:
    failing = [True]

    def hook(count: int) -> None:
        if failing[0]:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model = watched(hook, max_items=4)
    with pytest.raises(torch.OutOfMemoryError):
        model.logits(IMAGES[:4])
    failing[0] = False
    assert model.max_items == 1
    assert_right(model, IMAGES[:4])


@pytest.mark.timeout(60)
def test_a_slot_is_free_again_after_an_error_in_it() -> None:
    model = predictor(slots=2)
    for _ in range(5):
        with pytest.raises(ValueError, match="shape"):
            model.logits([IMAGES[0], IMAGES[0][:20]])
        with pytest.raises(ValueError, match="shape"):
            model.logits([IMAGES[0][:1]])  # which could be spread over the whole image
    assert_right(model, IMAGES)


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(8) as pool:
        yield pool


@pytest.mark.timeout(60)
def test_as_many_threads_compute_at_once_as_there_are_slots_and_each_gets_its_own_rows(
    pool: ThreadPoolExecutor,
) -> None:
    together = threading.Barrier(3)
    model = watched(lambda _: together.wait(30), slots=3)
    tasks = [pool.submit(model.logits, IMAGES[start : start + 8]) for start in (0, 8, 16)]
    computed = torch.cat([task.result(30) for task in tasks])
    expected = logits(checkpoint().build(), DIGITS, torch.from_numpy(np.stack(IMAGES)))
    torch.testing.assert_close(computed, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.timeout(60)
@pytest.mark.parametrize("captured", [False, True])
def test_more_threads_than_slots_wait_for_one(pool: ThreadPoolExecutor, *, captured: bool) -> None:
    counting, pairs = threading.Lock(), threading.Barrier(2)
    inside, most, warm = 0, 0, not captured

    def hook(count: int) -> None:
        nonlocal inside, most
        if not warm:
            return
        with counting:
            inside += 1
            most = max(most, inside)
        pairs.wait(30)
        with counting:
            inside -= 1
        pairs.wait(30)

    model = watched(hook, slots=2)
    if captured:
        model.warm_up(Twin)
        warm = True
    tasks = [pool.submit(model.logits, IMAGES[i : i + 3]) for i in range(8)]
    expected = logits(checkpoint().build(), DIGITS, torch.from_numpy(np.stack(IMAGES)))
    for i, task in enumerate(tasks):
        torch.testing.assert_close(task.result(30), expected[i : i + 3], rtol=1e-4, atol=1e-5)
    assert most == 2


@pytest.mark.timeout(60)
@pytest.mark.parametrize("fails", [False, True])
def test_a_batch_in_progress_while_another_finds_out_that_there_is_less_memory_is_complete_and_changes_nothing(
    pool: ThreadPoolExecutor, *, fails: bool
) -> None:
    began, go_on = threading.Event(), threading.Event()
    counts: list[int] = []

    def hook(count: int) -> None:
        counts.append(count)
        if len(counts) == 1:
            began.set()
            assert go_on.wait(30)
            if not fails:
                return
        if count > 4:
            raise torch.OutOfMemoryError("CUDA out of memory")

    model = watched(hook, max_items=16, slots=2)
    first = pool.submit(model.logits, IMAGES[:16])
    assert began.wait(30)
    second = model.logits(IMAGES[:16])
    assert model.max_items == 4
    go_on.set()
    torch.testing.assert_close(first.result(30), second, rtol=1e-4, atol=1e-5)
    assert model.max_items == 4
    assert counts == [16, 16, 8, 4, 4, 4, 4] + [4, 4, 4, 4] * fails


@pytest.mark.slow
def test_the_weights_go_with_the_predictor_and_not_only_when_garbage_is_looked_for() -> None:
    content = checkpoint()
    network = content.build()
    last = weakref.ref(network)
    gc.collect()
    gc.disable()
    try:
        model = Predictor(network, content.manifest, device=CPU, max_items=4, slots=2)
        model.predict([Item(IMAGES[0], 1)])
        del network, model
        assert last() is None
    finally:
        gc.enable()


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize(("architecture", "preprocess"), [("mnist_cnn", DIGITS), ("resnet18", PHOTOS)])
def test_replayed_graphs_say_what_the_forward_pass_says(architecture: str, preprocess: Any, precision: str) -> None:
    content = checkpoint(architecture=architecture, preprocess=preprocess)
    images = [to_pixels(png(i, preprocess.shape[1::-1], preprocess.mode), preprocess) for i in range(9)]
    called, replayed = (
        Predictor(
            content.build(), content.manifest, device=torch.device("cuda"), max_items=8, slots=2, precision=precision
        )
        for _ in range(2)
    )
    replayed.warm_up()
    allowed = {"fp32": 1e-3, "bf16": 1e-1}[precision]
    for count in (1, 3, 8, 9, 2):
        expected = called.logits(images[:count])
        torch.testing.assert_close(replayed.logits(images[:count]), expected, rtol=allowed, atol=allowed)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
def test_two_streams_at_once_mix_nothing_up(pool: ThreadPoolExecutor) -> None:
    model = predictor(device="cuda", slots=2)
    model.warm_up()
    expected = logits(checkpoint().build(), DIGITS, torch.from_numpy(np.stack(IMAGES)))
    for _ in range(20):
        tasks = [pool.submit(model.logits, IMAGES[i : i + 7]) for i in range(16)]
        for i, task in enumerate(tasks):
            torch.testing.assert_close(task.result(30), expected[i : i + 7], rtol=1e-3, atol=1e-3)
