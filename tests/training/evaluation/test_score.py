"""The score of an epoch: what it is, and when one is better than another."""

import pytest
import torch
from torch import nn

from training.evaluation.score import Score


def test_a_score_beats_another_by_accuracy_and_then_by_loss() -> None:
    assert Score(loss=2.0, accuracy=0.9).beats(Score(loss=1.0, accuracy=0.8))
    assert Score(loss=1.0, accuracy=0.9).beats(Score(loss=2.0, accuracy=0.9))
    assert not Score(loss=1.0, accuracy=0.9).beats(Score(loss=1.0, accuracy=0.9))


def test_a_score_is_the_mean_over_the_samples() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 2.0], [2.0, 0.0]])
    score = Score.of(logits, torch.tensor([0, 1, 1]))
    assert score.accuracy == pytest.approx(2 / 3)
    assert score.loss == pytest.approx(nn.functional.cross_entropy(logits, torch.tensor([0, 1, 1])).item())
