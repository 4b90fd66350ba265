"""A softmax at the end of a network is taken off, for a server needs logits; what cannot be taken off is refused."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from classifier.program.network import ProgramNetwork
from tests.support.exports import SHAPE, Small, seeded
from training.errors import TrainingError
from training.networks.export_program import export_program, noise
from training.networks.logits import with_logits
from training.networks.pt2 import Exported

pytestmark = pytest.mark.slow  # torch.export takes a second


class _LogSoftmax(Small):
    def forward(self, x: torch.Tensor) -> Any:
        return F.log_softmax(self.fc(self.features(x)), dim=1)


class _Softmax(Small):
    def forward(self, x: torch.Tensor) -> Any:
        return F.softmax(self.fc(self.features(x)), dim=-1)


class _Viewed(Small):
    def forward(self, x: torch.Tensor) -> Any:
        return F.softmax(self.fc(self.features(x))[:, :, None, None], dim=1).squeeze(3).squeeze(2)


class _LogOfSoftmax(Small):
    def forward(self, x: torch.Tensor) -> Any:
        return torch.log(F.softmax(self.fc(self.features(x)), dim=1)).view(-1, 3)


class _Sigmoid(Small):
    def forward(self, x: torch.Tensor) -> Any:
        return torch.sigmoid(self.fc(self.features(x)))


class _ByHand(Small):
    def forward(self, x: torch.Tensor) -> Any:
        exponentials = self.fc(self.features(x)).exp()
        return exponentials / exponentials.sum(1, keepdim=True)


def _exported(network: type[Small]) -> Exported:
    return with_logits(export_program(seeded(network), SHAPE, "net"), noise(SHAPE), "net")


@pytest.mark.parametrize(
    ("network", "kind"),
    [(_LogSoftmax, "log_softmax"), (_Softmax, "softmax"), (_Viewed, "softmax"), (_LogOfSoftmax, "log_softmax")],
)
def test_a_softmax_at_the_end_is_taken_off_with_a_note(network: type[Small], kind: str) -> None:
    exported = _exported(network)
    (note,) = exported.notes
    assert note.startswith(f"left out the {kind} at its end: a server needs the logits before it (test_logits.py:")
    assert "softmax" not in " ".join(exported.program.operators)
    images = torch.randn(2, *SHAPE)
    with torch.inference_mode():
        logits = ProgramNetwork(exported.program, exported.tensors)(images)
        assert torch.equal(logits, seeded(Small)(images))
    assert all(number <= len(exported.program.nodes) for number in exported.places)


def test_logits_stay_as_they_are() -> None:
    exported = export_program(seeded(Small), SHAPE, "net")
    assert with_logits(exported, noise(SHAPE), "net") is exported


def test_a_sigmoid_at_the_end_is_refused_with_the_line() -> None:
    with pytest.raises(
        TrainingError, match=r"net ends in a sigmoid, .*: delete it; .* \(test_logits\.py:\d+: .*sigmoid"
    ):
        _exported(_Sigmoid)


def test_probabilities_that_are_made_otherwise_are_refused_with_the_line() -> None:
    with pytest.raises(TrainingError, match=r"its outputs are probabilities, .*exponentials / exponentials\.sum"):
        _exported(_ByHand)
