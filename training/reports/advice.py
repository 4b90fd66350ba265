"""Says in words what the samples of the classes mean for a run, and what to look at when it is over."""

from collections.abc import Sequence

import torch

from training.data.folder_names import shown
from training.evaluation.metrics import most_confused
from training.recipes.builtin import OF_PHOTOS
from training.recipes.recipe import Recipe

_UNEVEN = 3  # times as many samples as in another class
_FEW = 100  # samples of a class, from which fresh weights learn little


def samples_of_classes(targets: torch.Tensor, labels: Sequence[str], recipe: Recipe) -> str:
    """Returns how many samples the smallest and the largest class have, and what will be done or could be.

    Args:
        targets: int64 [n], of the samples that are trained on.
    """
    counts = torch.bincount(targets, minlength=len(labels))
    fewest, most = int(counts.argmin()), int(counts.argmax())
    least, largest = int(counts[fewest]), int(counts[most])
    rare, common = shown(labels[fewest]), shown(labels[most])
    if least == largest:
        said = f"{least:,} samples of each class"
    else:
        said = f"fewest samples: {least:,} (class {rare}), most: {largest:,} (class {common})"
    if recipe.balanced:
        said += "; classes are drawn equally often"
    elif largest >= _UNEVEN * least:
        said += "; rare classes will count little: --set balanced=true draws classes equally often"
    if least < _FEW and recipe.start == "fresh" and recipe.source.kind in OF_PHOTOS:
        said += "; for fresh weights these are few: --recipe transfer:resnet18 begins with pretrained ones"
    return said


def confusions(confusion: torch.Tensor, labels: Sequence[str]) -> str | None:
    """Returns which classes were confused most often, and what to look at; None if there was no mistake.

    Args:
        confusion: int64 [classes, classes]; a row is a true class, a column is a predicted class.
    """
    pairs = most_confused(confusion)
    if not pairs:
        return None
    named = ", ".join(
        f"{shown(labels[pair.first])} and {shown(labels[pair.second])} ({pair.count:,} times)" for pair in pairs
    )
    return f"most often confused: {named}: are their labels right, and can you tell them apart?"
