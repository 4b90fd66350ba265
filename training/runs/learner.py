"""Learner: what the steps of a stage change. The weights, the optimizer, the running mean, and the random numbers."""

import contextlib
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn

from training.networks import heads
from training.recipes.recipe import Recipe
from training.runs.ema import Ema
from training.runs.precision import precision

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class Learner:
    """Args:
    network: the whole of it.
    parts: the names of its modules that train; all others are frozen and in eval mode.
    generator: of the samples' order and what is done to them.
    scaler: of fp16's gradients; it does nothing in other precisions.
    dtype: of the forward pass.
    """

    network: nn.Module
    parts: tuple[str, ...]
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    scaler: torch.amp.GradScaler
    dtype: torch.dtype
    ema: Ema | None

    @classmethod
    def of(cls, network: nn.Module, parts: tuple[str, ...], recipe: Recipe, *, device: torch.device, lr: float) -> Self:
        heads.freeze(network, parts)
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        dtype = _DTYPES[precision(recipe, device)]
        optimizer = torch.optim.SGD(
            _groups(network, recipe.weight_decay), lr=lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0
        )
        return cls(
            network=network,
            parts=parts,
            optimizer=optimizer,
            generator=torch.Generator().manual_seed(recipe.seed),
            scaler=torch.amp.GradScaler(device.type, enabled=dtype == torch.float16),
            dtype=dtype,
            ema=Ema(network, parts, recipe.ema) if recipe.ema else None,
        )

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def measured(self) -> contextlib.AbstractContextManager[None]:
        """The network has the weights that are measured and published meanwhile: the running mean, if there is one."""
        return contextlib.nullcontext() if self.ema is None else self.ema.in_place()


def _groups(network: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Weights that multiply are pulled towards 0; norms and biases are not (He et al. 2019, "Bag of Tricks")."""
    free = {
        id(parameter)
        for module in network.modules()
        for name, parameter in module.named_parameters(recurse=False)
        if isinstance(module, _NORMS) or name.endswith("bias") or parameter.dim() <= 1
    }
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return [
        {"params": [p for p in trained if id(p) not in free], "weight_decay": weight_decay},
        {"params": [p for p in trained if id(p) in free], "weight_decay": 0.0},
    ]
