"""What a person's own network computes becomes a program, or one line says which line of theirs is to blame."""

import copy
import re
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from classifier.architectures import build, known
from classifier.program.check import check
from classifier.program.network import ProgramNetwork
from tests.support.exports import SHAPE, ChangedThroughAView, Meshes, Small, seeded
from training.errors import TrainingError
from training.networks.export_program import export_program

pytestmark = pytest.mark.slow  # torch.export takes a second

# The smallest network of each of torchvision's families, and of ours.
FAMILIES = [
    *("mnist_cnn", "alexnet_transfer", "squeezenet1_1", "mnasnet0_5", "mobilenet_v2", "mobilenet_v3_small"),
    *("shufflenet_v2_x0_5", "resnet18", "resnext50_32x4d", "wide_resnet50_2", "regnet_x_400mf", "regnet_y_400mf"),
    *("efficientnet_b0", "efficientnet_v2_s", "googlenet", "inception_v3", "densenet121", "vgg11_bn"),
    *("convnext_tiny", "vit_b_32", "swin_t", "swin_v2_t", "maxvit_t"),
]


def test_there_is_one_network_of_each_family() -> None:
    def family(name: str) -> str:
        return (
            name.partition("_")[0].rstrip("0123456789")
            if not name.startswith(("swin_v2", "wide", "regnet"))
            else name[:8]
        )

    assert {family(name) for name in known()} == {family(name) for name in FAMILIES}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("architecture", FAMILIES)
def test_a_network_of_each_family_gives_the_same_logits_to_the_last_bit(architecture: str) -> None:
    torch.manual_seed(0)
    network = build(architecture, 10).eval()
    size = {"mnist_cnn": 28, "inception_v3": 299}.get(architecture, 224)
    shape = (1 if architecture == "mnist_cnn" else 3, size, size)
    exported = export_program(network, shape, architecture)
    check(exported.program, shape, 10, 64)
    program = ProgramNetwork(exported.program, exported.tensors).eval()
    images = torch.randn(3, *shape)
    with torch.inference_mode():
        assert all(torch.equal(program(images[:count]), network(images[:count])) for count in (1, 3))


@pytest.mark.parametrize("kind", [ChangedThroughAView, Meshes])
def test_what_cannot_be_served_as_it_was_recorded_is_taken_apart_by_torch(kind: type[Small]) -> None:
    network = seeded(kind)
    exported = export_program(network, SHAPE, "net")
    program = ProgramNetwork(exported.program, exported.tensors).eval()
    images = torch.randn(3, *SHAPE)
    with torch.inference_mode():
        assert torch.equal(program(images), network(images))


class _If(Small):
    def forward(self, x: torch.Tensor) -> Any:
        if x.sum() > 0:
            x = -x
        return self.fc(self.features(x))


class _Wordless(Small):
    def forward(self, x: torch.Tensor) -> Any:
        if x.dim() == 4:
            raise AssertionError
        return self.fc(self.features(x))


class _Item(Small):
    def forward(self, x: torch.Tensor) -> Any:
        return self.fc(self.features(x / x.max().item()))


class _Numpy(Small):
    def forward(self, x: torch.Tensor) -> Any:
        return self.fc(torch.from_numpy(self.features(x).detach().numpy()))


class _Loop(Small):
    def forward(self, x: torch.Tensor) -> Any:
        rows = [self.features(x[i : i + 1]) for i in range(x.shape[0])]
        return self.fc(torch.cat(rows))


class _TwoInputs(Small):
    def forward(self, x: torch.Tensor, y: torch.Tensor) -> Any:  # type: ignore[override]
        return self.fc(self.features(x + y))


class _Tuple(Small):
    def forward(self, x: torch.Tensor) -> Any:
        return self.fc(self.features(x)), x


class _Dict(Small):
    def forward(self, x: torch.Tensor) -> Any:
        return {"logits": self.fc(self.features(x))}


class _Nothing(Small):
    def forward(self, x: torch.Tensor) -> Any:
        self.fc(self.features(x))


class _View(Small):
    def forward(self, x: torch.Tensor) -> Any:
        return self.fc(self.features(x).view(2, -1))


class _Reshape(Small):
    def forward(self, x: torch.Tensor) -> Any:
        return self.fc(self.features(x).reshape(64, 4))


class _BatchIf(Small):
    def forward(self, x: torch.Tensor) -> Any:
        return self.fc(self.features(x * 2 if len(x) == 2 else x))


class _Squeeze(Small):
    def forward(self, x: torch.Tensor) -> Any:
        return self.fc(self.features(x)).squeeze()


class _Svd(Small):
    def forward(self, x: torch.Tensor) -> Any:
        return self.fc(self.features(x)) + torch.linalg.svdvals(x)[:, 0, :3]


class _Own(Small):
    def forward(self, x: torch.Tensor) -> Any:
        return self.fc(_doubled(self.features(x)))


class _Random(Small):
    def forward(self, x: torch.Tensor) -> Any:
        return self.fc(self.features(x + torch.randn_like(x)))


class _Len(Small):
    def forward(self, x: torch.Tensor) -> Any:
        return self.fc(self.features(x).view(len(x), -1))


class _Dropout(Small):
    def forward(self, x: torch.Tensor) -> Any:
        return self.fc(F.dropout(self.features(x)))


class _TrainingNorm(Small):
    def forward(self, x: torch.Tensor) -> Any:
        self.norm.train()
        return self.fc(self.features(x))


class _Buffer(Small):
    count: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> Any:
        self.count += 1
        return self.fc(self.features(x))


class _NaN(Small):
    def forward(self, x: torch.Tensor) -> Any:
        return self.fc(self.features(x) - 9).log()


class _Complex(Small):
    def forward(self, x: torch.Tensor) -> Any:
        return self.fc(self.features(torch.fft.fft2(x).abs()))


class _Earlier(Small):
    calls = 0

    def forward(self, x: torch.Tensor) -> Any:
        self.calls += 1
        return self.fc(self.features(x)) * self.calls


class _Missing(Small):
    def forward(self, x: torch.Tensor) -> Any:
        return self.head(self.features(x))  # type: ignore[operator]


@torch.library.custom_op("flambeau_tests::doubled", mutates_args=())
def _doubled(x: torch.Tensor) -> torch.Tensor:
    return x * 2


@_doubled.register_fake
def _(x: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


@pytest.mark.parametrize(
    ("network", "message", "code"),
    [
        (_If, "net.py:Net cannot be exported: it decides by the values of the images", "if x.sum() > 0:"),
        (_Wordless, "net.py:Net cannot compute a batch of 1: AssertionError (", "raise AssertionError"),
        (_Item, "it takes a number out of a tensor", "x.max().item()"),
        (_Numpy, "it leaves torch by .numpy()", ".detach().numpy()"),
        (_Loop, "the size of the batch became a constant", "for i in range(x.shape[0])"),
        (_TwoInputs, "its forward takes (x: torch.Tensor, y: torch.Tensor), and the images alone are given", ""),
        (_Tuple, "its forward returns a tuple, where the logits alone are expected: return one tensor", ""),
        (_Dict, "its forward returns a dict", ""),
        (_Nothing, "its forward returns None", ""),
        (_View, "net.py:Net cannot compute a batch of 1: RuntimeError:", ".view(2, -1)"),
        (
            _Reshape,
            "net.py:Net cannot compute a batch of 1: RuntimeError: shape '[64, 4]' is invalid",
            "reshape(64, 4)",
        ),
        (_Len, "write images.shape[0] for len(images)", ".view(len(x), -1)"),
        (_BatchIf, "the size of the batch became a constant", "if len(x) == 2"),
        (_Squeeze, "returns [3] for a batch of 1, where [1, classes] is expected; use x.flatten(1)", ""),
        (_Svd, "it uses linalg_svdvals, which is not among the operators that are served", "torch.linalg.svdvals(x)"),
        (_Own, "it uses flambeau_tests.doubled, which is no operator of torch's own", "_doubled(self.features(x))"),
        (_Random, "it draws random numbers (randn_like)", "torch.randn_like(x)"),
        (_Dropout, "dropout was left on: call net.eval()", "F.dropout(self.features(x))"),
        (_TrainingNorm, "a batch norm normalizes by the batch's own statistics", "self.fc(self.features(x))"),
        (_Buffer, "it changes its buffer count", "self.count += 1"),
        (_NaN, "its logits of the example images are not finite", ""),
        (_Complex, "it computes with complex numbers (fft_fft2)", "torch.fft.fft2(x)"),
        (_Earlier, "the exported program differs from the network, for a batch of 1", ""),
        (_Missing, "AttributeError: '_Missing' object has no attribute 'head'", "self.head("),
    ],
)
def test_what_cannot_be_exported_is_one_line_that_names_the_persons_own(
    network: type[Small], message: str, code: str, capfd: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(TrainingError) as refusal:
        export_program(seeded(network), SHAPE, "net.py:Net", images=torch.rand(1, *SHAPE))
    line = str(refusal.value)
    assert message in line
    assert line.isprintable()
    assert not code or (code in line and re.search(r"\.py:\d+: ", line))
    assert "site-packages" not in line
    assert capfd.readouterr() == ("", "")


def test_double_precision_is_refused_before_anything_is_computed() -> None:
    with pytest.raises(TrainingError, match=r"net: its conv\.weight is float64, .* leave out \.double\(\)"):
        export_program(seeded(Small).double(), SHAPE, "net")


def test_a_network_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("classifier.program.check.MAX_RESULT", 300)
    with pytest.raises(TrainingError, match=r"net cannot be served: the program is too large: aten.* makes .* numbers"):
        export_program(seeded(Small), SHAPE, "net")


def test_printing_shapes_is_no_trouble(capfd: pytest.CaptureFixture[str]) -> None:
    class Printing(Small):
        def forward(self, x: torch.Tensor) -> Any:
            print(x.shape)
            return self.fc(self.features(x))

    network = seeded(Printing)
    before = copy.deepcopy(network.state_dict())
    exported = export_program(network, SHAPE, "net")
    assert exported.program.nodes[-1].op == "linear"
    assert all(tensor.equal(before[name]) for name, tensor in network.state_dict().items())
    assert capfd.readouterr().out.startswith("torch.Size([1, 1, 12, 12])")
