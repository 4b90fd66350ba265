"""The running estimate of what a batch costs."""

import pytest

from app.batching.cost_model import CostModel


def test_the_pace_tells_the_fixed_cost_from_the_cost_of_an_item() -> None:
    cost = CostModel()
    for items in (1, 8, 3, 5):
        cost.observe(items, 0.004 + 0.002 * items)
    assert cost.items_within(0.050) == 23
    assert cost.items_within(0.001) == 1


def test_the_pace_starts_with_a_single_item_and_then_counts_all_cost_as_per_item() -> None:
    cost = CostModel()
    assert cost.items_within(10) == 1
    cost.observe(1, 0.01)
    assert cost.items_within(0.05) == 5


def test_the_pace_forgets_an_outlier() -> None:
    cost = CostModel()
    cost.observe(1, 5.0)
    for i in range(200):
        cost.observe(1 + i % 4, 0.001 * (1 + i % 4))
    assert cost.items_within(0.05) == pytest.approx(50, abs=1)
