"""Makes of weights the network that will be served: known by its name, or as a program."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from classifier.architectures import load_weights
from classifier.checkpoint import Checkpoint, Reference
from classifier.manifest import Manifest, ProgramInfo
from classifier.program.document import Program
from classifier.program.network import ProgramNetwork
from training.networks.export_program import export_program, noise
from training.networks.logits import with_logits
from training.networks.pt2 import Exported
from training.networks.spec import NetworkSpec
from training.networks.tied import with_tied_names

EXPORTED = "exported:"  # begins what a network is called that was read from a .pt2 file


@dataclass(frozen=True, slots=True)
class ServedNetwork:
    """Holds a network as a checkpoint has it.

    Args:
        network: what the server will run, in eval mode.
        weights: by their names in the state_dict of the network that was trained.
        program: None: the server knows the network by name.
        constants: tensors of the program that are no weights.
        info: what the manifest says of the program.
        notes: what was changed when it was exported, in words.
    """

    network: nn.Module
    weights: Mapping[str, torch.Tensor]
    program: Program | None = None
    constants: Mapping[str, torch.Tensor] = field(default_factory=dict)
    info: ProgramInfo | None = None
    notes: tuple[str, ...] = ()

    @property
    def format(self) -> Literal[1, 2]:
        """The oldest format of checkpoints that can hold it."""
        return 1 if self.program is None else 2

    def checkpoint(
        self, manifest: Manifest, reference: Reference, figures: Mapping[str, torch.Tensor] | None = None
    ) -> Checkpoint:
        """Returns the checkpoint of this network.

        Args:
            manifest: of its `format`, and with its `info`.
            reference: what the network makes of images, by which a server proves it.
            figures: tensors by their names that show how good it is.
        """
        return Checkpoint(
            manifest=manifest,
            network=self.weights,
            reference=reference,
            figures=figures or {},
            program=self.program,
            constants=self.constants,
        )


def served_network(
    spec: NetworkSpec, weights: Mapping[str, torch.Tensor], num_classes: int, *, images: torch.Tensor | None = None
) -> ServedNetwork:
    """Returns the network with these weights, as it will be served: it makes logits.

    Args:
        weights: by their names in the state_dict; of tied weights, one name is enough.
        images: float [n, channels, height, width], by which an exported network is compared; None: noise.

    Raises: TrainingError if it is to be exported and cannot be.
    """
    if spec.is_built_in:
        network = spec.meta(num_classes)
        load_weights(network, weights, share=True)
        return ServedNetwork(network.eval(), weights)
    network = spec.build(num_classes)
    load_weights(network, with_tied_names(weights, network), share=False)
    exported = export_program(network.eval(), spec.shape, spec.architecture, images=images)
    tried = noise(spec.shape) if images is None else images
    return of_exported(with_logits(exported, tried, spec.architecture))


def of_exported(exported: Exported) -> ServedNetwork:
    """Returns an exported network as it will be served."""
    return ServedNetwork(
        network=ProgramNetwork(exported.program, exported.tensors).eval(),
        weights=_below(exported.tensors, "network."),
        program=exported.program,
        constants=_below(exported.tensors, "constant."),
        info=ProgramInfo(torch=exported.torch, operators=exported.program.operators),
        notes=exported.notes,
    )


def _below(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}
