"""Blocks are left out in training by a probability that rises from the first to the last."""

import pytest
import torch
from torchvision.ops import StochasticDepth

from classifier.architectures import meta_network
from training.errors import TrainingError
from training.networks.drop_path import set_drop_path
from training.recipes.builtin import builtin
from training.runs.initial_weights import InitialWeights

FRESH = InitialWeights(None, None, None, None)


def probabilities(network: torch.nn.Module) -> list[float]:
    return [module.p for module in network.modules() if isinstance(module, StochasticDepth)]


@pytest.mark.parametrize("architecture", ["convnext_tiny", "swin_t", "efficientnet_b0", "maxvit_t"])
def test_the_probability_rises_evenly_from_the_first_block_to_the_last(architecture: str) -> None:
    network = meta_network(architecture, 10)
    set_drop_path(network, 0.3, architecture)
    found = probabilities(network)
    steps = torch.tensor(found).diff()
    assert (found[0], found[-1]) == (0.0, 0.3)
    torch.testing.assert_close(steps, steps[:1].expand(len(steps)))


def test_a_network_without_such_blocks_is_refused() -> None:
    recipe = builtin("strokes").replace(drop_path=0.1)
    with pytest.raises(TrainingError, match="drop_path: mnist_cnn has no block that can be left out; leave"):
        FRESH.network(recipe, 10)


def test_none_leaves_the_network_as_it_is_and_0_leaves_out_nothing() -> None:
    recipe = builtin("photos", "scratch:efficientnet_b0")
    assert max(probabilities(FRESH.network(recipe, 2))) > 0.1
    assert set(probabilities(FRESH.network(recipe.replace(drop_path=0), 2))) == {0.0}


def test_timm_is_told_by_its_own_keyword() -> None:
    pytest.importorskip("timm", reason="timm is not installed: pip install 'flambeau[timm]'")
    recipe = builtin("photos", "scratch:timm/convnext_atto").replace(drop_path=0.2)
    blocks = [vars(m)["drop_prob"] for m in recipe.spec.meta(2).modules() if type(m).__name__ == "DropPath"]
    assert max(blocks) == pytest.approx(0.2)
