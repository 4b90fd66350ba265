"""Writes a published version as a file that other programs can load."""

from pathlib import Path

from classifier.architectures import load_weights
from classifier.checkpoint import Checkpoint
from training import atomic_files
from training.errors import TrainingError
from training.networks.spec import NetworkSpec
from training.publishing import sidecar
from training.publishing.open_checkpoint import reading


def export(checkpoint: Path, target: Path, *, overwrite: bool = False) -> None:
    """Writes the state_dict of a published version, as `torch.load` and `load_state_dict` expect it.

    Beside it, `<target>.json` says what else serving needs: architecture, labels, preprocess, temperature, threshold.
    `import` reads it. It is written first and holds the hash of the weights. So weights are never there without it,
    and a pair of which only one file is new is noticed.

    Raises:
        TrainingError: there is no sound checkpoint, or a file is there already and may not be overwritten.
        TorchvisionError: torchvision is needed and cannot be imported.
        OSError: a file cannot be written.
    """
    beside = sidecar.path_of(target)
    for path in (target, beside):
        if path.exists() and checkpoint.exists() and path.samefile(checkpoint):
            raise TrainingError(f"{path} is the checkpoint itself: choose another name")
        if path.exists() and not overwrite:
            raise TrainingError(f"{path} is there already: choose another name, or use --force")
    with reading(checkpoint):
        own = Checkpoint.load(checkpoint)
    network = NetworkSpec.of(own.manifest.architecture, own.manifest.preprocess).meta(len(own.manifest.labels))
    load_weights(network, own.network, share=True)  # its state_dict has the layers' versions, too
    with atomic_files.atomic_write(target) as file:
        atomic_files.save_to(file, network.state_dict())
        sidecar.write(target, sidecar.Sidecar.of(own.manifest, sidecar.sha256_of(Path(file.name))))
