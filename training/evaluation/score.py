"""Judges an epoch by two numbers."""

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F


@dataclass(frozen=True, slots=True)
class Score:
    """Holds means over the samples that were seen.

    Args:
        loss: cross-entropy in nats.
        accuracy: the share of right top-1 answers, 0 to 1.
    """

    loss: float
    accuracy: float

    @classmethod
    def of(cls, logits: torch.Tensor, targets: torch.Tensor) -> Self:
        """Scores float logits [n, classes] against int64 targets [n]."""
        accuracy = float((logits.argmax(1) == targets).double().mean())
        return cls(loss=float(F.cross_entropy(logits.double(), targets)), accuracy=accuracy)

    def beats(self, other: Self) -> bool:
        """Compares by accuracy, and by loss if the accuracies are equal."""
        return (self.accuracy, -self.loss) > (other.accuracy, -other.loss)

    def __str__(self) -> str:
        return f"loss {self.loss:.4f}, accuracy {self.accuracy:.2%}"
