"""Weights that a network uses under two names are in a program once; here the second name gets them again."""

from collections.abc import Mapping
from itertools import chain

import torch
from torch import nn


def with_tied_names(weights: Mapping[str, torch.Tensor], network: nn.Module) -> dict[str, torch.Tensor]:
    """Returns the weights under all names that a network's state_dict has for them.

    Args:
        weights: of a program that was made of such a network.
        network: made by the same code, so that the same names are one and the same tensor.
    """
    names: dict[int, list[str]] = {}
    every = chain(network.named_parameters(remove_duplicate=False), network.named_buffers(remove_duplicate=False))
    for name, tensor in every:
        names.setdefault(id(tensor), []).append(name)
    saved = network.state_dict().keys()
    filled = dict(weights)
    for tied in names.values():
        known = next((weights[name] for name in tied if name in weights), None)
        if known is not None:
            filled |= {name: known for name in tied if name in saved and name not in weights}
    return filled
