"""Makes a program of a network: torch.export records what it computes, and the record becomes our document."""

import io

import torch
from torch import nn

from training.networks import pt2


def export_program(network: nn.Module, shape: tuple[int, int, int], name: str) -> pt2.Exported:
    """Returns the network as data.

    Args:
        network: in eval mode, on the CPU.
        shape: of an image as the network takes it: (channels, height, width).
        name: what the network is called in messages.

    Raises: TrainingError, which says what cannot be exported, and where in the network's code that is.
    """
    file = io.BytesIO()
    torch.export.save(record(network, shape), file)
    file.seek(0)
    return pt2.read(file, name)


def record(network: nn.Module, shape: tuple[int, int, int]) -> torch.export.ExportedProgram:
    """Returns what torch.export records of a network, for batches of any size from 1.

    Args:
        network, shape: as for `export_program`.
    """
    images = torch.zeros(2, *shape)  # torch takes a batch of 1 for a constant
    batch = torch.export.Dim("batch", min=1)
    recorded = torch.export.export(network, (images,), dynamic_shapes=({0: batch},))
    decomposed: torch.export.ExportedProgram = recorded.run_decompositions({})
    return decomposed
