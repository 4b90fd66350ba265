"""Learner: what the steps of a stage change. The weights, the optimizer, the running mean, and the random numbers."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, Self

import torch
from torch import nn

from training.errors import TrainingError
from training.networks import heads
from training.recipes.recipe import Recipe

_NORMS = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class Average:
    """A running mean of the weights that train, and of their buffers: the decay is lower in the first steps.

    As in Polyak and Juditsky 1992; the warm-up of the decay, (1 + steps) / (10 + steps), is TensorFlow's.
    """

    def __init__(self, network: nn.Module, parts: tuple[str, ...], decay: float) -> None:
        self.decay = decay
        self.steps = 0
        self._originals = list(heads.state_of(network, parts).values())
        self._means = [tensor.detach().clone() for tensor in self._originals]

    @torch.no_grad()
    def update(self) -> None:
        self.steps += 1
        share = 1 - min(self.decay, (1 + self.steps) / (10 + self.steps))
        for mean, original in zip(self._means, self._originals, strict=True):
            if mean.is_floating_point():
                mean.lerp_(original, share)
            else:
                mean.copy_(original)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """The network has the means for its weights meanwhile."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    @torch.no_grad()
    def begin(self) -> None:
        """Forgets all that was, and starts from the weights as they are."""
        self.steps = 0
        for mean, original in zip(self._means, self._originals, strict=True):
            mean.copy_(original)

    def state(self) -> dict[str, Any]:
        return {"steps": self.steps, "means": self._means}

    def restore(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        for mean, saved in zip(self._means, state["means"], strict=True):
            mean.copy_(saved)

    @torch.no_grad()
    def _swap(self) -> None:
        for mean, original in zip(self._means, self._originals, strict=True):
            kept = mean.clone()
            mean.copy_(original)
            original.copy_(kept)


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
    average: Average | None

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
            average=Average(network, parts, recipe.ema) if recipe.ema else None,
        )

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    def measured(self) -> contextlib.AbstractContextManager[None]:
        """The network has the weights that are measured and published meanwhile: the running mean, if there is one."""
        return contextlib.nullcontext() if self.average is None else self.average.in_place()


def precision(recipe: Recipe, device: torch.device) -> Literal["fp32", "bf16", "fp16"]:
    """Of the forward pass on that device: what was asked for, or what the device has units for.

    Raises: TrainingError for fp16 on a CPU, which takes minutes where fp32 takes seconds.
    """
    if recipe.precision != "auto":
        if recipe.precision == "fp16" and device.type == "cpu":
            raise TrainingError("precision fp16 is for a GPU; on a CPU take fp32 or bf16")
        return recipe.precision
    if device.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    return "bf16" if device.type == "cpu" and _multiplies_bf16() else "fp32"


def _multiplies_bf16() -> bool:
    """Whether this processor has units for it (Intel's AMX); elsewhere bf16 is the slower one."""
    if not hasattr(torch.cpu, "get_capabilities"):  # an older torch
        return False
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))


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
