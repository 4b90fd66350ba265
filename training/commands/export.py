"""Writes a published version as a file that other programs can load."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO, Literal

import safetensors.torch
import torch

from classifier import atomic_files
from classifier.architectures import load_weights
from classifier.checkpoint import Checkpoint, CheckpointError
from classifier.manifest import Manifest
from classifier.normalize import normalizer
from training import tensor_files
from training.errors import TrainingError, one_line
from training.networks import onnx_model
from training.networks.export_program import record
from training.networks.program_module import ProgramModule
from training.networks.spec import NetworkSpec
from training.publishing import sidecar
from training.publishing.open_checkpoint import reading
from training.publishing.sidecar import Sidecar

FileFormat = Literal["state_dict", "pt2", "onnx"]

_BY_ENDING: dict[str, FileFormat] = {".pt2": "pt2", ".onnx": "onnx"}


def export(checkpoint: Path, target: Path, *, file_format: FileFormat | None = None, overwrite: bool = False) -> None:
    """Writes the network of a published version, or its weights alone.

    - `state_dict`: the weights, as `torch.load` and `load_state_dict` expect them, or as safetensors if `target` ends
      in `.safetensors`.
    - `pt2`: the network, for batches of any size, as `torch.export.load` expects it.
    - `onnx`: the same, for ONNX runtimes.

    Beside it, `<target>.json` says what else serving needs: architecture, labels, preprocess, temperature, threshold.
    `import` reads it. It is written first and holds the hash of the file. So weights are never there without it, and a
    pair of which only one file is new is noticed.

    Args:
        file_format: None: by the ending of `target`; `state_dict` for all but `.pt2` and `.onnx`.

    Raises:
        TrainingError: there is no sound checkpoint, a file is there already and may not be overwritten, or the network
            cannot be written in this format.
        TorchvisionError: torchvision is needed and cannot be imported.
        OSError: a file cannot be written.
    """
    file_format = file_format or _BY_ENDING.get(target.suffix.lower(), "state_dict")
    beside = sidecar.path_of(target)
    for path in (target, beside):
        if path.exists() and checkpoint.exists() and path.samefile(checkpoint):
            raise TrainingError(f"{path} is the checkpoint itself: choose another name")
        if path.exists() and not overwrite:
            raise TrainingError(f"{path} is there already: choose another name, or use --force")
    if file_format == "onnx":
        onnx_model.check_installed()  # reading a checkpoint may take long
    with reading(checkpoint):
        own = Checkpoint.load(checkpoint)
    note = _note(own.manifest, file_format)
    said = Sidecar.of(own.manifest).model_copy(update={"content": file_format, "note": note})
    write = _writer(own, said, file_format, safe=target.suffix.lower() == ".safetensors")
    with atomic_files.atomic_write(target) as file:
        write(file)
        file.flush()
        sha256 = sidecar.sha256_of(Path(file.name))
        sidecar.write(target, said.model_copy(update={"sha256": sha256}))


def _note(manifest: Manifest, file_format: FileFormat) -> str | None:
    """Returns what a person has to know who uses the file without flambeau."""
    if file_format == "state_dict":
        if manifest.program is None:
            return None
        return (
            f"Only the code of the network can load these weights, {manifest.architecture}: import needs --network. "
            "A file of --format pt2 needs no code."
        )
    height, width, channels = manifest.preprocess.shape
    levels = "levels of ink, brightened as classifier/ink.py does it" if manifest.preprocess.ink_on_paper else "pixels"
    return (
        f"It takes images, float32 [n, {channels}, {height}, {width}] in {manifest.preprocess.mode}, where n is 1 or "
        f"more: resize and crop as preprocess says, then ({levels} / 255 - mean) / std. "
        f"It returns logits, float32 [n, {len(manifest.labels)}]: divide them by the temperature before the softmax."
    )


def _writer(own: Checkpoint, said: Sidecar, file_format: FileFormat, *, safe: bool) -> Callable[[BinaryIO], object]:
    """Returns what writes the content of the file. All that can be refused is refused before it is returned."""
    if file_format == "state_dict":
        weights = _state_dict(own)
        if safe:
            data = safetensors.torch.save({name: tensor.contiguous() for name, tensor in weights.items()})
            return lambda file: file.write(data)
        return lambda file: tensor_files.save_to(file, weights)
    recorded = _recorded(own)
    if file_format == "pt2":
        return lambda file: torch.export.save(recorded, file)
    model = onnx_model.onnx_model(recorded, _properties(said))
    images = normalizer(own.manifest.preprocess, device=torch.device("cpu"))(own.reference.pixels)
    onnx_model.check_values(model, images, own.reference.logits)
    return lambda file: file.write(model)


def _state_dict(own: Checkpoint) -> dict[str, torch.Tensor]:
    if own.program is not None:
        return dict(own.network)
    network = NetworkSpec.of(own.manifest.architecture, own.manifest.preprocess).meta(len(own.manifest.labels))
    load_weights(network, own.network, share=True)
    weights: dict[str, torch.Tensor] = network.state_dict()  # it has the layers' versions, too
    return weights


def _recorded(own: Checkpoint) -> torch.export.ExportedProgram:
    height, width, channels = own.manifest.preprocess.shape
    try:
        network = own.build() if own.program is None else ProgramModule(own.program, own.program_tensors).eval()
        recorded = record(network, (channels, height, width))
    except (CheckpointError, RuntimeError) as error:
        raise TrainingError(f"this network cannot be exported: {one_line(error)}") from error
    for node in recorded.graph.nodes:
        node.meta.pop("stack_trace", None)  # it names paths of this machine
    return recorded


def _properties(said: Sidecar) -> dict[str, str]:
    """Returns what the sidecar says, as an ONNX model holds it: texts by name."""
    return {
        name: value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        for name, value in said.model_dump(mode="json").items()
        if value is not None
    }
