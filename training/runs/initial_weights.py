"""Gets the weights that training starts from: fresh ones, a published checkpoint's, or pretrained ones."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import nn

from classifier.architectures import load_weights
from classifier.checkpoint import Checkpoint
from training.data.folder_names import composed
from training.errors import TrainingError, one_line
from training.networks import heads
from training.networks.code_files import is_own_code
from training.networks.drop_path import set_drop_path
from training.networks.pretrained import pretrained
from training.networks.served import EXPORTED
from training.networks.tied import with_tied_names
from training.publishing.open_checkpoint import header_of, reading
from training.recipes.recipe import Recipe, Stage


@dataclass(frozen=True, slots=True)
class InitialWeights:
    """Holds the weights that training starts from.

    Args:
        name: how the manifest of what is trained names these weights; None: they are fresh.
        architecture: of the weights; None: they are fresh.
        weights: None: they are fresh.
        checkpoint: None: the weights are not those of a published checkpoint.
    """

    name: str | None
    architecture: str | None
    weights: dict[str, torch.Tensor] | None
    checkpoint: Checkpoint | None

    @classmethod
    def of(cls, recipe: Recipe, path: Path | None) -> Self:
        """Returns what `recipe` starts from.

        Args:
            path: a published checkpoint; None: none was named.

        Raises:
            TrainingError: the file is no sound checkpoint, or of a .pt2 file, or pretrained weights are not available.
            TorchvisionError: torchvision is needed and cannot be imported.
        """
        if path is not None:
            sha256, checkpoint = load_checkpoint(path)
            if checkpoint.manifest.architecture.startswith(EXPORTED):
                raise TrainingError(
                    f"--from {path}: it is of a .pt2 file, which is served and evaluated as it is and not trained; "
                    "train the network's class by --network, or name a checkpoint that was trained here"
                )
            name = f"{path.resolve().parent.name}/{path.resolve().stem} {sha256}"
            return cls(name, checkpoint.manifest.architecture, dict(checkpoint.network), checkpoint)
        if recipe.start == "backbone":
            own = pretrained(recipe.spec)
            return cls(own.source, own.architecture, own.weights, None)
        return cls(None, None, None, None)

    @staticmethod
    def check_named(recipe: Recipe, path: Path | None) -> None:
        """Checks that weights are named where no others are known. Raises: TrainingError if not."""
        if path is None and recipe.start == "backbone" and recipe.spec.is_own_code:
            raise TrainingError(
                f"--recipe {recipe.name} starts from weights: name a checkpoint of {recipe.architecture} by --from, "
                "or train it by --recipe scratch"
            )

    def network(self, recipe: Recipe, classes: int) -> nn.Module:
        """Returns the recipe's network with these weights.

        Weights that are not covered are fresh, by torch's own random numbers.

        Raises: TrainingError if the weights do not fit.
        """
        network = recipe.spec.build(classes)
        if recipe.drop_path is not None and not recipe.spec.is_timm:
            set_drop_path(network, recipe.drop_path, recipe.architecture)
        if self.weights is not None and self.architecture is not None:
            weights = with_tied_names(self.weights, network)
            if recipe.start == "backbone":
                heads.load_backbone(network, recipe.spec, weights, self.architecture)
            else:
                try:
                    load_weights(network, weights, share=False)
                except RuntimeError as error:
                    raise TrainingError(
                        f"--from {str(self.name).split()[0]}: its weights do not fit {recipe.architecture}: "
                        f"{one_line(error)}"
                    ) from error
        return network

    def check_fits(self, recipe: Recipe, labels: tuple[str, ...]) -> None:
        """Checks that a checkpoint to go on with was trained for the same thing. Raises: TrainingError if not."""
        if self.checkpoint is None or recipe.start == "backbone":
            return
        manifest = self.checkpoint.manifest
        fits = {
            "architecture": (manifest.architecture, recipe.architecture),
            "labels": (tuple(map(composed, manifest.labels)), tuple(map(composed, labels))),
            "preprocess": (manifest.preprocess, recipe.preprocess),
        }
        for what, (theirs, ours) in fits.items():
            if theirs != ours:
                raise TrainingError(
                    f"--from {str(self.name).split()[0]}: its {what}: {theirs}, this recipe's: {ours}; "
                    f"to take over all but its head: --recipe {_transfer(manifest.architecture)}"
                )

    def peak(self, recipe: Recipe, stage: Stage) -> float:
        """Returns the stage's highest learning rate, which is lower if it goes on with good weights and their head."""
        goes_on = self.checkpoint is not None and recipe.start == "fresh" and stage.first == 1
        return recipe.lr_continued if goes_on and recipe.lr_continued is not None else stage.lr


def _transfer(architecture: str) -> str:
    return f"transfer --network {architecture}" if is_own_code(architecture) else f"transfer:{architecture}"


def load_checkpoint(path: Path) -> tuple[str, Checkpoint]:
    """Returns the hash of a published checkpoint, and the checkpoint. Raises: TrainingError if it is not sound."""
    sha256 = header_of(path).sha256
    with reading(path):
        return sha256, Checkpoint.load(path)
