"""Score: the two numbers that an epoch is judged by."""

from dataclasses import dataclass
from typing import Self

import torch
import torch.nn.functional as F


@dataclass(frozen=True, slots=True)
class Score:
    """Means over the samples seen: cross-entropy in nats, and the share of right top-1 answers."""

    loss: float
    accuracy: float

    @classmethod
    def of(cls, logits: torch.Tensor, targets: torch.Tensor) -> Self:
        accuracy = float((logits.argmax(1) == targets).double().mean())
        return cls(loss=float(F.cross_entropy(logits.double(), targets)), accuracy=accuracy)

    def beats(self, other: Self) -> bool:
        """By its accuracy, and where that is equal by its loss."""
        return (self.accuracy, -self.loss) > (other.accuracy, -other.loss)

    def __str__(self) -> str:
        return f"loss {self.loss:.4f}, accuracy {self.accuracy:.2%}"
