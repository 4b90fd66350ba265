"""Makes a network quicker where it is served, step by step."""

import logging
from collections.abc import Callable

import torch
from torch import nn

from app.inference.optimize.fold_batch_norm import fold_batch_norm
from app.inference.optimize.max_pool import replace_max_pools
from app.inference.optimize.prepack_weights import prepack_weights
from app.inference.predictor import is_out_of_memory
from app.telemetry.log import event
from classifier.manifest import Manifest

logger = logging.getLogger(__name__)


def optimize(
    network: nn.Module, manifest: Manifest, *, device: torch.device, dtype: torch.dtype, compiled: bool = False
) -> None:
    """Changes `network` as far as that is possible. Its reference batch says afterwards whether it is still the same.

    Args:
        network: the network in eval mode, on the CPU.
        device: where it will compute.
        dtype: what it will compute in.
        compiled: torch.compile will take it.
    """
    height, width, channels = manifest.preprocess.shape
    batch = torch.zeros(1, channels, height, width)
    _try(fold_batch_norm, "folded", network, batch, manifest)
    if device.type == "cpu":
        replace_max_pools(network)
        if not compiled:  # torch.compile brings kernels of its own
            _try(prepack_weights, "packed", network.to(dtype), batch.to(dtype), manifest)


def _try(
    step: Callable[[nn.Module, torch.Tensor], int],
    done: str,
    network: nn.Module,
    batch: torch.Tensor,
    manifest: Manifest,
) -> None:
    try:
        count = step(network, batch)
    except (AttributeError, RuntimeError, TypeError, ValueError) as error:
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            raise
        event(logger, f"not {done}", level=logging.WARNING, model=manifest.model, reason=first_line(error))
    else:
        event(logger, done, level=logging.DEBUG, model=manifest.model, modules=count)


def first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]
