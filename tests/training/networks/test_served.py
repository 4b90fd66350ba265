"""What is served of a network: a built-in one by its name, any other as a program that makes logits."""

from pathlib import Path

import pytest
import torch

from classifier.architectures import build
from training.networks.served import served_network
from training.networks.spec import NetworkSpec
from training.networks.tied import with_tied_names

_CODE = """
import torch.nn as nn
import torch.nn.functional as F

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.a, self.b, self.fc = nn.Conv2d(1, 4, 3), nn.Conv2d(1, 4, 3), nn.Linear(4, num_classes)
        self.b.weight = self.a.weight

    def forward(self, x):
        return F.log_softmax(self.fc((self.a(x) + self.b(x)).relu().mean((2, 3))), dim=1)
"""


def test_a_built_in_network_has_no_program() -> None:
    torch.manual_seed(0)
    weights = build("mnist_cnn", 3).state_dict()
    served = served_network(NetworkSpec("mnist_cnn", (1, 28, 28)), weights, 3)
    assert (served.program, served.info, served.constants, served.notes) == (None, None, {}, ())
    assert served.weights is weights


@pytest.mark.slow
def test_a_persons_network_is_a_program_that_makes_logits_with_tied_weights_once(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(_CODE)
    spec = NetworkSpec(f"{tmp_path / 'net.py'}:Net", (1, 12, 12))
    torch.manual_seed(0)
    network = spec.build(3).eval()
    served = served_network(spec, network.state_dict(), 3, images=torch.rand(1, 1, 12, 12))
    assert served.program is not None
    assert served.info is not None
    assert served.info.operators == served.program.operators
    assert served.notes[0].startswith("left out the log_softmax at its end")
    assert served.weights.keys() == network.state_dict().keys() - {"b.weight"}
    images = torch.randn(2, 1, 12, 12)
    with torch.inference_mode():
        assert torch.equal(served.network(images).log_softmax(1), network(images))
    # They are weights of the same class again.
    again = served_network(spec, served.weights, 3)
    assert all(tensor.equal(served.weights[name]) for name, tensor in again.weights.items())
    network.load_state_dict(with_tied_names(served.weights, network))
