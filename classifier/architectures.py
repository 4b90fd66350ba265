"""The networks that can be trained and served, by name: the built-in ones and torchvision's classifiers."""

import difflib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from classifier.torchvision_parts import torchvision_part

# torchvision's defaults fit training from scratch with auxiliary heads; its published weights are used like this.
_TORCHVISION_OPTIONS: dict[str, dict[str, Any]] = {
    "googlenet": {"aux_logits": False, "transform_input": True, "init_weights": True},
    "inception_v3": {"aux_logits": False, "transform_input": True, "init_weights": True},
}


def build(architecture: str, num_classes: int) -> nn.Module:
    """Returns a network with fresh weights, which maps float [n, channels, height, width] to logits [n, num_classes].

    Raises:
        ValueError: the architecture is not known; the message names near ones.
        TorchvisionError: torchvision cannot be imported.
    """
    if architecture in _BUILT_IN:
        return _BUILT_IN[architecture](num_classes)
    check_known(architecture)
    options = _TORCHVISION_OPTIONS.get(architecture, {})
    network: nn.Module = torchvision_part("models").get_model(
        architecture, weights=None, num_classes=num_classes, **options
    )
    return network


def check_known(architecture: str) -> None:
    """Checks that `build` takes this architecture.

    Raises:
        ValueError: the architecture is not known; the message names near ones.
        TorchvisionError: torchvision cannot be imported.
    """
    names = known()
    if architecture not in names:
        near = difflib.get_close_matches(architecture, names, n=3)
        hint = f"; did you mean {' or '.join(near)}?" if near else f"; known are {', '.join(names)}"
        raise ValueError(f"unknown architecture {architecture!r}{hint}")


def known() -> list[str]:
    """Returns the names of all that `build` takes: the built-in networks, then torchvision's classifiers.

    Raises: TorchvisionError if torchvision cannot be imported.
    """
    models = torchvision_part("models")
    return [*_BUILT_IN, *models.list_models(module=models)]


def meta_network(architecture: str, num_classes: int) -> nn.Module:
    """Returns what `build` returns, but on torch's meta device: it has names, types and shapes, but no values.

    It draws no random number.

    Raises: ValueError or TorchvisionError, as `build`.
    """
    try:
        with torch.device("meta"):
            return build(architecture, num_classes)
    except NotImplementedError:  # torchvision's RegNets work out their widths with tensors, which needs values
        with torch.device("meta"), _RealNumbers():
            return build(architecture, num_classes).to("meta")


def load_weights(network: nn.Module, weights: Mapping[str, torch.Tensor], *, share: bool) -> None:
    """Puts the weights into the network.

    Args:
        share: the network gets these very tensors, as a meta network needs it, and not a copy of their values.

    Raises: RuntimeError if names or shapes differ.
    """
    state = OrderedDict(weights)
    # By its layers' versions torchvision tells old forms of its weights; MNASNet refuses weights that have none.
    state._metadata = network.state_dict()._metadata  # type: ignore[attr-defined]
    network.load_state_dict(state, assign=share)


class MnistCnn(nn.Module):
    """Has two convolutions and two linear layers, for 1x28x28 images."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, kernel_size=5, padding=2)
        self.conv2 = nn.Conv2d(16, 32, kernel_size=5, padding=2)
        self.pool = nn.MaxPool2d(2)
        self.fc1 = nn.Linear(7 * 7 * 32, 128)
        self.fc2 = nn.Linear(128, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        # The maximum first: the same values, with a quarter of them left for the ReLU.
        x = F.relu(self.pool(self.conv1(images)))
        x = F.relu(self.pool(self.conv2(x)))
        x = F.relu(self.fc1(x.flatten(1)))
        logits: torch.Tensor = self.fc2(x)
        return logits


def _alexnet_transfer(num_classes: int) -> nn.Module:
    """Returns AlexNet's features below a head of one layer."""
    return nn.Sequential(
        torchvision_part("models").alexnet().features,
        nn.AdaptiveAvgPool2d((6, 6)),
        nn.Flatten(),
        nn.Dropout(0.5),
        nn.Linear(256 * 6 * 6, num_classes),
    )


def _alexnet_finetune(num_classes: int) -> nn.Module:
    """Returns AlexNet with a classifier of our own, whose dropouts stand behind the ReLUs."""
    network: nn.Module = torchvision_part("models").alexnet()
    network.classifier = nn.Sequential(
        *(nn.Linear(256 * 6 * 6, 4096), nn.ReLU(inplace=True), nn.Dropout(0.5)),
        *(nn.Linear(4096, 4096), nn.ReLU(inplace=True), nn.Dropout(0.5)),
        nn.Linear(4096, num_classes),
    )
    return network


_BUILT_IN: dict[str, Callable[[int], nn.Module]] = {
    "mnist_cnn": MnistCnn,
    "alexnet_transfer": _alexnet_transfer,
    "alexnet_finetune": _alexnet_finetune,
}


class _RealNumbers(TorchFunctionMode):
    """Keeps tensors that are made of numbers on the CPU, whatever the default device is: there they can be read."""

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        numbers = {"device": "cpu"} if function in (torch.arange, torch.tensor) else {}
        return function(*args, **(numbers | dict(kwargs or {})))
