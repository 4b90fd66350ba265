"""One checkpoint file: weights, manifest and the reference batch that proves them, as safetensors.

    network.<state_dict name>   the weights
    program                     uint8, 1-D: the network itself as a JSON document, where it is not known by name
    constant.<name>             tensors of the program that are no weights
    reference.encoded.<i>       uint8, 1-D: up to 8 images as PNG
    reference.pixels            uint8 [n, height, width, channels]: what training's `to_pixels` made of them
    reference.logits            float32 [n, classes]: what exactly these weights made of those
    figures.<name>              large figures, such as a confusion matrix

The header's metadata holds `manifest` (JSON) and `sha256`. The hash covers the manifest's UTF-8 bytes, and then all
bytes behind the header. The format is described at https://huggingface.co/docs/safetensors. No pickle is read or
written.
"""

import io
import math
import os
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import safetensors
import safetensors.torch
import torch
from torch import nn

from classifier.architectures import load_weights, meta_network
from classifier.header import CheckpointError, Header, content_hash
from classifier.manifest import Manifest
from classifier.program.check import check
from classifier.program.document import Program
from classifier.program.network import ProgramNetwork, Sizes

__all__ = ["MAX_REFERENCES", "Checkpoint", "CheckpointError", "Header", "Reference"]

MAX_REFERENCES = 8
_NO_DIGEST = "0" * 64
_LARGEST_BATCH = 1024  # that anybody computes who does not say how large theirs are
_FIGURES = (torch.float32, torch.int64)


@dataclass(frozen=True, slots=True)
class Reference:
    """Holds images, pixels and logits that belong together.

    A server that cannot repeat them does not serve the weights.

    Args:
        encoded: 1 to `MAX_REFERENCES` images as PNG files.
        pixels: uint8 [n, height, width, channels], what training made of these images.
        logits: float32 [n, classes], what exactly these weights made of these pixels.
    """

    encoded: tuple[bytes, ...]
    pixels: torch.Tensor
    logits: torch.Tensor


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """Holds the whole content of a checkpoint file.

    Args:
        network: the weights, by their names in the network's state_dict.
        figures: large figures by name, float32 or int64.
        program: what the network computes; None: it is known by the name of its architecture.
        constants: tensors that the program uses beside the weights, by name.
    """

    manifest: Manifest
    network: Mapping[str, torch.Tensor]
    reference: Reference
    figures: Mapping[str, torch.Tensor] = field(default_factory=dict)
    program: Program | None = None
    constants: Mapping[str, torch.Tensor] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Reads the whole file at once, so that a later change of the file takes nothing away.

        Raises:
            DamagedError: the content does not match its hash.
            CheckpointError: wrong format, architecture, names, shapes, or weights that are not finite.
            OSError: the file cannot be read.
            TorchvisionError: torchvision is needed and cannot be imported.
        """
        Header.read(path)  # first: what is no checkpoint need not be read whole
        data = path.read_bytes()
        header = Header.parse(io.BytesIO(data), len(data))
        header.check_body([memoryview(data)[header.body_offset :]])
        try:
            tensors = safetensors.torch.load(data)
        except (safetensors.SafetensorError, ValueError, KeyError) as error:  # KeyError: a type that torch has not
            raise CheckpointError(f"not a sound safetensors file: {error}") from error
        checkpoint = cls._from_tensors(header.manifest, tensors)
        checkpoint._check()
        return checkpoint

    def save(self, path: Path) -> None:
        """Writes the file, and returns when it is on the disk. To publish it is the work of training.

        Raises:
            CheckpointError: `load` would refuse it.
            OSError: the file cannot be written.
        """
        self._check()
        manifest_json = self.manifest.to_json()
        data = safetensors.torch.save(self._tensors(), metadata={"manifest": manifest_json, "sha256": _NO_DIGEST})
        body_offset = 8 + int.from_bytes(data[:8], "little")
        body = memoryview(data)[body_offset:]
        # The hash covers bytes that only exist once the file is laid out; it takes the place of as many zeros.
        digest = content_hash(manifest_json, [body])
        header = data[:body_offset].replace(f'"sha256":"{_NO_DIGEST}"'.encode(), f'"sha256":"{digest}"'.encode())
        with path.open("wb") as file:
            file.write(header)
            file.write(body)
            file.flush()
            os.fsync(file.fileno())

    def build(
        self, max_batch: int = _LARGEST_BATCH, *, every_batch: bool = False, free_memory: float = math.inf
    ) -> nn.Module:
        """Returns the network with these weights, on the CPU, in eval mode, without gradients.

        It shares the tensors of this checkpoint; nothing is copied.

        Args:
            max_batch: the largest batch that it will be given. Of a program is checked first what that costs.
            every_batch, free_memory: as `classifier.program.check.check` has them; of no meaning without a program.

        Raises:
            CheckpointError: the architecture is not known, or the program cannot compute such a batch.
            MemoryError: such a batch takes more than `free_memory`.
        """
        network: nn.Module
        if self.program is not None:
            largest = self._check_program(self.program, max_batch, every_batch=every_batch, free_memory=free_memory)
            network = ProgramNetwork(self.program, self.program_tensors, largest=largest)
        else:
            network = self._meta_network()
            load_weights(network, self.network, share=True)
        return network.eval().requires_grad_(False)

    def _meta_network(self) -> nn.Module:
        try:
            return meta_network(self.manifest.architecture, len(self.manifest.labels))
        except ValueError as error:
            raise CheckpointError(str(error)) from error

    @property
    def program_tensors(self) -> dict[str, torch.Tensor]:
        """The weights and the constants, by the names that a program has for them."""
        weights = {f"network.{name}": tensor for name, tensor in self.network.items()}
        return weights | {f"constant.{name}": tensor for name, tensor in self.constants.items()}

    def _check_program(
        self, program: Program, max_batch: int, *, every_batch: bool = False, free_memory: float = math.inf
    ) -> Sizes:
        height, width, channels = self.manifest.preprocess.shape
        return check(
            program,
            (channels, height, width),
            len(self.manifest.labels),
            max_batch,
            every_batch=every_batch,
            free_memory=free_memory,
        )

    def _check(self) -> None:
        if self.program is None:
            if self.manifest.program is not None or self.constants:
                raise CheckpointError("the program that the network is to be is missing")
            _check_network(self._meta_network(), self.network)
        else:
            self._check_tensors_of(self.program)
            self._check_program(self.program, max_batch=2)
        reference, count = self.reference, len(self.reference.encoded)
        if not 1 <= count <= MAX_REFERENCES:
            raise CheckpointError(f"{count} reference images, where 1 to {MAX_REFERENCES} are needed")
        if not all(reference.encoded):
            raise CheckpointError("a reference image is empty")
        _check_tensor("reference.pixels", reference.pixels, torch.uint8, (count, *self.manifest.preprocess.shape))
        _check_tensor("reference.logits", reference.logits, torch.float32, (count, len(self.manifest.labels)))
        for name, figure in self.figures.items():
            if figure.dtype not in _FIGURES:
                raise CheckpointError(f"figures.{name} is {figure.dtype}, where float32 or int64 is expected")

    def _check_tensors_of(self, program: Program) -> None:
        said = self.manifest.program
        if said is None or said.operators != program.operators:
            raise CheckpointError("the manifest does not say which operators its program uses")
        tensors = self.program_tensors
        _check_names(tensors.keys(), program.tensors.keys(), "the program")
        for name, spec in program.tensors.items():
            _check_tensor(name, tensors[name], getattr(torch, spec.dtype), spec.shape)

    def _tensors(self) -> dict[str, torch.Tensor]:
        encoded = {
            f"reference.encoded.{i}": torch.frombuffer(bytearray(png), dtype=torch.uint8)
            for i, png in enumerate(self.reference.encoded)
        }
        tensors = (
            self.program_tensors
            | encoded
            | {"reference.pixels": self.reference.pixels, "reference.logits": self.reference.logits}
            | {f"figures.{name}": tensor for name, tensor in self.figures.items()}
        )
        if self.program is not None:
            tensors["program"] = torch.frombuffer(bytearray(self.program.to_json()), dtype=torch.uint8)
        return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}

    @classmethod
    def _from_tensors(cls, manifest: Manifest, tensors: dict[str, torch.Tensor]) -> Self:
        network = _take(tensors, "network.")
        encoded = _take(tensors, "reference.encoded.")
        figures = _take(tensors, "figures.")
        constants = _take(tensors, "constant.")
        program = tensors.pop("program", None)
        try:
            reference = Reference(
                encoded=tuple(_bytes(f"reference.encoded.{i}", encoded[str(i)]) for i in range(len(encoded))),
                pixels=tensors.pop("reference.pixels"),
                logits=tensors.pop("reference.logits"),
            )
        except KeyError as error:
            raise CheckpointError(f"the reference batch lacks {error}") from error
        if tensors:
            raise CheckpointError(f"tensors that do not belong in a checkpoint: {', '.join(sorted(tensors)[:5])}")
        return cls(
            manifest=manifest,
            network=network,
            reference=reference,
            figures=figures,
            program=None if program is None else Program.from_json(_bytes("program", program)),
            constants=constants,
        )


def _take(tensors: dict[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    names = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): tensors.pop(name) for name in names}


def _check_network(meta: nn.Module, weights: Mapping[str, torch.Tensor]) -> None:
    expected = meta.state_dict()
    _check_names(weights.keys(), expected.keys(), "the architecture")
    for name, tensor in expected.items():
        _check_tensor(f"network.{name}", weights[name], tensor.dtype, tuple(tensor.shape))
    left_out = sorted(name for name, _ in meta.named_buffers() if name not in expected)
    if left_out:
        raise CheckpointError(f"the architecture has buffers that its state_dict does not save: {left_out[:5]}")


def _check_names(given: Set[str], expected: Set[str], what: str) -> None:
    missing, unexpected = sorted(expected - given), sorted(given - expected)
    if missing or unexpected:
        raise CheckpointError(f"the weights do not fit {what}: missing {missing[:5]}, unexpected {unexpected[:5]}")


def _check_tensor(name: str, tensor: torch.Tensor, dtype: torch.dtype, shape: tuple[int, ...]) -> None:
    if tensor.dtype != dtype or tuple(tensor.shape) != shape:
        raise CheckpointError(f"{name} is {tensor.dtype} {list(tensor.shape)} where {dtype} {list(shape)} is expected")
    # The masks of an attention are often infinite.
    bad = torch.isnan(tensor) if name.startswith("constant.") else torch.isfinite(tensor).logical_not()
    if bool(bad.any()):
        raise CheckpointError(f"{name} holds values that are not finite")


def _bytes(name: str, tensor: torch.Tensor) -> bytes:
    if tensor.dtype != torch.uint8 or tensor.dim() != 1:
        raise CheckpointError(f"{name} is {tensor.dtype} {list(tensor.shape)}, not a row of bytes")
    return tensor.numpy().tobytes()
