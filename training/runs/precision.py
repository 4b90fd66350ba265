"""Chooses the precision of the forward pass on a device."""

from typing import Literal

import torch

from training.errors import TrainingError
from training.recipes.recipe import Recipe


def precision(recipe: Recipe, device: torch.device) -> Literal["fp32", "bf16", "fp16"]:
    """Returns the precision that the recipe asks for or, for "auto", the one that the device has units for.

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
    """Returns whether this processor has units for bf16 (Intel's AMX); elsewhere bf16 is slower than fp32."""
    if not hasattr(torch.cpu, "get_capabilities"):  # an older torch
        return False
    return bool(torch.cpu.get_capabilities().get("amx_bf16", False))
