"""Folding changes how a network computes and nothing else, and leaves alone what it does not understand."""

import copy
from collections.abc import Callable

import pytest
import torch
from torch import nn

from app.inference.optimize.fold_batch_norm import fold_batch_norm
from classifier.architectures import build


def trained(network: nn.Module) -> nn.Module:
    """In eval mode, with batch norms that do something: fresh ones hardly change what goes through them."""
    torch.manual_seed(7)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1, 0.2)
            nn.init.normal_(module.bias, 0, 0.2)
            if module.running_mean is not None and module.running_var is not None:
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.3, 3)
    return network.eval().requires_grad_(False)


def folded(network: nn.Module, size: int = 64) -> int:
    """How many batch norms are gone; with what is left the logits are the same."""
    images = torch.randn(4, 3, size, size)
    expected = network(images)
    count = fold_batch_norm(network, torch.zeros(1, 3, size, size))
    error = (network(images) - expected).abs() / (1 + expected.abs())
    assert float(error.max()) < 1e-4  # a tenth of what the proof allows
    # Where all logits are small, the above says little.
    torch.testing.assert_close(network(images), expected, rtol=1e-3, atol=1e-3 * float(expected.std()))
    return count


def norms(network: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in network.modules())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("architecture", "gone", "left"),
    [
        ("resnet18", 20, 0),
        ("mobilenet_v3_small", 34, 0),
        ("googlenet", 57, 0),
        ("densenet121", 59, 62),  # the others come before their convolution, behind a concatenation
        ("alexnet", 0, 0),
    ],
)
def test_batch_norms_behind_a_convolution_are_gone_and_the_logits_are_the_same(
    architecture: str, gone: int, left: int
) -> None:
    network = trained(build(architecture, 10))
    assert folded(network) == gone
    assert norms(network) == left


class Network(nn.Module):
    """Two convolutions, two batch norms, and a way through them."""

    def __init__(self, way: Callable[["Network", torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.way = way
        self.conv, self.other = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 1)
        self.norm, self.another = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.way(self, images).mean((2, 3))


WAYS_THAT_CANNOT_BE_FOLDED: dict[str, Callable[[Network, torch.Tensor], torch.Tensor]] = {
    "the convolution is used twice": lambda net, x: net.norm(net.conv(x)) + net.conv(x + 1),
    "twice, before two norms": lambda net, x: net.norm(net.conv(x)) + net.another(net.conv(x + 1)),
    "twice, before one norm": lambda net, x: net.norm(net.conv(x)) + net.norm(net.conv(x + 1)),
    "twice, one behind the other": lambda net, x: net.norm(net.conv(net.conv(x))),
    "the norm is used twice": lambda net, x: net.norm(net.conv(x)) + net.norm(net.other(x)),
    "the norm is before the convolution": lambda net, x: net.conv(net.norm(x)),
    "something is between the two": lambda net, x: net.norm(net.conv(x).relu()),
    "a view is between the two": lambda net, x: net.norm(net.conv(x).transpose(2, 3)),
    "a sum is between the two": lambda net, x: net.norm(net.conv(x) + x),
    "two norms take one result": lambda net, x: net.norm(y := net.conv(x)) * net.another(y),
    "one is used by no more than its weights": lambda net, x: net.norm(nn.functional.conv2d(x, net.conv.weight)),
}


@pytest.mark.parametrize("way", WAYS_THAT_CANNOT_BE_FOLDED.values(), ids=WAYS_THAT_CANNOT_BE_FOLDED)
def test_what_is_not_a_convolution_and_its_own_norm_stays(way: Callable[[Network, torch.Tensor], torch.Tensor]) -> None:
    network = trained(Network(way))
    assert folded(network) == 0
    assert norms(network) == 2


@pytest.mark.parametrize(
    "use",
    [
        lambda normed, made: normed + made,
        lambda normed, made: torch.cat([normed, made], dim=1),
        lambda normed, made: normed.add(other=made),
        lambda normed, made: normed * made.sigmoid(),
        lambda normed, made: made + 0 * normed,
    ],
    ids=["added", "in a list", "by keyword", "by a method", "added to"],
)
@pytest.mark.parametrize("first", [True, False], ids=["norm first", "norm last"])
def test_a_convolution_whose_result_is_used_elsewhere_too_stays(
    use: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], first: bool
) -> None:
    def way(net: Network, x: torch.Tensor) -> torch.Tensor:
        made = net.conv(x)
        if first:
            normed = net.norm(made)
            return use(normed, made)
        twice = made * 2
        return use(net.norm(made), twice / 2)

    assert folded(trained(Network(way))) == 0


def test_to_ask_a_result_for_its_form_is_no_use_of_it() -> None:
    def way(network: Network, images: torch.Tensor) -> torch.Tensor:
        x: torch.Tensor = network.conv(images)
        assert x.shape[0] == x.size(0) == len(x)
        assert (x.ndim, x.dtype, x.device) == (x.dim(), torch.float32, images.device)
        normed: torch.Tensor = network.norm(x)
        return normed

    assert folded(trained(Network(way))) == 1


def test_a_convolution_whose_result_is_also_what_the_network_gives_stays() -> None:
    class Both(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            made = self.conv(images)
            return made, self.norm(made)

    network = trained(Both())
    assert fold_batch_norm(network, torch.zeros(1, 3, 8, 8)) == 0


def test_a_module_with_two_names_stays() -> None:
    network = Network(lambda net, x: net.norm(net.conv(x)))
    network.alias = network.conv
    assert folded(trained(network)) == 0


def test_one_of_two_is_folded_where_only_that_can_be() -> None:
    network = trained(Network(lambda net, x: net.norm(net.conv(x)) + net.another(net.other(x).relu())))
    assert folded(network) == 1
    assert isinstance(network.norm, nn.Identity)
    assert isinstance(network.another, nn.BatchNorm2d)


def test_a_norm_that_works_by_the_batch_stays() -> None:
    network = Network(lambda net, x: net.norm(net.conv(x)))
    network.norm = nn.BatchNorm2d(3, track_running_stats=False)
    assert folded(trained(network)) == 0


def test_a_network_that_fails_on_its_way_is_as_it_was() -> None:
    def way(net: Network, x: torch.Tensor) -> torch.Tensor:
        net.norm(net.conv(x))
        raise ValueError("not today")

    network = trained(Network(way))
    before = copy.deepcopy(network.state_dict())
    with pytest.raises(ValueError, match="not today"):
        fold_batch_norm(network, torch.zeros(1, 3, 8, 8))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    assert norms(network) == 2
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in network.modules())
