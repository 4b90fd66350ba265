"""Sets how often a network leaves out its blocks in training: stochastic depth."""

from torch import nn

from training.errors import TrainingError

# By the name of the module that leaves out blocks: the attribute that holds the probability.
_PROBABILITY = {"StochasticDepth": "p", "DropPath": "drop_prob"}


def set_drop_path(network: nn.Module, most: float, name: str) -> None:
    """Makes the probability rise evenly from 0 in the first block to `most` in the last (Huang et al. 2016).

    Args:
        name: what the network is called in messages.

    Raises: TrainingError if it has no block that can be left out.
    """
    blocks = [module for module in network.modules() if type(module).__name__ in _PROBABILITY]
    if not blocks:
        raise TrainingError(f"drop_path: {name} has no block that can be left out; leave drop_path out")
    for i, block in enumerate(blocks):
        setattr(block, _PROBABILITY[type(block).__name__], most * i / max(len(blocks) - 1, 1))
