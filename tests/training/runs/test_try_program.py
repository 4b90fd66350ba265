"""Before a run begins it is known whether a network can be trained and served; if not, one line says why and where."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from classifier.progress import Progress
from tests.support.own_code import LOG_PROBABILITIES, SMALL, TUTORIAL
from tests.support.runs import Said
from training.data.batches import InMemorySplit
from training.errors import TrainingError
from training.networks import own_code
from training.recipes.builtin import builtin
from training.runs.try_program import try_program

Try = Callable[..., torch.nn.Module]

pytestmark = pytest.mark.slow  # each network is exported


@pytest.fixture
def attempt(tmp_path: Path) -> Try:
    """Tries the class of that name in a file with that text. Gives the network."""

    def attempt(
        text: str,
        name: str = "Net",
        classes: int = 10,
        samples: int = 5,
        progress: Progress = Progress.silent(),  # noqa: B008  it has no state
    ) -> torch.nn.Module:
        (tmp_path / "my_net.py").write_text(text)
        own = builtin("strokes", network=own_code.load(f"{tmp_path}/my_net.py:{name}").architecture)
        network = own.spec.build(classes)
        images = torch.randint(0, 256, (samples, *own.preprocess.shape), dtype=torch.uint8)
        split = InMemorySplit(images, torch.arange(samples) % classes)
        try_program(network, split, own, classes, progress)
        return network

    return attempt


@pytest.fixture
def refused(attempt: Try, tmp_path: Path) -> Callable[..., str]:
    def refused(text: str, classes: int = 10) -> str:
        with pytest.raises(TrainingError) as caught:
            attempt(text, classes=classes)
        assert "\n" not in str(caught.value)
        return str(caught.value).replace(f"{tmp_path}/", "")

    return refused


def a_class(returned: str, arguments: str = "x") -> str:
    return f"""\
import torch
import torch.nn as nn
import torch.nn.functional as F

class Net(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.fc = nn.Linear(784, num_classes)

    def forward(self, {arguments}):
        y = self.fc(x.flatten(1))
        return {returned}
"""


@pytest.mark.parametrize(
    ("text", "name"), [(TUTORIAL, "Net"), (SMALL, "Small"), (LOG_PROBABILITIES, "Digits"), (a_class("y"), "Net")]
)
def test_what_can_be_trained_and_served_stays_as_it_was(attempt: Try, text: str, name: str) -> None:
    torch.manual_seed(1)
    network = attempt(text, name=name)
    after = torch.rand(3)
    torch.manual_seed(1)
    weights = own_code.build(f"my_net.py:{name}", 10, (1, 28, 28), {}).state_dict()
    torch.randint(0, 256, (5, 28, 28, 1), dtype=torch.uint8)
    assert torch.rand(3).equal(after)
    assert all(tensor.equal(weights[key]) for key, tensor in network.state_dict().items())
    assert all(parameter.grad is None for parameter in network.parameters())


def test_one_image_is_enough(attempt: Try) -> None:
    attempt(SMALL, name="Small", samples=1)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (a_class("(y, y)"), "my_net.py:10: my_net.py:Net returns a tuple of 2, where logits [n, 10] are expected"),
        (a_class("[y]"), "my_net.py:10: my_net.py:Net returns a list of 1"),
        (a_class("{'logits': y}"), "my_net.py:10: my_net.py:Net returns a dict of 1"),
        (a_class("None"), "my_net.py:10: my_net.py:Net returns a NoneType"),
        (
            a_class("(y, y) if self.training else y"),
            "my_net.py:10: my_net.py:Net returns a tuple of 2 in training mode",
        ),
        (a_class("y[:, :, None]"), "my_net.py:10: my_net.py:Net returns [2, 10, 1] for 2 images, where logits [n, 10]"),
        (a_class("y.view(-1, 5)"), "my_net.py:10: my_net.py:Net returns [4, 5] for 2 images"),
        (a_class("y.argmax(1)"), "my_net.py:10: my_net.py:Net returns [2] for 2 images"),
        (a_class("y > 0"), "my_net.py:10: my_net.py:Net returns torch.bool"),
        (a_class("y[:, :7]"), "my_net.py:10: my_net.py:Net returns 7 logits, the data has 10 classes: use num_classes"),
        (a_class("y / 0"), "my_net.py:10: my_net.py:Net returns values that are not finite"),
        (
            a_class("y", "x, mask"),
            "my_net.py:10: TypeError: Net.forward() missing 1 required positional argument: 'mask'",
        ),
        (
            a_class("F.softmax(y, dim=1)"),
            "my_net.py:12: my_net.py:Net ends in softmax: delete that step and return log",
        ),
        (a_class("nn.Softmax(1)(y)"), "my_net.py:12: my_net.py:Net ends in softmax"),
        (a_class("torch.sigmoid(y)"), "my_net.py:12: my_net.py:Net ends in sigmoid"),
        (a_class("y.exp() / y.exp().sum(1, keepdim=True)"), "my_net.py:10: my_net.py:Net returns probabilities"),
        (a_class("F.dropout(y, 0.5)"), "my_net.py:10: my_net.py:Net gives the same images other logits each time"),
        (a_class("y.detach()"), "my_net.py:10: my_net.py:Net cannot be trained: element 0 of tensors does not require"),
        (
            a_class("y").replace("784", "400"),
            "my_net.py:11: a linear layer for 400 numbers is given 784 of each image, with images of 28x28x1 (height, ",
        ),
        (a_class("y.no_such_thing"), "my_net.py:12: AttributeError: 'Tensor' object has no attribute 'no_such_thing'"),
        (a_class("y.double() @ y.T"), "my_net.py:12: RuntimeError: "),
    ],
)
def test_what_cannot_be_trained_or_served_is_one_line(refused: Callable[..., str], text: str, said: str) -> None:
    assert refused(text).startswith(said)


def test_a_class_without_num_classes_must_have_as_many_logits_as_there_are_labels(refused: Callable[..., str]) -> None:
    assert refused(TUTORIAL, classes=4).endswith(
        "returns 10 logits, the data has 4 classes: give it an argument num_classes, and use that for its last layer"
    )


def test_what_cannot_be_exported_is_said_with_its_line(refused: Callable[..., str]) -> None:
    assert "my_net.py" in refused(a_class("y if y.sum().item() > 0 else -y"))


def test_logarithms_of_probabilities_whose_last_step_cannot_be_taken_off_are_refused(
    refused: Callable[..., str],
) -> None:
    said = refused(a_class("torch.cat([F.log_softmax(y, 1)[:, :3], F.log_softmax(y, 1)[:, 3:]], 1)"))
    assert "its outputs are probabilities, or their logarithms, and no logits: delete the softmax at its end" in said
    assert "my_net.py:12" in said


def test_what_is_left_out_of_the_served_network_is_said(attempt: Try, said: Said) -> None:
    attempt(LOG_PROBABILITIES, name="Digits", progress=said.progress)
    assert "trying whether my_net.py:Digits can be trained and served" in str(said)
    assert "my_net.py:Digits: left out the log_softmax at its end" in str(said)
