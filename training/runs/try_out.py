"""Tries a network with real images before a run begins, so that what cannot work is one line, not an hour later."""

import torch
from torch import nn

from classifier.normalize import normalizer
from training.data.batches import Split
from training.errors import TrainingError
from training.networks import heads
from training.networks.image_size import SIZE_ERRORS, cannot_take
from training.recipes.recipe import Recipe
from training.runs.stage_data import first_two
from training.runs.virtual_ranks import VirtualRanks


def try_out(network: nn.Module, train: Split, recipe: Recipe, ranks: VirtualRanks) -> None:
    """Computes two images, with the network on the CPU, which is left in eval mode.

    Args:
        ranks: among which each batch is shared out.

    Raises:
        TrainingError: there are too few images, the network cannot take those of the recipe's size or mode, or a batch
            norm that trains would be given a single value for each channel, of which there is no variance.
    """
    cpu = torch.device("cpu")
    images = first_two(train, cpu)
    places: dict[str, int] = {}  # how many values for each channel one image gives each batch norm that trains
    hooks = [
        norm.register_forward_pre_hook(lambda _, given, name=name: places.update({name: given[0][0, 0].numel()}))
        for name, norm in _trained_norms(network, recipe)
    ]
    try:
        with torch.inference_mode():
            network.eval()(normalizer(recipe.preprocess, device=cpu)(images))
    except SIZE_ERRORS as error:
        raise cannot_take(recipe.architecture, recipe.preprocess, error) from error
    finally:
        for hook in hooks:
            hook.remove()
    ranks.check_enough(len(train))
    smallest = min(map(len, ranks.batches(torch.arange(len(train)), recipe.batch_size))) // ranks.count
    single = [name for name, values in places.items() if values * smallest == 1]
    if single:
        raise TrainingError(
            f"{recipe.architecture} cannot train on one image at a time: its batch norm {single[0]} would get a single "
            f"value for each channel. {_advice(len(train))}"
        )


def _advice(samples: int) -> str:
    if samples == 1:
        return "One training image is left: add images, or hold out fewer (--set held_out)"
    return "Use --batch-size 2 or more, or larger images (--set preprocess.resize)"


def _trained_norms(network: nn.Module, recipe: Recipe) -> list[tuple[str, nn.Module]]:
    parts = {part for stage in recipe.stages for part in heads.parts(recipe.spec, stage.trainable)}
    return [
        (name, module)
        for name, module in network.named_modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm)
        and any(part == "" or name == part or name.startswith(f"{part}.") for part in parts)
    ]
