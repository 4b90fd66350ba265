"""When a process that has ended is started again, by a clock that the test sets."""

import pytest

from app.processes.restarts import RestartPolicy


class Process:
    """Lives and ends by a clock of its own."""

    def __init__(self) -> None:
        self.now = 0.0
        self.policy = RestartPolicy(clock=lambda: self.now)

    def live(self, seconds: float) -> float | None:
        """How long it waits then, before it is started again."""
        self.policy.started()
        self.now += seconds
        wait = self.policy.ended()
        self.now += wait or 0
        return wait


@pytest.fixture
def process() -> Process:
    return Process()


@pytest.mark.parametrize("seconds", [0, 11, 3600])
def test_the_first_restart_is_at_once(process: Process, seconds: float) -> None:
    assert process.live(seconds) == 0


def test_each_further_one_in_a_row_waits_longer_up_to_half_a_minute(process: Process) -> None:
    assert [process.live(11) for _ in range(10)] == [0, 0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_ten_minutes_without_an_end_are_the_end_of_a_row(process: Process) -> None:
    assert [process.live(seconds) for seconds in (11, 11, 11, 599, 600, 11)] == [0, 0.5, 1, 2, 0, 0.5]


def test_what_ends_within_ten_seconds_three_times_in_a_row_is_given_up(process: Process) -> None:
    assert [process.live(9.9) for _ in range(3)] == [0, 0.5, None]


def test_a_longer_life_between_two_short_ones_is_a_new_chance(process: Process) -> None:
    assert None not in [process.live(seconds) for seconds in (1, 1, 10, 1, 1, 10, 1, 1)]


def test_the_wait_is_no_part_of_the_life(process: Process) -> None:
    for _ in range(8):
        process.live(11)
    assert process.live(1) == process.live(1) == 30
    assert process.live(1) is None
