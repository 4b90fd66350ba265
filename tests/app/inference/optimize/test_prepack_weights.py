"""Packed weights: the same values, for the modules that they can stand in for."""

import gc
import weakref
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from app.inference.optimize import prepack_weights as packing
from app.inference.optimize.prepack_weights import PackedConv2d, PackedLinear, prepack_weights
from app.inference.verification import verify
from classifier.architectures import build
from tests.support.checkpoints import checkpoint, publish

CPU = torch.device("cpu")

IMAGES = torch.randn(5, 64, 13, 11, generator=torch.Generator().manual_seed(1))


@pytest.fixture
def everything_is_large(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_LARGE_CONVOLUTION", 1)
    monkeypatch.setattr(packing, "_LARGE_LINEAR", 1)


def packed(network: nn.Module, batch: torch.Tensor = IMAGES[:1]) -> int:
    return prepack_weights(network.eval(), batch)


@pytest.mark.usefixtures("everything_is_large", "torch_as_it_was")
@pytest.mark.parametrize(
    "convolution",
    [
        lambda: nn.Conv2d(64, 96, 3),
        lambda: nn.Conv2d(64, 32, 3, stride=2, padding=1),
        lambda: nn.Conv2d(64, 17, (5, 3), stride=(1, 2), padding=(2, 1)),
        lambda: nn.Conv2d(64, 32, 3, dilation=2, bias=False),
    ],
)
@pytest.mark.parametrize("count", [1, 2, 5])
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_values_are_those_of_torchs_convolution(
    convolution: Callable[[], nn.Conv2d],
    count: int,
    layout: torch.memory_format,
    dtype: torch.dtype,
) -> None:
    """Whatever number of torch's threads packs, and whatever number computes."""
    network = nn.Sequential(convolution()).to(dtype).eval()
    images = IMAGES[:count].to(dtype, memory_format=layout)
    with torch.inference_mode():
        expected = network.to(memory_format=layout)(images)
        torch.set_num_threads(1)
        assert prepack_weights(network, IMAGES[:1].to(dtype)) == 1
        torch.testing.assert_close(network(images), expected)
        torch.set_num_threads(2)
        torch.testing.assert_close(network(images), expected)


@pytest.mark.usefixtures("everything_is_large")
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 48), (7, 48), (3, 5, 48), (2, 3, 5, 48)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_values_are_those_of_torchs_linear_layer(bias: bool, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    network = nn.Sequential(nn.Linear(48, 30, bias=bias)).to(dtype).eval()
    values = torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)
    with torch.inference_mode():
        expected = network(values)
        assert prepack_weights(network, values[:1]) == 1
        torch.testing.assert_close(network(values), expected)


@pytest.mark.usefixtures("everything_is_large")
def test_images_keep_the_layout_that_convolutions_like() -> None:
    network = nn.Sequential(nn.Conv2d(64, 32, 3))
    assert packed(network) == 1
    with torch.inference_mode():
        made = network(IMAGES.to(memory_format=torch.channels_last))
    assert made.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "modules"),
    [
        ("mnist_cnn", 0),
        ("alexnet_finetune", 6),
        ("resnet18", 8),
        ("swin_t", 5),  # whose attention takes the weights of its linear layers by itself
        ("vit_b_32", 25),
    ],
)
def test_what_has_many_weights_is_packed_and_the_logits_are_the_same(architecture: str, modules: int) -> None:
    torch.manual_seed(1)
    network = build(architecture, 10).eval()
    size = (1, 28) if architecture == "mnist_cnn" else (3, 224)
    images = torch.randn(3, size[0], size[1], size[1])
    with torch.inference_mode():
        expected = network(images)
        assert packed(network, torch.zeros_like(images[:1])) == modules
        made = network(images.to(memory_format=torch.channels_last))
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-4 * float(expected.std()))


@pytest.mark.usefixtures("everything_is_large")
@pytest.mark.parametrize(
    "module",
    [
        nn.Conv2d(64, 8, 1),
        nn.Conv2d(64, 64, 3, groups=2),
        nn.Conv2d(64, 8, 3, padding="same"),
        nn.Conv2d(64, 8, 3, padding=1, padding_mode="reflect"),
        nn.ConvTranspose2d(64, 8, 3),
        type("OfSomebodyElse", (nn.Conv2d,), {})(64, 8, 3),
        type("OfSomebodyElse", (nn.Linear,), {})(11, 8),
    ],
)
def test_other_modules_stay(module: nn.Module) -> None:
    network = nn.Sequential(module)
    assert packed(network) == 0
    assert network[0] is module


@pytest.mark.usefixtures("everything_is_large")
def test_a_module_of_two_names_is_packed_under_both() -> None:
    convolution = nn.Conv2d(64, 64, 3, padding=1)
    network = nn.Sequential(convolution, nn.Sequential(convolution))
    assert packed(network) == 1
    assert isinstance(network[0], PackedConv2d)
    assert list(network[1].children()) == [network[0]]


class Network(nn.Module):
    """A convolution, a linear layer, and a way through them."""

    def __init__(self, way: Callable[["Network", torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.way = way
        self.conv = nn.Conv2d(64, 8, 3)
        self.linear = nn.Linear(8, 8)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.way(self, images)


@pytest.mark.usefixtures("everything_is_large")
def test_a_module_whose_weights_are_used_without_calling_it_stays() -> None:
    network = Network(lambda net, x: net.conv(x).mean((2, 3)) @ net.linear.weight)
    assert packed(network) == 1
    assert [type(module) for module in network.children()] == [PackedConv2d, nn.Linear]


@pytest.mark.usefixtures("everything_is_large")
@pytest.mark.parametrize(
    "way",
    [
        lambda net, x: net.linear(net.conv(x).mean((2, 3))) + net.conv.weight.sum(),
        lambda net, x: net.linear(net.conv(x)),
    ],
)
def test_a_network_that_cannot_do_with_packed_modules_or_at_all_is_as_it_was(
    way: Callable[[Network, torch.Tensor], torch.Tensor],
) -> None:
    network = Network(way)
    modules = network.conv, network.linear
    with pytest.raises((AttributeError, RuntimeError)):
        packed(network)
    assert (network.conv, network.linear) == modules
    assert not network.conv._forward_pre_hooks


@pytest.mark.slow
@pytest.mark.usefixtures("everything_is_large")
def test_the_weights_are_there_but_once() -> None:
    network = nn.Sequential(nn.Conv2d(64, 32, 3), nn.Flatten(), nn.Linear(32 * 11 * 9, 8))
    weights = [weakref.ref(network[0].weight), weakref.ref(network[2].weight)]
    assert packed(network) == 2
    gc.collect()
    assert [weight() for weight in weights] == [None, None]


@pytest.mark.usefixtures("everything_is_large")
@pytest.mark.parametrize(
    ("owner", "function", "dtype"),
    [
        (torch.backends.mkldnn, "is_available", torch.float32),
        (torch.ops.mkldnn, "_is_mkldnn_bf16_supported", torch.bfloat16),
    ],
)
def test_nothing_is_packed_where_the_kernels_are_not_there(
    monkeypatch: pytest.MonkeyPatch, owner: object, function: str, dtype: torch.dtype
) -> None:
    network = nn.Sequential(nn.Conv2d(64, 32, 3)).to(dtype)
    with monkeypatch.context() as patched:
        patched.setattr(owner, function, lambda: False)
        assert packed(network, IMAGES[:1].to(dtype)) == 0
    assert packed(network, IMAGES[:1].to(dtype)) == 1


@pytest.mark.usefixtures("everything_is_large")
def test_nothing_is_packed_in_what_the_kernels_do_not_compute_in() -> None:
    assert packed(nn.Sequential(nn.Conv2d(64, 32, 3)).double(), IMAGES[:1].double()) == 0


@pytest.mark.slow
@pytest.mark.usefixtures("everything_is_large")
@pytest.mark.parametrize(
    ("how", "modules"),
    [
        ({}, {PackedConv2d, PackedLinear}),
        ({"precision": "bf16"}, {PackedConv2d, PackedLinear}),
        ({"compile_with": "eager"}, set()),
    ],
)
def test_what_is_served_on_a_cpu_is_packed_unless_it_is_compiled(
    tmp_path: Path, how: dict[str, str], modules: set[type[nn.Module]]
) -> None:
    publish(tmp_path, 1, checkpoint())
    calls: set[type[nn.Module]] = set()
    hook = nn.modules.module.register_module_forward_pre_hook(lambda module, _: calls.add(type(module)))
    try:
        verify(tmp_path / "digits" / "1.safetensors", device=CPU, max_items=2, **how)  # type: ignore[arg-type]
    finally:
        hook.remove()
    assert calls & {PackedConv2d, PackedLinear} == modules
