"""The networks that can be trained and served, by name: the seeds' own and torchvision's classifiers."""

import difflib
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

TORCHVISION_BROKEN = (
    "torchvision does not fit the installed torch ({reason}). Each torchvision needs the torch it was built for; "
    "a pair that works: pip install torch==2.15.0 torchvision==0.29.2"
)

# torchvision's defaults fit training from scratch with auxiliary heads; its published weights are used like this.
_TORCHVISION_OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "transform_input": True, "init_weights": True},
    "inception_v3": {"aux_logits": False, "transform_input": True, "init_weights": True},
}


def build(architecture: str, num_classes: int) -> nn.Module:
    """A network with fresh weights that maps float [n, channels, height, width] to logits [n, num_classes].

    Raises:
        ValueError: the architecture is not known; the message names near ones.
        ImportError: torchvision cannot be imported; the message says what to install.
    """
    if architecture == "mnist_cnn":
        return MnistCnn(num_classes)
    models = _torchvision_models()
    known = ["mnist_cnn", *models.list_models(module=models)]
    if architecture not in known:
        near = difflib.get_close_matches(architecture, known, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else f"; known are {', '.join(known)}"
        raise ValueError(f"unknown architecture {architecture!r}{hint}")
    options = _TORCHVISION_OPTIONS.get(architecture, {})
    network: nn.Module = models.get_model(architecture, weights=None, num_classes=num_classes, **options)
    return network


def skeleton(architecture: str, num_classes: int) -> nn.Module:
    """The same network on the meta device: names, types and shapes without values. Draws no random number.

    Raises: as `build`.
    """
    try:
        with torch.device("meta"):
            return build(architecture, num_classes)
    except NotImplementedError:  # torchvision's RegNets work out their widths with tensors, which needs values
        with torch.random.fork_rng(devices=[]):
            return build(architecture, num_classes).to("meta")


class MnistCnn(nn.Module):
    """Two convolutions and two linear layers for 1x28x28 images."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, kernel_size=5, padding=2)
        self.conv2 = nn.Conv2d(16, 32, kernel_size=5, padding=2)
        self.fc1 = nn.Linear(7 * 7 * 32, 128)
        self.fc2 = nn.Linear(128, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        # The maximum first: the same values, with a quarter of them left for the ReLU.
        x = F.relu(F.max_pool2d(self.conv1(images), 2))
        x = F.relu(F.max_pool2d(self.conv2(x), 2))
        x = F.relu(self.fc1(x.flatten(1)))
        logits: torch.Tensor = self.fc2(x)
        return logits


def _torchvision_models() -> Any:
    # Here, not above: torchvision takes a second to import, and the seeds' networks do without it.
    try:
        import torchvision.models
    except (RuntimeError, ImportError) as error:
        raise ImportError(TORCHVISION_BROKEN.format(reason=error)) from error
    return torchvision.models
