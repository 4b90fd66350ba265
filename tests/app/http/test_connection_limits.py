"""The limits of a connection as rules: who gets in, what is too much, what is late, and how a connection ends."""

from typing import get_args

import pytest

from app.http.connection_limits import (
    LINGER_BYTES,
    MAX_HEADERS_BYTES,
    ConnectionLimits,
    Entry,
    OpenConnections,
    Place,
    Rejection,
)

PLACES = get_args(Place)


def in_place(place: Place) -> ConnectionLimits:
    limits = ConnectionLimits()
    if place != "between":
        limits.message_begun()
    if place == "body":
        limits.headers_complete()
    assert limits.place == place
    return limits


class TestOpenConnections:
    def test_as_many_as_may_be_are_accepted_as_many_more_are_told_so_others_are_aborted(self) -> None:
        connections = OpenConnections(2)
        entries = [connections.enter() for _ in range(6)]
        assert entries == [Entry.ACCEPTED] * 2 + [Entry.REJECTED] * 2 + [Entry.ABORTED] * 2

    @pytest.mark.parametrize("entry", Entry)
    def test_one_that_is_closed_makes_room_for_another_of_its_kind_alone(self, entry: Entry) -> None:
        connections = OpenConnections(1)
        for _ in Entry:
            connections.enter()
        connections.leave(entry)
        assert connections.enter() is entry
        assert connections.enter() is Entry.ABORTED


class TestWhereItIs:
    def test_a_request_goes_from_headers_to_body_and_the_next_may_begin(self) -> None:
        limits = ConnectionLimits()
        places = [limits.place]
        for step in (limits.message_begun, limits.headers_complete, limits.message_complete):
            step()
            places.append(limits.place)
        assert places == ["between", "headers", "body", "between"]


class TestHeaders:
    def test_they_may_be_as_large_as_the_limit_and_no_larger(self) -> None:
        limits = in_place("headers")
        assert limits.received(MAX_HEADERS_BYTES - 1) is None
        assert limits.received(1) is None
        problem = limits.received(1)
        assert problem is not None
        assert (problem.code, "65,536" in problem.detail) == ("header_too_large", True)

    def test_those_of_the_next_request_are_counted_anew(self) -> None:
        limits = ConnectionLimits()
        for _ in range(3):
            limits.message_begun()
            assert limits.received(MAX_HEADERS_BYTES) is None
            limits.headers_complete()
            limits.message_complete()

    def test_late_ones_are_told_so_and_a_connection_without_a_request_is_only_closed(self) -> None:
        problem = in_place("headers").late(0.5)
        assert problem is not None
        assert (problem.code, "0.5 seconds" in problem.detail) == ("upload_too_slow", True)
        assert in_place("between").late(0.5) is None
        assert in_place("body").late(0.5) is None


class TestTimer:
    @pytest.mark.parametrize(
        ("place", "answering", "timed"),
        [
            ("between", False, True),
            ("between", True, False),
            ("headers", False, True),
            ("headers", True, True),  # of the next request, behind the one that is being answered
            ("body", False, True),  # that nobody wants: its answer is out already
            ("body", True, False),
        ],
    )
    def test_it_runs_while_the_client_has_to_send_and_nobody_works_for_it(
        self, place: Place, answering: bool, timed: bool
    ) -> None:
        assert in_place(place).timed(answering=answering) is timed

    @pytest.mark.parametrize("place", PLACES)
    def test_it_does_not_run_once_the_connection_was_rejected(self, place: Place) -> None:
        limits = in_place(place)
        limits.reject(answering=True, started=False, queued=False)
        assert not limits.timed(answering=False)


class TestRejection:
    @pytest.mark.parametrize(
        ("place", "answering", "started", "queued", "rejection"),
        [
            ("between", False, False, False, Rejection.ANSWER),
            ("headers", False, False, False, Rejection.ANSWER),
            ("headers", True, False, False, Rejection.AFTER_ANSWER),
            ("headers", True, True, True, Rejection.AFTER_ANSWER),
            ("body", True, False, False, Rejection.ANSWER),  # of the request whose body is broken
            ("body", True, True, False, Rejection.CLOSE),
            ("body", True, False, True, Rejection.CLOSE),
            ("body", False, False, False, Rejection.CLOSE),  # its answer is out already
        ],
    )
    def test_no_answer_is_ever_taken_for_that_of_another_request(
        self, place: Place, answering: bool, started: bool, queued: bool, rejection: Rejection
    ) -> None:
        limits = in_place(place)
        assert limits.reject(answering=answering, started=started, queued=queued) is rejection
        assert limits.rejected

    def test_what_comes_after_it_is_read_to_a_bound(self) -> None:
        limits = in_place("headers")
        limits.received(MAX_HEADERS_BYTES + 1)
        limits.reject(answering=False, started=False, queued=False)
        assert limits.received(LINGER_BYTES) is None
        assert not limits.exhausted
        limits.received(1)
        assert limits.exhausted
