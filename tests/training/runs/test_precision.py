"""The precision of the forward pass: what was asked for, or what the device has units for."""

import pytest
import torch

from training.errors import TrainingError
from training.recipes.recipe import Recipe
from training.runs.precision import precision

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("has", "expected"), [({"amx_bf16": True}, "bf16"), ({"amx_bf16": False}, "fp32"), ({}, "fp32")]
)
def test_on_a_cpu_the_precision_is_bf16_where_it_has_units_for_it(
    tiny: Recipe, monkeypatch: pytest.MonkeyPatch, has: dict[str, bool], expected: str
) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: has, raising=False)
    assert precision(tiny.replace(precision="auto"), CPU) == expected
    monkeypatch.delattr("torch.cpu.get_capabilities")
    assert precision(tiny.replace(precision="auto"), CPU) == "fp32"


def test_the_precision_is_the_one_asked_for(tiny: Recipe) -> None:
    assert precision(tiny.replace(precision="fp32"), CPU) == "fp32"
    assert precision(tiny.replace(precision="bf16"), CPU) == "bf16"
    with pytest.raises(TrainingError, match="bf16"):
        precision(tiny.replace(precision="fp16"), CPU)
