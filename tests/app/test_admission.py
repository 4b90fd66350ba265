"""Budgets: what is held, what is refused, and that nothing is taken by what was refused."""

import pytest

from app.admission import Admission, Budget
from app.engine.errors import Overloaded


def test_it_fills_to_its_limit_and_not_beyond() -> None:
    budget = Budget("images", 3)
    budget.acquire(2)
    budget.acquire(1)
    with pytest.raises(Overloaded):
        budget.acquire(1)
    assert budget.held == 3


def test_a_refusal_takes_nothing() -> None:
    budget = Budget("images", 3)
    budget.acquire(2)
    with pytest.raises(Overloaded):
        budget.acquire(2)
    budget.acquire(1)


def test_what_was_given_back_can_be_taken_again() -> None:
    budget = Budget("images", 1)
    for _ in range(3):
        budget.acquire(1)
        budget.release(1)
    assert budget.held == 0


def test_what_is_more_than_all_of_it_gets_in_alone_or_it_could_never_get_in() -> None:
    budget = Budget("pixels", 10)
    budget.acquire(11)
    with pytest.raises(Overloaded):
        budget.acquire(1)
    budget.release(11)
    budget.acquire(1)
    with pytest.raises(Overloaded):
        budget.acquire(11)


def test_nothing_at_all_always_gets_in() -> None:
    budget = Budget("pixels", 1)
    budget.acquire(1)
    budget.acquire(0)


class TestAnAmountThatIsNotKnownYet:
    def test_it_is_not_refused_before_another_amount_was(self) -> None:
        budget = Budget("pixels", 3)
        budget.acquire(3)
        budget.check()

    def test_it_is_refused_after_another_until_something_is_given_back(self) -> None:
        budget = Budget("pixels", 3)
        budget.acquire(2)
        with pytest.raises(Overloaded):
            budget.acquire(2)
        with pytest.raises(Overloaded, match=r"pixels.*3"):
            budget.check()
        budget.release(1)
        budget.check()


def test_the_refusal_names_what_there_is_too_much_of_and_how_much_may_be() -> None:
    budget = Budget("images", 1024)
    budget.acquire(1024)
    with pytest.raises(Overloaded, match=r"images.*1,024"):
        budget.acquire(1)


def test_each_budget_of_a_process_has_its_own_limit() -> None:
    admission = Admission(requests=1, body_bytes=20e6, items=2, pixels=3, small_body=0)
    budgets = admission.requests, admission.body_bytes, admission.items, admission.pixels
    assert [budget.limit for budget in budgets] == [1, 20e6, 2, 3]
    assert len({budget.name for budget in budgets}) == 4


class TestPermit:
    def test_a_request_holds_itself_its_bytes_and_its_images_and_gives_all_back_once(self) -> None:
        admission = Admission(requests=2, body_bytes=100, items=4, pixels=1, small_body=100)
        permit = admission.permit(70)
        permit.acquire()
        permit.acquire_items(3)
        assert (admission.requests.held, admission.body_bytes.held, admission.items.held) == (1, 70, 3)
        for _ in range(2):
            permit.release()
        assert (admission.requests.held, admission.body_bytes.held, admission.items.held) == (0, 0, 0)

    def test_one_that_is_refused_holds_nothing(self) -> None:
        admission = Admission(requests=2, body_bytes=100, items=4, pixels=1, small_body=100)
        with admission.permit(70), pytest.raises(Overloaded), admission.permit(70):
            pass
        assert (admission.requests.held, admission.body_bytes.held) == (0, 0)

    def test_what_is_refused_for_its_images_gives_back_the_rest(self) -> None:
        admission = Admission(requests=2, body_bytes=100, items=4, pixels=1, small_body=100)
        admission.items.acquire(3)
        with pytest.raises(Overloaded), admission.permit(70) as permit:
            permit.acquire_items(2)
        assert (admission.requests.held, admission.body_bytes.held, admission.items.held) == (0, 0, 3)

    def test_a_large_body_is_refused_while_there_is_no_room_for_pixels_and_a_small_one_is_not(self) -> None:
        admission = Admission(requests=9, body_bytes=1000, items=4, pixels=5, small_body=100)
        admission.pixels.acquire(5)
        with pytest.raises(Overloaded):
            admission.pixels.acquire(5)
        with pytest.raises(Overloaded, match="pixels"):
            admission.permit(101).acquire()
        admission.permit(100).acquire()
        assert (admission.requests.held, admission.body_bytes.held) == (1, 100)
        admission.pixels.release(5)
        admission.permit(101).acquire()
