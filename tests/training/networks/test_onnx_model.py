"""What ONNX cannot express, or another runtime computes otherwise, is refused in one line."""

from types import SimpleNamespace
from typing import Any, NoReturn

import pytest
import torch

from training.errors import TrainingError
from training.networks.onnx_model import check_values, onnx_model

EMPTY: Any = SimpleNamespace(state_dict={}, constants={})  # where torch's exporter is replaced


@pytest.mark.slow
def test_what_onnx_cannot_express_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")

    def refuse(*_: object, **__: object) -> NoReturn:
        cause = ValueError("No ONNX function found for aten.foo.\n  Try something else.")
        raise torch.onnx.OnnxExporterError("Failed to convert:\n- a long report") from cause

    monkeypatch.setattr(torch.onnx, "export", refuse)
    with pytest.raises(TrainingError) as caught:
        onnx_model(EMPTY, {})
    expected = "ONNX cannot express this network: No ONNX function found for aten.foo. Try something else."
    assert str(caught.value) == expected


def test_weights_too_large_for_one_file_are_refused_before_anything_is_computed() -> None:
    pytest.importorskip("onnxscript", reason="the extra onnx is not installed")
    weights = {"weight": torch.empty(1 << 29, device="meta")}
    recorded: Any = SimpleNamespace(state_dict=weights, constants={})
    with pytest.raises(
        TrainingError, match=r"have 2,147,483,648 bytes; an ONNX file holds 2 GiB at most: use --format"
    ):
        onnx_model(recorded, {})


def test_without_onnxruntime_nothing_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    check_values(b"no model", torch.zeros(1, 1, 2, 2), torch.zeros(1, 2))
