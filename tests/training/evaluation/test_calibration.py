"""The temperature, the threshold of a score, and the AUROC that says how well they tell inside from outside."""

import math

import pytest
import torch

from classifier.scores import SCORES
from tests.training.evaluation.test_metrics import sampled
from training.evaluation.calibration import COLDEST, HOTTEST, auroc, temperature, threshold
from training.evaluation.metrics import EvaluationMetrics, cross_entropy


@pytest.mark.parametrize("true", [0.25, 0.5, 1.0, 2.0, 7.0])
def test_the_temperature_by_which_logits_were_multiplied_is_found(true: float) -> None:
    logits, targets = sampled(20_000, 10)
    found = temperature(true * logits, targets)
    assert found == pytest.approx(true, rel=0.03)
    assert EvaluationMetrics.of(true * logits, targets, temperature=found).after.ece < 0.01


def test_two_classes_can_be_worked_by_hand() -> None:
    # 300 of 400 answers with a logit of 3 are right: log(3) calibrates it, up to the weight of one sample.
    logits = torch.tensor([[3.0, 0.0]]).repeat(400, 1)
    targets = torch.tensor([0] * 300 + [1] * 100)
    assert temperature(logits, targets) == pytest.approx(3 / math.log(3), rel=0.01)


@pytest.mark.parametrize("seed", range(30))
def test_it_is_never_worse_than_temperature_1_on_what_it_was_fitted_on(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    count, classes = int(torch.randint(1, 60, (1,), generator=generator)), 2 + seed % 9
    logits = torch.randn(count, classes, generator=generator) * 10 ** (seed % 5 - 2)
    targets = torch.randint(classes, (count,), generator=generator)
    found = temperature(logits, targets)
    assert COLDEST <= found <= HOTTEST
    assert cross_entropy((logits.double() / found).float(), targets) <= cross_entropy(logits, targets) * (1 + 1e-6)


def test_no_temperature_near_it_is_better_once_there_are_samples_to_go_by() -> None:
    logits, targets = sampled(5000, 5)
    logits = 3 * logits
    found = temperature(logits, targets)

    def loss(at: float) -> float:
        return cross_entropy((logits.double() / at).float(), targets)

    assert loss(found) < min(loss(found * 0.98), loss(found * 1.02))


def test_where_all_answers_are_right_it_falls_only_as_far_as_their_number_warrants() -> None:
    few = [temperature(torch.tensor([[2.0, 0.0]]).repeat(n, 1), torch.zeros(n, dtype=torch.int64)) for n in (1, 24)]
    many = temperature(torch.tensor([[2.0, 0.0]]).repeat(10_000, 1), torch.zeros(10_000, dtype=torch.int64))
    assert COLDEST < many < few[1] < few[0] < 1
    assert few[0] == pytest.approx(1, abs=0.2)


def test_right_answers_that_are_certain_anyway_leave_it_at_1() -> None:
    assert temperature(1e4 * torch.eye(3), torch.arange(3)) == pytest.approx(1)


def test_logits_that_say_nothing_leave_it_at_1() -> None:
    assert temperature(torch.zeros(100, 4), torch.arange(100) % 4) == pytest.approx(1)


def test_it_stays_within_its_bounds() -> None:
    assert temperature(1e4 * torch.eye(3), torch.tensor([1, 2, 0])) == HOTTEST
    faint = 1e-3 * torch.eye(3).repeat(1000, 1)
    assert temperature(faint, torch.arange(3).repeat(1000)) == COLDEST


@pytest.mark.parametrize("seed", range(6))
def test_the_same_logits_give_the_same_temperature_whatever_their_order(seed: int) -> None:
    logits, targets = sampled(3000, 10, seed=seed, spread=0.5 + seed)
    order = torch.randperm(3000, generator=torch.Generator().manual_seed(1))
    assert temperature(logits, targets) == temperature(logits[order], targets[order])


def test_what_cannot_be_fitted_is_refused() -> None:
    with pytest.raises(ValueError, match="logits are"):
        temperature(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64))
    with pytest.raises(ValueError, match="not finite"):
        temperature(torch.tensor([[math.inf, 0.0]]), torch.tensor([0]))


def test_the_threshold_keeps_just_the_share_that_was_asked_for() -> None:
    scores = torch.arange(100.0)
    found = threshold(scores, keep=0.95)
    assert found == 5.0
    assert int((scores >= found).sum()) == 95


def test_a_share_is_taken_as_it_is_written_not_as_floats_multiply() -> None:
    assert math.ceil(0.55 * 100) == 56
    assert int((torch.arange(100.0) >= threshold(torch.arange(100.0), keep=0.55)).sum()) == 55


@pytest.mark.parametrize("count", [1, 2, 7, 19, 20, 21, 100, 1000, 2999])
@pytest.mark.parametrize("keep", [0.05, 0.5, 0.9, 0.95, 0.99, 1.0])
def test_no_more_could_be_flagged_without_keeping_too_few(count: int, keep: float) -> None:
    scores = torch.randn(count, generator=torch.Generator().manual_seed(count))
    found = threshold(scores, keep=keep)
    # In whole numbers, where 0.95 x 20 is 19.
    assert int((scores >= found).sum()) * 100 >= round(keep * 100) * count
    assert int((scores > found).sum()) * 100 < round(keep * 100) * count


def test_a_sample_that_is_at_the_threshold_stays_in_in_either_precision() -> None:
    scores = SCORES["energy"](torch.randn(1001, 10, generator=torch.Generator().manual_seed(3)) * 7)
    found = threshold(scores)
    (at,) = (scores == found).nonzero().flatten().tolist()
    assert scores[at].item() >= found  # as a Python float
    assert bool(scores[at] >= torch.tensor(found, dtype=torch.float32))
    assert bool(scores.double()[at] >= found)
    assert float(repr(found)) == found  # what JSON does to it


def test_equal_scores_are_kept_together() -> None:
    scores = torch.tensor([1.0] * 50 + [2.0] * 50)
    assert threshold(scores, keep=0.6) == 1.0
    assert threshold(scores, keep=0.5) == 2.0


@pytest.mark.parametrize("keep", [0.0, -0.1, 1.01, math.nan])
def test_a_share_that_is_none_is_refused(keep: float) -> None:
    with pytest.raises(ValueError, match="keep is"):
        threshold(torch.zeros(3), keep=keep)


@pytest.mark.parametrize("scores", [torch.zeros(0), torch.zeros(2, 2), torch.tensor([0.0, math.nan])])
def test_scores_that_cannot_be_ranked_are_refused(scores: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="score"):
        threshold(scores)
    with pytest.raises(ValueError, match="score"):
        auroc(torch.zeros(3), scores)
    with pytest.raises(ValueError, match="score"):
        auroc(scores, torch.zeros(3))


@pytest.mark.parametrize(
    ("inside", "outside", "expected"),
    [
        ([2.0, 3.0], [0.0, 1.0], 1.0),
        ([0.0, 1.0], [2.0, 3.0], 0.0),
        ([1.0], [1.0], 0.5),
        ([1.0, 3.0], [2.0], 0.5),
        ([1.0, 2.0], [1.0, 0.0], 3.5 / 4),
    ],
)
def test_the_auroc_of_a_few_scores_can_be_counted(inside: list[float], outside: list[float], expected: float) -> None:
    assert auroc(torch.tensor(inside), torch.tensor(outside)) == expected


@pytest.mark.parametrize("levels", [3, 50, 10**6])
def test_the_auroc_is_that_of_all_pairs_with_ties_counted_half(levels: int) -> None:
    generator = torch.Generator().manual_seed(levels)
    inside = torch.randint(levels, (157,), generator=generator).float()
    outside = torch.randint(levels, (83,), generator=generator).float()
    pairs = [(a > b) + (a == b) / 2 for a in inside.tolist() for b in outside.tolist()]
    assert auroc(inside, outside) == sum(pairs) / len(pairs)
    assert auroc(outside, inside) == pytest.approx(1 - auroc(inside, outside))
