"""Networks as people write them, and .pt2 files of them as people save them."""

import io
import json
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import nn

SHAPE = (1, 12, 12)


class Small(nn.Module):
    """A convolution and a linear layer; three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.act = nn.ReLU(inplace=True)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(4, 3)

    def features(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(self.act(self.norm(self.conv(x))).mean((2, 3)))  # type: ignore[no-any-return]

    def forward(self, x: torch.Tensor) -> Any:
        return self.fc(self.features(x))


class ChangedThroughAView(Small):
    """It is changed in place after it was seen in another way."""

    def forward(self, x: torch.Tensor) -> Any:
        x = self.conv(x)
        turned = x.permute(0, 2, 3, 1)
        x.add_(1)
        return self.fc(turned.mean((1, 2)))


class Meshes(Small):
    """Uses operators that are not served, and that torch can take apart."""

    def forward(self, x: torch.Tensor) -> Any:
        down, across = torch.meshgrid(torch.arange(8.0), torch.linspace(-1, 1, 8), indexing="ij")
        return self.fc(self.features(x).tile((2,))[:, :4] + (down * across).mean())


class Standardized(Small):
    """Its weights are standardized, as those of timm's NFNets are."""

    def forward(self, x: torch.Tensor) -> Any:
        weight = self.conv.weight.reshape(1, 4, -1)
        weight = F.batch_norm(weight, None, None, training=True, momentum=0.0)
        return self.fc(F.conv2d(x, weight.view(4, 1, 3, 3), self.conv.bias).mean((2, 3)))


def seeded(network: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return network().eval()


def saved(
    network: nn.Module, *, batch: int = 2, decomposed: bool | Literal["all"] = False, dynamic: bool = True
) -> bytes:
    """What torch.export.save writes.

    Args:
        decomposed: what changes tensors in place is rewritten; "all": every operator is taken apart, too.
    """
    shapes = ({0: torch.export.Dim("batch")},) if dynamic else None
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's, of itself
        program = torch.export.export(network, (torch.zeros(batch, *SHAPE),), dynamic_shapes=shapes)
        if decomposed:
            program = program.run_decompositions(None if decomposed == "all" else {})
        torch.export.save(program, file)
    return file.getvalue()


def entries(data: bytes) -> dict[str, bytes]:
    """The entries of an archive, by name."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        return {info.filename: archive.read(info) for info in archive.infolist()}


def zipped(contents: dict[str, bytes], *, compression: int = zipfile.ZIP_STORED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return file.getvalue()


def with_model(data: bytes, change: Callable[[Any], Any]) -> bytes:
    """The archive in which the JSON of the network was changed."""
    contents = entries(data)
    model = json.loads(contents["archive/models/model.json"])
    change(model)
    return zipped(contents | {"archive/models/model.json": json.dumps(model).encode()})


def with_config(data: bytes, change: Callable[[Any], Any]) -> bytes:
    """The archive in which the JSON that describes its weights was changed."""
    contents = entries(data)
    path = "archive/data/weights/model_weights_config.json"
    config = json.loads(contents[path])
    change(config["config"])
    return zipped(contents | {path: json.dumps(config).encode()})


def write(folder: Path, data: bytes) -> Path:
    path = folder / "model.pt2"
    path.write_bytes(data)
    return path
