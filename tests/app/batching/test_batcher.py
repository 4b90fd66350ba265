"""The batcher owns_loop, with ints for images and a gate for the device."""

import asyncio
import time
import weakref
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from app.batching.batcher import Batcher, Lane
from app.engine.errors import DeadlineExceeded, Draining, Overloaded
from tests.support.lanes import submit

pytestmark = pytest.mark.anyio


class Device:
    """Computes tens when its gate is open; `poison` makes a batch fail."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.gate.set()
        self.batches: list[list[int]] = []
        self.poison: set[int] = set()
        self.began = asyncio.Event()

    async def compute(self, items: Sequence[int]) -> list[int]:
        self.batches.append(list(items))
        self.began.set()
        await self.gate.wait()
        if self.poison & set(items):
            raise ValueError("poisoned")
        return [10 * item for item in items]

    async def busy(self, lane: "Lane[int, int]") -> "asyncio.Task[list[int | Exception]]":
        """Occupies the device with item 0 until the gate opens."""
        self.gate.clear()
        self.began.clear()
        task = asyncio.create_task(submit(lane, [0], deadline=soon()))
        await self.began.wait()
        return task


def soon() -> float:
    return time.monotonic() + 30


@asynccontextmanager
async def running(
    *, max_items: int = 8, max_waiting: int = 100, max_concurrent: int = 1, clock: Callable[[], float] = time.monotonic
) -> AsyncIterator[tuple[Batcher, Device, "Lane[int, int]"]]:
    batcher = Batcher(
        max_items=max_items, max_seconds=60, max_waiting=max_waiting, max_concurrent=max_concurrent, clock=clock
    )
    device = Device()
    lane = batcher.lane(device.compute)
    lane.cost.observe(1, 1e-6)  # known to be fast: batches are limited by number alone
    task = asyncio.create_task(batcher.run())
    try:
        yield batcher, device, lane
    except BaseException:
        task.cancel()  # nobody opens the gates of a test that has failed
        await asyncio.wait([task])
        raise
    batcher.close()
    device.gate.set()
    await task


async def submitted(lane: "Lane[int, int]", *groups: list[int]) -> "list[asyncio.Task[list[int | Exception]]]":
    """A waiting submit for each group."""
    tasks = [asyncio.create_task(submit(lane, group, deadline=soon())) for group in groups]
    await asyncio.sleep(0)
    return tasks


async def test_a_lone_item_is_computed_at_once() -> None:
    async with running() as (_, device, lane):
        assert await submit(lane, [7], deadline=soon()) == [70]
        assert device.batches == [[7]]


async def test_whatever_waits_when_the_device_is_free_goes_together() -> None:
    async with running() as (_, device, lane):
        first = await device.busy(lane)
        tasks = await submitted(lane, [1], [2, 3], [4])
        device.gate.set()
        assert [await task for task in tasks] == [[10], [20, 30], [40]]
        assert await first == [0]
        assert device.batches == [[0], [1, 2, 3, 4]]


async def test_a_batch_has_max_items_at_the_most_and_a_large_submit_spans_several() -> None:
    async with running(max_items=4) as (_, device, lane):
        await device.busy(lane)
        tasks = await submitted(lane, [1, 2, 3], list(range(4, 10)), [10])
        device.gate.set()
        assert [await task for task in tasks] == [[10, 20, 30], [40, 50, 60, 70, 80, 90], [100]]
        assert device.batches[1:] == [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10]]


@pytest.mark.parametrize(
    ("groups", "sizes"),
    [
        ([[1], [2], [3], [4], [5]], [2, 2, 1]),
        ([[1, 2, 3, 4, 5]], [4, 1]),
        ([[1, 2, 3], [4], [5, 6]], [3, 2, 1]),
        ([[1], [2, 3], [4]], [2, 2]),
        ([[1], [2], [3], [4], [5], [6]], [3, 2, 1]),  # half of those that wait, where that is more
    ],
)
async def test_a_lane_may_put_few_items_together_but_those_of_one_caller_stay_so(
    groups: list[list[int]], sizes: list[int]
) -> None:
    async with running(max_items=4) as (batcher, device, lane):
        own = batcher.lane(device.compute, preferred_batch=2)
        own.cost.observe(1, 1e-6)
        first = await device.busy(lane)
        tasks = await submitted(own, *groups)
        device.gate.set()
        await first
        assert [await task for task in tasks] == [[10 * item for item in group] for group in groups]
        assert [len(batch) for batch in device.batches[1:]] == sizes


async def test_a_full_queue_refuses_a_submit_whole_and_takes_the_next_when_there_is_room() -> None:
    async with running(max_waiting=4) as (batcher, device, lane):
        await device.busy(lane)
        (waiting,) = await submitted(lane, [1, 2, 3])
        with pytest.raises(Overloaded):
            await submit(lane, [4, 5], deadline=soon())
        assert batcher.waiting == 3
        device.gate.set()
        assert await waiting == [10, 20, 30]
        assert await submit(lane, [4, 5], deadline=soon()) == [40, 50]
        assert batcher.waiting == 0


async def test_a_cancelled_caller_is_not_computed_and_its_neighbours_are() -> None:
    async with running() as (batcher, device, lane):
        await device.busy(lane)
        before, leaving, after = await submitted(lane, [1], [2, 3], [4])
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        assert batcher.waiting == 2
        device.gate.set()
        assert (await before, await after) == ([10], [40])
        assert device.batches[1:] == [[1, 4]]


async def test_a_caller_that_leaves_the_moment_the_device_is_free_is_not_computed() -> None:
    async with running() as (_, device, lane):
        await device.busy(lane)
        leaving, staying = await submitted(lane, [1], [2])
        device.gate.set()
        leaving.cancel()  # the batch is formed before the caller's own task has run again
        assert await staying == [20]
        assert device.batches[1:] == [[2]]


async def test_a_caller_that_leaves_while_it_is_computed_disturbs_nobody() -> None:
    async with running() as (batcher, device, lane):
        await device.busy(lane)
        leaving, staying = await submitted(lane, [1], [2])
        device.began.clear()
        gate, device.gate = device.gate, asyncio.Event()
        gate.set()
        await device.began.wait()
        leaving.cancel()
        device.gate.set()
        assert await staying == [20]
        assert leaving.cancelled()
        assert batcher.waiting == 0


async def test_the_places_of_those_who_left_are_free_again() -> None:
    async with running(max_waiting=2) as (_, device, lane):
        await device.busy(lane)
        (leaving,) = await submitted(lane, [1, 2])
        leaving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await leaving
        (next_one,) = await submitted(lane, [3, 4])
        device.gate.set()
        assert await next_one == [30, 40]


async def test_what_is_past_its_deadline_when_the_batch_is_formed_costs_no_compute() -> None:
    now = 1000.0
    async with running(clock=lambda: now) as (batcher, device, lane):
        device.gate.clear()
        first = asyncio.create_task(submit(lane, [0], deadline=2000))
        await device.began.wait()
        late = asyncio.create_task(submit(lane, [1], deadline=1010))
        patient = asyncio.create_task(submit(lane, [2], deadline=2000))
        await asyncio.sleep(0)
        now = 1020.0
        device.gate.set()
        with pytest.raises(DeadlineExceeded):
            await late
        assert (await first, await patient) == ([0], [20])
        assert device.batches == [[0], [2]]
        assert batcher.waiting == 0


async def test_a_deadline_that_has_passed_is_refused_at_once() -> None:
    async with running() as (_, device, lane):
        with pytest.raises(DeadlineExceeded):
            await submit(lane, [1], deadline=time.monotonic() - 1)
        assert device.batches == []


async def test_one_poisoned_item_of_eight_fails_owns_loop() -> None:
    async with running() as (_, device, lane):
        await device.busy(lane)
        tasks = await submitted(lane, *([i] for i in range(1, 9)))
        device.poison = {5}
        device.gate.set()
        results = [(await task)[0] for task in tasks]
        assert results[:4] + results[5:] == [10, 20, 30, 40, 60, 70, 80]
        assert isinstance(results[4], ValueError)
        assert max(map(len, device.batches)) == 8


async def test_a_poisoned_item_leaves_its_own_submit_the_other_answers() -> None:
    async with running() as (_, device, lane):
        device.poison = {2}
        first, second, third = await submit(lane, [1, 2, 3], deadline=soon())
        assert (first, third) == (10, 30)
        assert isinstance(second, ValueError)


async def test_closing_refuses_what_is_new_and_answers_what_waits() -> None:
    batcher = Batcher(max_items=2, max_seconds=60, max_waiting=100)
    device = Device()
    lane = batcher.lane(device.compute)
    task = asyncio.create_task(batcher.run())
    await device.busy(lane)
    waiting = await submitted(lane, [1], [2], [3])
    batcher.close()
    with pytest.raises(Draining):
        await submit(lane, [4], deadline=soon())
    device.gate.set()
    assert [await each for each in waiting] == [[10], [20], [30]]
    await task


async def test_a_batcher_that_dies_fails_what_waits_instead_of_leaving_it_hanging() -> None:
    batcher = Batcher(max_items=2, max_seconds=60, max_waiting=100)
    device = Device()
    lane = batcher.lane(device.compute)
    task = asyncio.create_task(batcher.run())
    in_batch = await device.busy(lane)
    (waiting,) = await submitted(lane, [1])
    task.cancel()
    for each in (in_batch, waiting):
        with pytest.raises(Draining):
            await each


async def test_a_batch_with_too_few_results_is_split_like_one_that_failed() -> None:
    batcher = Batcher(max_items=8, max_seconds=60, max_waiting=100)

    async def forgetful(items: Sequence[int]) -> list[int]:
        return [10 * item for item in items if item != 2]

    lane = batcher.lane(forgetful)
    lane.cost.observe(1, 1e-6)
    task = asyncio.create_task(batcher.run())
    first, second, third = await submit(lane, [1, 2, 3], deadline=soon())
    assert (first, third) == (10, 30)
    assert isinstance(second, RuntimeError)
    batcher.close()
    await task


async def test_a_batcher_that_dies_while_it_splits_leaves_nobody_waiting() -> None:
    batcher = Batcher(max_items=8, max_seconds=60, max_waiting=100)
    alone = asyncio.Event()

    async def fails_then_hangs(items: Sequence[int]) -> list[int]:
        if len(items) > 1:
            raise ValueError("too many")
        alone.set()
        await asyncio.get_running_loop().create_future()
        raise AssertionError("nobody sets it")

    lane = batcher.lane(fails_then_hangs)
    lane.cost.observe(1, 1e-6)
    waiting = await submitted(lane, [1], [2], [3], [4])
    task = asyncio.create_task(batcher.run())
    await alone.wait()
    task.cancel()
    for each in waiting:
        with pytest.raises(Draining):
            await each


async def test_what_was_computed_last_is_not_kept() -> None:
    """A lane is all that holds a version's weights, and a replaced one may be the last that was asked."""
    batcher = Batcher(max_items=8, max_seconds=60, max_waiting=100)
    task = asyncio.create_task(batcher.run())
    lane = batcher.lane(Device().compute)
    assert await submit(lane, [7], deadline=soon()) == [70]
    await asyncio.sleep(0)  # the batcher waits again
    last = weakref.ref(lane)
    del lane
    assert last() is None
    batcher.close()
    await task


async def test_a_flood_in_one_lane_does_not_hold_up_another() -> None:
    async with running(max_items=2) as (batcher, device, lane):
        other = batcher.lane(device.compute)
        other.cost.observe(1, 1e-6)
        await device.busy(lane)
        flood = await submitted(lane, list(range(1, 9)))
        (quiet,) = await submitted(other, [100])
        device.gate.set()
        assert await quiet == [1000]
        assert (await flood[0])[-1] == 80
        assert device.batches.index([100]) == 2


async def test_batches_of_two_lanes_are_never_mixed() -> None:
    async with running() as (batcher, device, lane):
        other = batcher.lane(device.compute)
        await device.busy(lane)
        tasks = await submitted(lane, [1]) + await submitted(other, [2]) + await submitted(lane, [3])
        device.gate.set()
        assert [await task for task in tasks] == [[10], [20], [30]]
        assert device.batches[1:] == [[1, 3], [2]]


class TwoDevices:
    """Each batch waits for its own gate; what it computes is tens."""

    def __init__(self) -> None:
        self.begun: asyncio.Queue[tuple[list[int], asyncio.Event]] = asyncio.Queue()

    async def compute(self, items: Sequence[int]) -> list[int]:
        gate = asyncio.Event()
        self.begun.put_nowait((list(items), gate))
        await gate.wait()
        return [10 * item for item in items]

    async def batch(self) -> tuple[list[int], asyncio.Event]:
        async with asyncio.timeout(30):
            return await self.begun.get()


async def test_two_batches_may_be_in_progress_and_each_caller_gets_its_own_rows_whichever_ends_first() -> None:
    async with running(max_concurrent=2) as (batcher, _, _):
        device = TwoDevices()
        lane = batcher.lane(device.compute)
        lane.cost.observe(1, 1e-6)
        (first,) = await submitted(lane, [1, 2])
        one, open_one = await device.batch()
        (second,) = await submitted(lane, [3])
        other, open_other = await device.batch()
        (third,) = await submitted(lane, [4, 5])
        assert (one, other) == ([1, 2], [3])
        open_other.set()
        assert await second == [30]
        last, open_last = await device.batch()
        assert last == [4, 5]
        open_last.set()
        assert await third == [40, 50]
        assert not first.done()
        open_one.set()
        assert await first == [10, 20]
        assert batcher.waiting == 0


async def test_no_more_batches_are_in_progress_than_may_be() -> None:
    async with running(max_concurrent=2, max_items=1) as (batcher, _, _):
        device = TwoDevices()
        lane = batcher.lane(device.compute)
        waiting = await submitted(lane, [1], [2], [3])
        gates = [(await device.batch())[1] for _ in range(2)]
        await asyncio.sleep(0)
        assert device.begun.empty()
        for gate in gates:
            gate.set()
        (await device.batch())[1].set()
        assert [await each for each in waiting] == [[10], [20], [30]]


async def test_what_comes_while_a_batch_of_a_lane_in_turn_is_computed_is_all_in_the_next_one() -> None:
    async with running(max_concurrent=2) as (batcher, _, _):
        device = TwoDevices()
        lane = batcher.lane(device.compute, exclusive=True)
        lane.cost.observe(1, 1e-6)
        waiting = await submitted(lane, [1])
        first, open_first = await device.batch()
        for number in (2, 3):
            waiting += await submitted(lane, [number])
            await asyncio.sleep(0)
        assert device.begun.empty()
        open_first.set()
        second, open_second = await device.batch()
        assert (first, second) == ([1], [2, 3])
        open_second.set()
        assert [await each for each in waiting] == [[10], [20], [30]]


async def test_a_lane_in_turn_computes_beside_a_batch_of_another() -> None:
    async with running(max_concurrent=2) as (batcher, _, _):
        device = TwoDevices()
        (other,) = await submitted(batcher.lane(device.compute), [1])
        _, open_other = await device.batch()
        (waiting,) = await submitted(batcher.lane(device.compute, exclusive=True), [2])
        _, open_one = await device.batch()
        open_one.set()
        assert await waiting == [20]
        open_other.set()
        assert await other == [10]


@pytest.mark.parametrize("max_concurrent", [1, 4])
async def test_batches_that_are_computed_without_waiting_are_no_smaller_and_no_later_where_several_may_be_in_progress(
    max_concurrent: int,
) -> None:
    """Clients that ask again as soon as they are on_done: who was in the first batch is not in the second."""
    batches: list[list[int]] = []

    async def compute(items: Sequence[int]) -> list[int]:
        batches.append(list(items))
        return [10 * item for item in items]

    async def client(number: int) -> None:
        for _ in range(3):
            assert await submit(lane, [number], deadline=soon()) == [10 * number]

    async with running(max_items=4, max_concurrent=max_concurrent) as (batcher, _, _):
        lane = batcher.lane(compute)
        lane.cost.observe(1, 1e-6)
        async with asyncio.timeout(30), asyncio.TaskGroup() as group:
            for number in range(6):
                group.create_task(client(number))
    assert batches[:3] == [[0, 1, 2, 3], [4, 5, 0, 1], [2, 3, 4, 5]]
    assert [len(batch) for batch in batches] == [4, 4, 4, 4, 2]


async def test_one_submit_may_be_in_two_batches_at_a_time_and_is_answered_in_its_order() -> None:
    async with running(max_concurrent=2, max_items=2) as (batcher, _, _):
        device = TwoDevices()
        lane = batcher.lane(device.compute)
        lane.cost.observe(1, 1e-6)
        (waiting,) = await submitted(lane, [1, 2, 3])
        one, open_one = await device.batch()
        other, open_other = await device.batch()
        assert (one, other) == ([1, 2], [3])
        open_other.set()
        await asyncio.sleep(0)
        assert not waiting.done()
        open_one.set()
        assert await waiting == [10, 20, 30]


async def test_two_at_once_close_after_all_was_answered() -> None:
    batcher = Batcher(max_items=1, max_seconds=60, max_waiting=100, max_concurrent=2)
    device = TwoDevices()
    lane = batcher.lane(device.compute)
    task = asyncio.create_task(batcher.run())
    waiting = await submitted(lane, [1], [2], [3])
    gates = [(await device.batch())[1] for _ in range(2)]
    batcher.close()
    with pytest.raises(Draining):
        await submit(lane, [4], deadline=soon())
    for gate in gates:
        gate.set()
    (await device.batch())[1].set()
    assert [await each for each in waiting] == [[10], [20], [30]]
    async with asyncio.timeout(30):
        await task


async def test_two_at_once_close_when_nothing_waits() -> None:
    async with asyncio.timeout(30), running(max_concurrent=2) as (_, device, lane):
        assert await submit(lane, [1], deadline=soon()) == [10]
        assert device.batches == [[1]]


async def test_two_at_once_that_die_leave_nobody_waiting() -> None:
    batcher = Batcher(max_items=1, max_seconds=60, max_waiting=100, max_concurrent=2)
    device = TwoDevices()
    lane = batcher.lane(device.compute)
    task = asyncio.create_task(batcher.run())
    waiting = await submitted(lane, [1], [2], [3])
    for _ in range(2):
        await device.batch()
    task.cancel()
    for each in waiting:
        with pytest.raises(Draining):
            await each


class Outcomes:
    """What was told, by the name of who was told."""

    def __init__(self) -> None:
        self.told: list[tuple[str, object]] = []

    def of(self, name: str) -> Callable[[object], None]:
        return lambda outcome: self.told.append((name, outcome))


async def test_who_puts_items_is_told_once_what_became_of_them() -> None:
    async with running() as (_, device, lane):
        outcomes = Outcomes()
        device.poison = {3}
        lane.submit_nowait([1, 2], deadline=soon(), on_done=outcomes.of("sound"))
        lane.submit_nowait([3], deadline=soon(), on_done=outcomes.of("poisoned"))
        assert await submit(lane, [4], deadline=soon()) == [40]
        told = dict(outcomes.told)
        assert len(outcomes.told) == len(told) == 2
        assert told["sound"] == [10, 20]
        assert isinstance(told["poisoned"], list)
        assert [type(error) for error in told["poisoned"]] == [ValueError]


async def test_what_cannot_be_put_is_refused_and_nobody_is_told() -> None:
    async with running(max_waiting=2) as (batcher, device, lane):
        outcomes = Outcomes()
        await device.busy(lane)
        with pytest.raises(Overloaded):
            lane.submit_nowait([1, 2, 3], deadline=soon(), on_done=outcomes.of("too many"))
        with pytest.raises(DeadlineExceeded):
            lane.submit_nowait([1], deadline=time.monotonic() - 1, on_done=outcomes.of("late"))
        batcher.close()
        with pytest.raises(Draining):
            lane.submit_nowait([1], deadline=soon(), on_done=outcomes.of("closed"))
        assert batcher.waiting == 0
    assert outcomes.told == []


async def test_what_was_put_and_is_late_when_the_batch_is_formed_is_told_so() -> None:
    now = 1000.0
    async with running(clock=lambda: now) as (batcher, device, lane):
        outcomes = Outcomes()
        device.gate.clear()
        first = asyncio.create_task(submit(lane, [0], deadline=2000))
        await device.began.wait()
        lane.submit_nowait([1, 2], deadline=1010, on_done=outcomes.of("late"))
        now = 1020.0
        device.gate.set()
        assert await first == [0]
        assert await submit(lane, [3], deadline=2000) == [30]
        ((_, error),) = outcomes.told
        assert isinstance(error, DeadlineExceeded)
        assert device.batches == [[0], [3]]
        assert batcher.waiting == 0


async def test_what_was_put_and_dropped_is_not_computed_and_nobody_is_told() -> None:
    async with running() as (batcher, device, lane):
        outcomes = Outcomes()
        first = await device.busy(lane)
        dropped = lane.submit_nowait([1, 2], deadline=soon(), on_done=outcomes.of("dropped"))
        lane.submit_nowait([3], deadline=soon(), on_done=outcomes.of("kept"))
        assert batcher.waiting == 3
        lane.cancel(dropped)
        lane.cancel(dropped)
        assert batcher.waiting == 1
        device.gate.set()
        await first
        assert await submit(lane, [4], deadline=soon()) == [40]
        assert outcomes.told == [("kept", [30])]
        assert all(1 not in batch for batch in device.batches)


async def test_what_is_dropped_while_it_is_computed_is_told_to_nobody() -> None:
    async with running() as (batcher, device, lane):
        outcomes = Outcomes()
        device.gate.clear()
        dropped = lane.submit_nowait([1], deadline=soon(), on_done=outcomes.of("dropped"))
        await device.began.wait()
        lane.cancel(dropped)
        device.gate.set()
        assert await submit(lane, [2], deadline=soon()) == [20]
        assert outcomes.told == []
        assert batcher.waiting == 0


async def test_a_batch_is_no_larger_than_what_fits_the_time_it_may_take() -> None:
    batcher = Batcher(max_items=64, max_seconds=0.05, max_waiting=100)
    device = Device()
    lane = batcher.lane(device.compute)
    for items in (1, 2, 4):
        lane.cost.observe(items, 0.010 + 0.008 * items)
    task = asyncio.create_task(batcher.run())
    assert len(await submit(lane, list(range(20)), deadline=soon())) == 20
    assert len(device.batches[0]) == 5
    batcher.close()
    await task
