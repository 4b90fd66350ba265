"""Makes an ONNX model of a network. It needs the extra `onnx`."""

import contextlib
import importlib.util
import io
import warnings
from collections.abc import Mapping

import torch

from training.errors import TrainingError, one_line

_MAX_BYTES = (1 << 31) - (1 << 24)  # protobuf writes no more than 2 GiB; the graph takes the rest
_OPSET = 20
_TOLERANCE = 1e-4


def check_installed() -> None:
    """Checks that the packages are there. Raises: TrainingError, which says what to install."""
    missing = [name for name in ("onnx", "onnxscript") if importlib.util.find_spec(name) is None]
    if missing:
        raise TrainingError(f"ONNX needs {' and '.join(missing)}, not installed here: pip install 'flambeau[onnx]'")


def onnx_model(recorded: torch.export.ExportedProgram, properties: Mapping[str, str]) -> bytes:
    """Returns the network as an ONNX model, which takes `images` and returns `logits`.

    Args:
        recorded: what `training.networks.export_program.record` returns.
        properties: what the model says of itself, by name.

    Raises: TrainingError if ONNX cannot express the network, or the weights are too large for one file.
    """
    check_installed()
    size = sum(tensor.nbytes for tensor in [*recorded.state_dict.values(), *recorded.constants.values()])
    if size > _MAX_BYTES:
        raise TrainingError(f"the weights have {size:,} bytes; an ONNX file holds 2 GiB at most: use --format pt2")
    from onnx_ir import SymbolicDim
    from onnx_ir.passes.common import ClearMetadataAndDocStringPass

    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            program = torch.onnx.export(
                recorded, input_names=["images"], output_names=["logits"], opset_version=_OPSET, verbose=False
            )
    except (torch.onnx.OnnxExporterError, RuntimeError) as error:
        raise TrainingError(f"ONNX cannot express this network: {_in_a_line(error)}") from error
    if program is None:
        raise AssertionError("torch.onnx.export writes a file only where one is named")
    ClearMetadataAndDocStringPass()(program.model)  # it holds paths of this machine
    graph = program.model.graph
    graph.metadata_props.clear()
    for value in (*graph.inputs, *graph.outputs):
        value.shape[0] = SymbolicDim("batch")
    program.model.metadata_props.update(properties)
    data: bytes = program.model_proto.SerializeToString()
    return data


def check_values(model: bytes, images: torch.Tensor, logits: torch.Tensor) -> None:
    """Checks that onnxruntime computes what torch did. Where onnxruntime is not installed, nothing is checked.

    Args:
        model: what `onnx_model` returned.
        images: float32 [n, channels, height, width].
        logits: float32 [n, classes], what torch made of them.

    Raises: TrainingError if it does not.
    """
    if importlib.util.find_spec("onnxruntime") is None:
        return
    import onnxruntime

    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    for batch in (images, images[:1]):
        (values,) = session.run(None, {"images": batch.numpy()})
        wrong = float((torch.from_numpy(values) - logits[: len(batch)]).abs().max())
        if not wrong <= _TOLERANCE * max(1.0, float(logits.abs().max())):
            raise TrainingError(f"onnxruntime's logits are {wrong:g} apart from torch's: this network is not exported")


def _in_a_line(error: Exception) -> str:
    cause: BaseException = error
    while cause.__cause__ is not None:
        cause = cause.__cause__
    return one_line(cause)
