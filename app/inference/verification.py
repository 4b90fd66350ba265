"""Proves a checkpoint before it is served: this server, on its device, repeats what training saw.

The reference batch in the file holds real images, the pixels that training made of them and the logits that exactly
these weights gave. A wrong resize, a broken kernel or a damaged file does not repeat them.
"""

import logging
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from torch import nn

from app.decoding.formats import ImageProblem
from app.decoding.image import decode
from app.engine.interface import ItemError
from app.inference.optimize.fold_batch_norm import fold
from app.inference.optimize.max_pool import pair
from app.inference.optimize.prepack_weights import pack
from app.inference.predictor import PRECISIONS, Item, Predictor, is_out_of_memory
from app.telemetry.log import event
from classifier.checkpoint import Checkpoint, CheckpointError
from classifier.manifest import Manifest
from classifier.preprocess import Pixels

logger = logging.getLogger(__name__)

# Resampling may round differently in another build of Pillow.
MAX_LEVELS = 1
# Bounds on |Δ logit| / (1 + |logit|). In fp32, with TF32 off, sums are taken in another order on another device. In
# bf16 each value keeps 8 bits, and the likeliest class must be the same, too.
MAX_LOGIT_ERROR = {"fp32": 1e-3, "bf16": 1e-1}


def prove(
    path: Path,
    *,
    device: torch.device,
    max_items: int,
    precision: str = "fp32",
    slots: int = 1,
    compile_with: str | None = None,
) -> Predictor:
    """A warmed-up predictor of the checkpoint at `path`.

    Args:
        compile_with: a backend of torch.compile; None does without.

    Raises:
        CheckpointError: what is wrong with the file, or in what it does not repeat its reference batch.
        OSError: the file cannot be read.
        MemoryError: of the host or of the device.
    """
    try:
        checkpoint = Checkpoint.load(path)
        network = checkpoint.build()
        quicken(
            network, checkpoint.manifest, device=device, dtype=PRECISIONS[precision], compiled=compile_with is not None
        )
        predictor = Predictor(
            network,
            checkpoint.manifest,
            device=device,
            max_items=max_items,
            precision=precision,
            slots=slots,
            compile_with=compile_with,
        )
        _warm_up(predictor, compiled=compile_with is not None)
        _check_pixels(checkpoint)
        _check_logits(checkpoint, predictor)
        _check_predictions(checkpoint, predictor)
    except RuntimeError as error:
        if is_out_of_memory(error):
            raise MemoryError(str(error)) from error
        raise
    return predictor


def quicken(
    network: nn.Module, manifest: Manifest, *, device: torch.device, dtype: torch.dtype, compiled: bool = False
) -> None:
    """Changes `network` as far as it can be done; whether it is the same still, its reference batch says.

    Args:
        network: in eval mode, on the CPU.
        device, dtype: where, and in what, it will compute.
        compiled: torch.compile will take it.
    """
    height, width, channels = manifest.preprocess.shape
    batch = torch.zeros(1, channels, height, width)
    _try(fold, "folded", network, batch, manifest)
    if device.type == "cpu":
        pair(network)
        if not compiled:  # torch.compile brings kernels of its own
            _try(pack, "packed", network.to(dtype), batch.to(dtype), manifest)


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
        event(logger, f"not {done}", level=logging.WARNING, model=manifest.model, reason=_first_line(error))
    else:
        event(logger, done, level=logging.DEBUG, model=manifest.model, modules=count)


def _warm_up(predictor: Predictor, *, compiled: bool) -> None:
    began = time.perf_counter()
    try:
        predictor.warm_up()
    except RuntimeError as error:
        if not compiled or is_out_of_memory(error):
            raise
        raise CheckpointError(
            f"the network cannot be compiled here; serve it without --compile ({_first_line(error)})"
        ) from error
    if compiled:
        event(logger, "compiled", model=predictor.manifest.model, seconds=round(time.perf_counter() - began, 1))


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def _check_pixels(checkpoint: Checkpoint) -> None:
    for i, (encoded, saved) in enumerate(
        zip(checkpoint.reference.encoded, checkpoint.reference.pixels.numpy(), strict=True)
    ):
        try:
            pixels = decode(encoded, checkpoint.manifest.preprocess)
        except ImageProblem as error:
            raise CheckpointError(f"reference image {i} cannot be decoded: {error}") from error
        difference = int(np.abs(pixels.astype(np.int16) - saved).max())
        if difference > MAX_LEVELS:
            raise CheckpointError(
                f"reference image {i} becomes other pixels here than in training: they differ by up to "
                f"{difference} levels where {MAX_LEVELS} is allowed"
            )


def _check_logits(checkpoint: Checkpoint, predictor: Predictor) -> None:
    saved = checkpoint.reference.logits
    images = list(checkpoint.reference.pixels.numpy())
    # One by one and together: both warm up the shapes that serving meets, and both must agree.
    alone = torch.cat([_timed(predictor, image) for image in images])
    for logits in (alone, predictor.logits(images)):
        error = float(((logits - saved).abs() / (1 + saved.abs())).nan_to_num(torch.inf, torch.inf).max())
        allowed = MAX_LOGIT_ERROR[predictor.precision]
        if error > allowed:
            raise CheckpointError(
                f"the reference logits are not repeated on {predictor.device} in {predictor.precision}: the relative "
                f"difference is up to {error:.2g} where {allowed:g} is allowed"
            )
        if predictor.precision != "fp32" and not torch.equal(logits.argmax(dim=1), saved.argmax(dim=1)):
            raise CheckpointError(
                f"in {predictor.precision} a reference image has another likeliest class than in training: serve this "
                "model in fp32"
            )


def _timed(predictor: Predictor, image: Pixels) -> torch.Tensor:
    began = time.perf_counter()
    logits = predictor.logits([image])
    predictor.seconds_alone = min(predictor.seconds_alone, time.perf_counter() - began)
    return logits


def _check_predictions(checkpoint: Checkpoint, predictor: Predictor) -> None:
    """What follows the logits, to the last step: a temperature, too, can make all of them useless."""
    image = Item(checkpoint.reference.pixels.numpy()[0], len(checkpoint.manifest.labels))
    (row,) = predictor.predict([image])
    outcome = predictor.reader.answer(row.tolist(), image.top_k)
    if isinstance(outcome, ItemError):
        raise CheckpointError(f"no predictions can be made of the reference logits: {outcome.detail}")
