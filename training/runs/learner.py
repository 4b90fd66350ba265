"""Holds what the steps of a stage change: the weights, the optimizer, the running mean, and the random numbers."""

import contextlib
from collections.abc import Collection
from dataclasses import dataclass
from typing import Self

import torch
from torch import nn

from training.networks import heads
from training.recipes.recipe import Recipe
from training.runs.ema import Ema
from training.runs.optimizer import make_optimizer
from training.runs.precision import precision

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True, slots=True)
class Learner:
    """Holds what the steps of one stage change.

    Args:
        network: the whole network.
        parts: the names of its modules that train; all others are frozen and in eval mode.
        generator: draws the order of the samples, and what is done to whole batches at random. It is on the CPU.
        scaler: scales the gradients of fp16; it does nothing in other precisions.
        dtype: of the forward pass.
        ema: the running mean of the weights; None: there is none.
    """

    network: nn.Module
    parts: tuple[str, ...]
    optimizer: torch.optim.Optimizer
    generator: torch.Generator
    scaler: torch.amp.GradScaler
    dtype: torch.dtype
    ema: Ema | None

    @classmethod
    def of(
        cls,
        network: nn.Module,
        parts: tuple[str, ...],
        recipe: Recipe,
        *,
        device: torch.device,
        lr: float,
        fixed: Collection[str] = (),
    ) -> Self:
        """Returns the learner of a new stage. It moves the network to `device` and freezes what does not train.

        Args:
            lr: the learning rate that the optimizer begins with.
            fixed: names of parameters that train in no stage.

        Raises: TrainingError if the device cannot compute in the recipe's precision.
        """
        heads.freeze(network, parts, fixed)
        network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        dtype = _DTYPES[precision(recipe, device)]
        return cls(
            network=network,
            parts=parts,
            optimizer=make_optimizer(network, recipe, lr=lr),
            generator=torch.Generator().manual_seed(recipe.seed),
            scaler=torch.amp.GradScaler(device.type, enabled=dtype == torch.float16),
            dtype=dtype,
            ema=Ema(network, parts, recipe.ema) if recipe.ema else None,
        )

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.network.parameters()).device

    def measured(self) -> contextlib.AbstractContextManager[None]:
        """Gives the network meanwhile the weights that are measured and published: its running mean, if any."""
        return contextlib.nullcontext() if self.ema is None else self.ema.in_place()
