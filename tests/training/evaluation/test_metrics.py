"""The figures of a network: small examples worked by hand, and what must hold for all logits."""

import math

import pytest
import torch

from classifier.manifest import ClassMetrics
from training.evaluation.metrics import (
    BINS,
    ConfusedPair,
    EvaluationMetrics,
    Mistake,
    cross_entropy,
    most_confused,
    worst,
)


def logits_of(*probabilities: tuple[float, ...]) -> torch.Tensor:
    """Logits whose softmax is these rows."""
    return torch.tensor(probabilities, dtype=torch.float64).log().float()


def sampled(count: int, classes: int, *, seed: int = 0, spread: float = 2.0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and targets that fall just as often as the softmax says: calibrated by construction."""
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(count, classes, generator=generator)
    return logits, torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]


# Predicted: 0, 0, 1, 1, 0. Right: the first, third and fourth.
HAND = logits_of((0.9, 0.05, 0.05), (0.6, 0.3, 0.1), (0.2, 0.7, 0.1), (0.1, 0.8, 0.1), (0.5, 0.2, 0.3))
HAND_TARGETS = torch.tensor([0, 1, 1, 1, 2])


def test_accuracy_and_loss_are_those_worked_by_hand() -> None:
    found = EvaluationMetrics.of(HAND, HAND_TARGETS, temperature=1.0)
    assert found.accuracy == 3 / 5
    assert found.samples == 5
    by_hand = -math.fsum(math.log(p) for p in (0.9, 0.3, 0.7, 0.8, 0.3)) / 5
    assert found.loss == pytest.approx(by_hand, abs=1e-7)  # the logits are float32


def test_the_loss_is_that_of_float64() -> None:
    logits, targets = sampled(5000, 10)
    exact = torch.nn.functional.cross_entropy(logits.double(), targets).item()
    assert cross_entropy(logits, targets) == pytest.approx(exact, rel=1e-13)


def test_the_loss_does_not_depend_on_the_temperature() -> None:
    losses = {EvaluationMetrics.of(HAND, HAND_TARGETS, temperature=t).loss for t in (0.5, 1.0, 3.0)}
    assert losses == {cross_entropy(HAND, HAND_TARGETS)}


def test_the_confusion_matrix_has_the_true_class_by_row_and_the_predicted_one_by_column() -> None:
    found = EvaluationMetrics.of(HAND, HAND_TARGETS, temperature=1.0).confusion
    assert found.dtype == torch.int64
    assert found.tolist() == [[1, 0, 0], [1, 2, 0], [1, 0, 0]]


def test_precision_is_none_where_a_class_is_never_predicted_and_recall_where_it_has_no_sample() -> None:
    assert EvaluationMetrics.of(HAND, HAND_TARGETS, temperature=1.0).per_class == (
        ClassMetrics(precision=1 / 3, recall=1.0, samples=1),
        ClassMetrics(precision=1.0, recall=2 / 3, samples=3),
        ClassMetrics(precision=None, recall=0.0, samples=1),
    )
    nothing_of_2 = EvaluationMetrics.of(HAND[2:3], HAND_TARGETS[2:3], temperature=1.0).per_class
    assert nothing_of_2[2] == ClassMetrics(precision=None, recall=None, samples=0)


def test_the_calibration_error_is_the_one_worked_by_hand() -> None:
    # Confidences 0.9, 0.6, 0.7, 0.8, 0.5 fall in five of the 15 bins; right are the first, third and fourth.
    found = EvaluationMetrics.of(HAND, HAND_TARGETS, temperature=1.0)
    assert found.before.ece == pytest.approx((0.1 + 0.6 + 0.3 + 0.2 + 0.5) / 5, abs=1e-7)
    # At half the temperature probabilities are squared and scaled to a sum of 1.
    sharper = [0.81 / 0.815, 0.36 / 0.46, 0.49 / 0.54, 0.64 / 0.66, 0.25 / 0.38]
    gaps = {13: [1 - sharper[2]], 14: [1 - sharper[0], 1 - sharper[3]], 11: [sharper[1]], 9: [sharper[4]]}
    half = EvaluationMetrics.of(HAND, HAND_TARGETS, temperature=0.5).after
    assert half.ece == pytest.approx(sum(abs(sum(gap)) for gap in gaps.values()) / 5, abs=1e-7)
    assert {i for i, one in enumerate(half.bins) if one.samples} == gaps.keys()


def test_mistakes_and_successes_of_one_bin_weigh_each_other_up() -> None:
    row = (0.75, 0.25)
    found = EvaluationMetrics.of(logits_of(row, row, row, row), torch.tensor([0, 0, 0, 1]), temperature=1.0)
    assert found.before.ece == pytest.approx(0, abs=1e-7)
    (bin_,) = (one for one in found.before.bins if one.samples)
    assert (bin_.samples, bin_.accuracy) == (4, 0.75)
    assert bin_.confidence == pytest.approx(0.75, abs=1e-7)


def test_a_bin_holds_its_upper_edge_and_empty_bins_have_no_means() -> None:
    even = torch.zeros(1, 15)  # a confidence of 1 / 15: the upper edge of the first bin
    bins = EvaluationMetrics.of(even, torch.tensor([3]), temperature=1.0).before.bins
    assert len(bins) == BINS == 15
    assert [one.samples for one in bins] == [1] + [0] * 14
    assert bins[0].accuracy == 0
    assert bins[1].confidence is bins[1].accuracy is None
    certain = EvaluationMetrics.of(torch.tensor([[1e4, -1e4]]), torch.tensor([0]), temperature=1.0).before
    assert certain.bins[-1].samples == 1
    assert certain.ece == 0


def test_bins_hold_every_sample_once() -> None:
    logits, targets = sampled(997, 7)
    found = EvaluationMetrics.of(logits, targets, temperature=1.7)
    for reliability in (found.before, found.after):
        assert sum(one.samples for one in reliability.bins) == 997
        hits = sum((one.accuracy or 0) * one.samples for one in reliability.bins)
        assert hits / 997 == pytest.approx(found.accuracy)
        for i, one in enumerate(reliability.bins):
            if one.confidence is not None:
                assert i / BINS < one.confidence <= (i + 1) / BINS


def test_logits_that_are_calibrated_have_next_to_no_calibration_error_and_wrong_temperatures_have() -> None:
    logits, targets = sampled(20_000, 10)
    assert EvaluationMetrics.of(logits, targets, temperature=1.0).after.ece < 0.01
    assert EvaluationMetrics.of(logits, targets, temperature=0.4).after.ece > 0.1
    assert EvaluationMetrics.of(logits, targets, temperature=2.5).after.ece > 0.1
    assert EvaluationMetrics.of(2.5 * logits, targets, temperature=2.5).before.ece > 0.1
    assert EvaluationMetrics.of(2.5 * logits, targets, temperature=2.5).after.ece < 0.01


@pytest.mark.slow
def test_the_order_of_samples_their_layout_and_the_number_of_threads_do_not_change_a_digit() -> None:
    logits, targets = sampled(50_000, 7)
    order = torch.randperm(50_000, generator=torch.Generator().manual_seed(1))
    one_thread = plain(EvaluationMetrics.of(logits, targets, temperature=1.3))
    torch.set_num_threads(2)  # the fixture of these tests sets it to 1, and back to what it was
    try:
        assert plain(EvaluationMetrics.of(logits, targets, temperature=1.3)) == one_thread
        assert plain(EvaluationMetrics.of(logits[order], targets[order], temperature=1.3)) == one_thread
        columns_first = logits.T.contiguous().T
        assert plain(EvaluationMetrics.of(columns_first, targets, temperature=1.3)) == one_thread
    finally:
        torch.set_num_threads(1)


def test_what_is_added_to_all_logits_of_a_sample_changes_nothing() -> None:
    logits, targets = sampled(200, 4)
    shifted = EvaluationMetrics.of(logits + 64, targets, temperature=1.0)
    assert shifted.loss == pytest.approx(EvaluationMetrics.of(logits, targets, temperature=1.0).loss, abs=1e-5)
    assert shifted.confusion.equal(EvaluationMetrics.of(logits, targets, temperature=1.0).confusion)


def test_other_names_for_the_classes_give_the_same_figures() -> None:
    logits, targets = sampled(300, 5)
    renamed = torch.tensor([3, 1, 4, 0, 2])
    one = EvaluationMetrics.of(logits, targets, temperature=1.0)
    other = EvaluationMetrics.of(logits[:, renamed.argsort()], renamed[targets], temperature=1.0)
    assert other.accuracy == one.accuracy
    assert other.before.ece == pytest.approx(one.before.ece)
    assert other.per_class[3] == one.per_class[0]


@pytest.mark.parametrize("classes", [2, 3])
def test_all_right_and_all_wrong(classes: int) -> None:
    targets = torch.arange(classes)
    logits = 1e4 * torch.eye(classes)
    right = EvaluationMetrics.of(logits, targets, temperature=1.0)
    assert (right.accuracy, right.loss, right.before.ece) == (1, 0, 0)
    assert worst(logits, targets) == ()
    wrong = EvaluationMetrics.of(logits.roll(1, 0), targets, temperature=1.0)
    assert (wrong.accuracy, wrong.loss, wrong.before.ece) == (0, 1e4, 1)
    assert {one.recall for one in wrong.per_class} == {0.0}


def test_the_worst_mistakes_are_the_most_confidently_wrong_first() -> None:
    found = worst(HAND, HAND_TARGETS)
    assert [(one.index, one.target, one.predicted) for one in found] == [(1, 1, 0), (4, 2, 0)]
    assert [one.confidence for one in found] == pytest.approx([0.6, 0.5], abs=1e-6)
    assert worst(HAND, HAND_TARGETS, count=1) == found[:1]


def test_pairs_of_classes_are_counted_both_ways_and_the_first_of_equals_leads() -> None:
    confusion = torch.tensor([[9, 1, 0, 2], [2, 9, 0, 0], [0, 0, 9, 3], [1, 0, 0, 9]])
    found = most_confused(confusion)
    assert [(pair.first, pair.second, pair.count) for pair in found] == [(0, 1, 3), (0, 3, 3), (2, 3, 3)]
    assert most_confused(confusion, count=1) == found[:1]
    assert most_confused(torch.eye(3, dtype=torch.int64)) == ()


def test_mistakes_between_two_classes_are_found_both_ways() -> None:
    logits = torch.eye(3)[[0, 1, 1, 0, 2, 2]]
    targets = torch.tensor([1, 0, 2, 0, 0, 1])
    found = worst(logits, targets, among=ConfusedPair(0, 1, 2))
    assert [one.index for one in found] == [0, 1]


def test_mistakes_of_equal_confidence_come_in_the_order_of_the_samples() -> None:
    logits = torch.tensor([[1e4, 0.0]]).repeat(40, 1)  # all of them certain
    found = worst(logits, torch.ones(40, dtype=torch.int64))
    assert found == tuple(Mistake(index=i, target=1, predicted=0, confidence=1.0) for i in range(25))


def test_the_confidence_of_a_mistake_is_the_calibrated_one() -> None:
    (first, *_) = worst(HAND, HAND_TARGETS, temperature=0.5)
    assert first.confidence == pytest.approx(0.36 / 0.46, abs=1e-6)


def test_one_sample_is_enough() -> None:
    found = EvaluationMetrics.of(HAND[:1], HAND_TARGETS[:1], temperature=2.0)
    assert (found.samples, found.accuracy, found.temperature) == (1, 1.0, 2.0)


@pytest.mark.parametrize(
    ("logits", "targets", "message"),
    [
        (torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), "logits are"),
        (torch.zeros(2, 1), torch.zeros(2, dtype=torch.int64), "logits are"),
        (torch.zeros(2, 3, dtype=torch.float64), torch.zeros(2, dtype=torch.int64), "logits are"),
        (torch.zeros(2, 3), torch.zeros(3, dtype=torch.int64), "targets are"),
        (torch.zeros(2, 3), torch.zeros(2), "targets are"),
        (torch.zeros(2, 3), torch.tensor([0, 3]), "not in 0 to 2"),
        (torch.zeros(2, 3), torch.tensor([-1, 0]), "not in 0 to 2"),
        (torch.tensor([[0.0, math.nan]]), torch.tensor([0]), "not finite"),
    ],
)
def test_what_cannot_be_measured_is_refused(logits: torch.Tensor, targets: torch.Tensor, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        EvaluationMetrics.of(logits, targets, temperature=1.0)


def plain(found: EvaluationMetrics) -> tuple[object, ...]:
    """All of it, as what compares by value."""
    return found.accuracy, found.loss, found.per_class, found.confusion.tolist(), found.before, found.after
