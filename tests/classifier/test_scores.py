"""The out-of-distribution scores, which both sides compute."""

import math
from typing import get_args

import pytest
import torch

from classifier.manifest import OutOfDistribution
from classifier.scores import SCORES


def test_every_method_that_a_manifest_may_name_is_known() -> None:
    assert set(SCORES) == set(get_args(OutOfDistribution.model_fields["method"].annotation))


def test_the_energy_is_the_log_of_the_sum_of_exponentials_in_float32() -> None:
    scores = SCORES["energy"](torch.tensor([[0.0, 0.0], [3.0, 1.0], [1e4, -1e4], [-1e4, -1e4]]))
    assert scores.dtype == torch.float32
    by_hand = [math.log(2), math.log(math.exp(3) + math.e), 1e4, -1e4 + math.log(2)]
    assert scores.tolist() == pytest.approx(by_hand)


@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_the_energy_is_the_same_to_the_last_bit_in_batches_of_any_size(classes: int) -> None:
    logits = 5 * torch.randn(500, classes, generator=torch.Generator().manual_seed(classes))
    scores = SCORES["energy"](logits)
    for size in (500, 32, 1):
        parts = [SCORES["energy"](batch) for batch in torch.split(logits, size)]
        assert torch.cat(parts).equal(scores)
