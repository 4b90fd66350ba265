"""The simulation of a store that many servers ask, against what can be worked out by hand."""

from dataclasses import replace

import pytest

from benchmarks.scale.store_load import Setup, fetched, simulate

ALONE = Setup(servers=1, shortest_wait=1.0)
TOGETHER = Setup(servers=100, shortest_wait=1.0, started_within_seconds=0.0)


def test_a_server_alone_is_bound_by_its_connection() -> None:
    load = simulate(ALONE)
    assert load.most_fetching == 1
    assert load.first_seconds == load.last_seconds
    slower = simulate(replace(ALONE, connection_bytes=45e6))
    assert slower.last_seconds - load.last_seconds == pytest.approx(1 - 45e6 / 450e6)


def test_servers_that_begin_together_are_bound_by_the_store_and_end_together() -> None:
    load = simulate(TOGETHER)
    assert load.most_fetching == 100
    assert load.last_seconds == pytest.approx(load.first_seconds)
    quicker = simulate(replace(TOGETHER, store_bytes=2.5e9))
    assert load.last_seconds - quicker.last_seconds == pytest.approx(100 * 45e6 / 1.25e9 / 2)


def test_who_begins_later_shares_with_those_who_have_not_ended() -> None:
    setup = Setup(servers=2, shortest_wait=1, connection_bytes=10e6, store_bytes=10e6, version_bytes=100e6)
    # 5 s alone, then 10 s at half the speed; the other has half of its bytes by then.
    assert fetched([0.0, 5.0], setup) == ([15.0, 20.0], 2)
    assert fetched([0.0, 10.0], setup) == ([10.0, 20.0], 1)
    assert fetched([0.0, 30.0], setup) == ([10.0, 40.0], 1)


def test_requests_are_those_of_all_polls() -> None:
    load = simulate(replace(TOGETHER, models=4))
    assert load.requests_a_second == pytest.approx(100 * 5 / 10)
    assert load.peak_requests == 500  # as all ask together for ever
    assert load.fetched_bytes == 100 * 45e6


def test_waits_of_random_length_take_the_peak_away() -> None:
    none, half = (simulate(replace(TOGETHER, shortest_wait=shortest)) for shortest in (1.0, 0.5))
    assert half.peak_requests < none.peak_requests / 10
    assert half.requests_a_second == pytest.approx(none.requests_a_second * 4 / 3, rel=0.02)


def test_the_same_seed_gives_the_same_load() -> None:
    setup = Setup(servers=10, shortest_wait=0.5)
    assert simulate(setup, seed=3) == simulate(setup, seed=3) != simulate(setup, seed=4)
