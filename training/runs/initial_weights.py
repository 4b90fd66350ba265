"""InitialWeights: the weights that training starts from. Fresh ones, a published checkpoint's, or torchvision's own."""

from dataclasses import dataclass
from pathlib import Path
from typing import Self

import torch
from torch import nn

from classifier.architectures import build, load_weights
from classifier.checkpoint import Checkpoint
from training.errors import TrainingError
from training.networks import heads
from training.networks.pretrained import pretrained
from training.publishing.open_checkpoint import header_of, reading
from training.recipes.recipe import Recipe, Stage


@dataclass(frozen=True, slots=True)
class InitialWeights:
    """Args:
    name: in the manifests of what was trained from it; None: fresh weights.
    architecture: of the weights.
    checkpoint: None where the weights are not a published checkpoint's.
    """

    name: str | None
    architecture: str | None
    weights: dict[str, torch.Tensor] | None
    checkpoint: Checkpoint | None

    @classmethod
    def of(cls, recipe: Recipe, path: Path | None) -> Self:
        """What `recipe` starts from, the published checkpoint at `path` if one is named.

        Raises: TrainingError if it is no sound checkpoint, or torchvision's weights cannot be had.
        """
        if path is not None:
            sha256, checkpoint = load_checkpoint(path)
            name = f"{path.resolve().parent.name}/{path.resolve().stem} {sha256}"
            return cls(name, checkpoint.manifest.architecture, dict(checkpoint.network), checkpoint)
        if recipe.start == "backbone":
            own = pretrained(recipe.architecture)
            return cls(f"torchvision {own.name}", own.architecture, own.weights, None)
        return cls(None, None, None, None)

    def network(self, recipe: Recipe, classes: int) -> nn.Module:
        """The recipe's network with these weights; what they do not cover is fresh, by torch's own random numbers.

        Raises: TrainingError if they do not fit.
        """
        network = build(recipe.architecture, classes)
        if self.weights is not None and self.architecture is not None:
            if recipe.start == "backbone":
                heads.load_backbone(network, recipe.architecture, self.weights, self.architecture)
            else:
                load_weights(network, self.weights, share=False)
        return network

    def check_fits(self, recipe: Recipe, labels: tuple[str, ...]) -> None:
        """Raises: TrainingError if the recipe goes on with a checkpoint that was trained for something else."""
        if self.checkpoint is None or recipe.start == "backbone":
            return
        manifest = self.checkpoint.manifest
        fits = {
            "architecture": (manifest.architecture, recipe.architecture),
            "labels": (manifest.labels, labels),
            "preprocess": (manifest.preprocess, recipe.preprocess),
        }
        for what, (theirs, ours) in fits.items():
            if theirs != ours:
                raise TrainingError(
                    f"--from {str(self.name).split()[0]}: its {what}: {theirs}, this recipe's: {ours}; "
                    f"to take over all but its head: --recipe transfer:{manifest.architecture}"
                )

    def peak(self, recipe: Recipe, stage: Stage) -> float:
        """The stage's highest learning rate: good weights, their head included, are not shaken up."""
        goes_on = self.checkpoint is not None and recipe.start == "fresh" and stage.first == 1
        return recipe.lr_continued if goes_on and recipe.lr_continued is not None else stage.lr


def load_checkpoint(path: Path) -> tuple[str, Checkpoint]:
    """A published checkpoint and its hash. Raises: TrainingError if it is no sound one."""
    sha256 = header_of(path).sha256
    with reading(path):
        return sha256, Checkpoint.load(path)
