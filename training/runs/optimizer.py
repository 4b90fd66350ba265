"""Makes the optimizer of a stage: which parameters decay, and which layers learn slower."""

from typing import Any

import torch
from torch import nn

from training.networks import layers
from training.recipes.recipe import Recipe

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
_SCALE = "lr_scale"  # in a group: the share that it gets of the learning rate


def make_optimizer(network: nn.Module, recipe: Recipe, *, lr: float) -> torch.optim.Optimizer:
    """Returns the optimizer of all parameters that get gradients.

    Args:
        lr: the learning rate that it begins with.
    """
    groups = _groups(network, recipe)
    if recipe.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0)
    kind = torch.optim.Adam if recipe.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=lr, betas=recipe.betas, fused=True)  # a quarter of the time on a CPU


def set_learning_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Sets the learning rate of the last layer, and of each other layer its share."""
    for group in optimizer.param_groups:
        # Of more, torch would raise an error of its own, before the loss can be seen to be not finite.
        group["lr"] = min(rate * group.get(_SCALE, 1.0), torch.finfo(torch.float32).max)


def _groups(network: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Groups the parameters: weights that multiply decay, norms and biases do not (He et al. 2019, "Bag of Tricks")."""
    free = {
        id(parameter)
        for module in network.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if isinstance(module, _NORMS) or name.endswith("bias") or parameter.dim() <= 1
    }
    trained = {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
    if recipe.layer_decay == 1:
        return _two_groups(list(trained.values()), free, recipe.weight_decay)
    depths = layers.depths(network)
    last = max(depths.values())
    return [
        group | {_SCALE: recipe.layer_decay ** (last - depth)}
        for depth in sorted({depths[name] for name in trained})
        for group in _two_groups([p for name, p in trained.items() if depths[name] == depth], free, recipe.weight_decay)
        if group["params"]
    ]


def _two_groups(parameters: list[nn.Parameter], free: set[int], weight_decay: float) -> list[dict[str, Any]]:
    return [
        {"params": [p for p in parameters if id(p) not in free], "weight_decay": weight_decay},
        {"params": [p for p in parameters if id(p) in free], "weight_decay": 0.0},
    ]
