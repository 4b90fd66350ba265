"""A file of weights in the form in which PyTorch's tutorials write it."""

from pathlib import Path

import torch

from classifier.architectures import meta_network
from tests.support import hub


def tutorial_file(folder: Path, architecture: str, *, prefix: str = "") -> Path:
    """A `model_best.pth.tar` in `folder`: random weights for three classes, among what else a tutorial saves."""
    weights = hub.random_weights(meta_network(architecture, 3))
    path = folder / "model_best.pth.tar"
    state_dict = {prefix + name: tensor for name, tensor in weights.items()}
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=0.1, momentum=0.9)
    content = {"epoch": 9, "arch": architecture, "state_dict": state_dict, "best_prec1": 94.1}
    torch.save(content | {"optimizer": optimizer.state_dict()}, path)
    return path
