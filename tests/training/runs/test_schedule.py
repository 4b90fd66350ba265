"""The learning rate over a stage."""

import pytest

from training.recipes.builtin import builtin
from training.runs.schedule import Schedule, learning_rate, rate_too_high

STEPS = 101


def rates(schedule: Schedule, warm_up: float = 0.2) -> list[float]:
    return [learning_rate(step, STEPS, schedule=schedule, peak=1.0, warm_up=warm_up) for step in range(STEPS)]


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine"])
def test_the_rate_rises_to_its_peak_and_falls_to_almost_nothing(schedule: Schedule) -> None:
    found = rates(schedule)
    assert found[0] == pytest.approx(1 / 25)
    assert found[20] == max(found) == 1.0
    assert found[:21] == sorted(found[:21])
    assert found[20:] == sorted(found[20:], reverse=True)
    assert 0 < found[-1] < 1e-5


def test_one_cycle_rises_by_half_a_cosine_and_cosine_in_a_line() -> None:
    middle = (1 + 1 / 25) / 2
    assert rates("one_cycle")[10] == pytest.approx(middle)
    assert rates("cosine")[10] == pytest.approx(middle)
    assert rates("one_cycle")[5] < rates("cosine")[5] == pytest.approx(1 / 25 + 0.25 * 24 / 25)


def test_a_constant_rate_stays_once_it_has_risen() -> None:
    found = rates("constant")
    assert found[0] < 1
    assert set(found[20:]) == {1.0}


@pytest.mark.parametrize("schedule", ["one_cycle", "cosine", "constant"])
def test_without_warm_up_the_first_step_has_the_peak(schedule: Schedule) -> None:
    assert rates(schedule, warm_up=0.0)[0] == 1.0
    assert learning_rate(0, 1, schedule=schedule, peak=1.0, warm_up=0.5) == 1.0


@pytest.mark.parametrize(
    ("peak", "said"),
    [
        (1e9, "after a peak rate of 1e+09: try a lower --lr, e.g. 0.05"),
        (1e300, "try a lower --lr, e.g. 0.05"),
        (0.3, "try a lower --lr, e.g. 0.05"),
        (0.05, "after a peak rate of 0.05: try a lower --lr, e.g. 0.01"),
        (0.003, "after a peak rate of 0.003: try a lower --lr, e.g. 0.0006"),
    ],
)
def test_a_rate_that_was_too_high_is_answered_by_one_with_which_others_have_trained(peak: float, said: str) -> None:
    recipe = builtin("strokes").replace(lr=peak)
    assert said in rate_too_high(recipe, recipe.stages[0], peak)


def test_the_rate_of_the_second_stage_has_a_flag_of_its_own() -> None:
    recipe = builtin("photos", "finetune:resnet18").replace(unfreeze={"epochs": 1, "lr": 1e6})
    first, second = recipe.stages
    assert "try a lower --set unfreeze.lr, e.g. 0.002" in rate_too_high(recipe, second, second.lr)
    assert "try a lower --lr, e.g. 0.002" in rate_too_high(recipe, first, first.lr)
    added = builtin("photos", "transfer:resnet18").replace(unfreeze={"epochs": 1, "lr": 1e6})
    assert "try a lower --set unfreeze.lr, e.g. 0.01" in rate_too_high(added, added.stages[1], 1e6)
