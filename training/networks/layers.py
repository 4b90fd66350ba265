"""Puts a network's parameters in the order of its layers, as far as its modules show it."""

import re
from collections.abc import Iterator

from torch import nn

_CONTAINERS = (nn.Sequential, nn.ModuleList, nn.ModuleDict)
_NORM = re.compile(r"(Batch|Layer|Group|Rms|RMS|Instance)Norm")


def depths(network: nn.Module) -> dict[str, int]:
    """Returns how deep in the network each of its parameters lies, by their names; 0 is next to the images.

    A layer is a block that is repeated, such as a transformer's or a ResNet's, or else a module beside such blocks. A
    norm belongs to the layer before it. Modules are taken in the order in which the network's constructor made them.
    What a module has beside its layers, such as embeddings of positions, belongs to the first of them.
    """
    found: dict[str, int] = {}
    depth = -1
    for name, module in _layers(network, ""):
        if not _is_norm(module) or depth < 0:
            depth += 1
        found |= {f"{name}.{parameter}": depth for parameter, _ in module.named_parameters(remove_duplicate=False)}
    for name, _ in network.named_parameters():
        if name not in found:
            owner = f"{name.rpartition('.')[0]}."
            found[name] = min((at for other, at in found.items() if other.startswith(owner)), default=0)
    return found


def _layers(module: nn.Module, name: str) -> Iterator[tuple[str, nn.Module]]:
    for each, child in module.named_children():
        path = f"{name}.{each}" if name else each
        if not any(True for _ in child.parameters()):
            continue
        if type(child) in _CONTAINERS or _holds_blocks(child):
            yield from _layers(child, path)
        else:
            yield path, child


def _holds_blocks(module: nn.Module) -> bool:
    """Tells whether blocks of one kind, with modules of their own, follow one another somewhere in it."""
    for each in module.modules():
        if isinstance(each, _CONTAINERS):
            kinds = [type(child) for child in each.children() if any(True for _ in child.children())]
            blocks = [kind for kind in kinds if not issubclass(kind, nn.Sequential)]
            if len(blocks) > len(set(blocks)):
                return True
    return False


def _is_norm(module: nn.Module) -> bool:
    return bool(_NORM.match(type(module).__name__))
