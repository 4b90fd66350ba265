"""Writes a published version as a file that other programs can load."""

from pathlib import Path

from classifier.architectures import load_weights
from classifier.checkpoint import Checkpoint
from training import atomic_files
from training.errors import TrainingError
from training.networks.heads import meta_network
from training.publishing.open_checkpoint import reading


def export(checkpoint: Path, target: Path, *, overwrite: bool = False) -> None:
    """Writes only the state_dict of a published version, as `torch.load` and `load_state_dict` expect it.

    Raises:
        TrainingError: there is no sound checkpoint, or the target is there already and may not be overwritten.
        TorchvisionError: torchvision is needed and cannot be imported.
        OSError: the target cannot be written.
    """
    if target.exists() and checkpoint.exists() and target.samefile(checkpoint):
        raise TrainingError(f"{target} is the checkpoint itself: choose another name")
    if target.exists() and not overwrite:
        raise TrainingError(f"{target} is there already: choose another name, or use --force")
    with reading(checkpoint):
        own = Checkpoint.load(checkpoint)
    network = meta_network(own.manifest.architecture, len(own.manifest.labels))
    load_weights(network, own.network, share=True)  # its state_dict has the layers' versions, too
    atomic_files.save(target, network.state_dict())
