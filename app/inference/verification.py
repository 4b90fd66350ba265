"""Verifies a checkpoint before it is served: this server, on its device, repeats what training saw.

The file's reference batch holds real images, the pixels that training made of them, and the logits that exactly these
weights gave. With a wrong resize, a broken kernel or a damaged file they are not repeated.
"""

import logging
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import nn

from app.decoding.formats import ImageProblem
from app.decoding.image import decode
from app.engine.predictions import ItemError
from app.engine.rows import Item
from app.inference.free_memory import free_memory
from app.inference.optimize.optimize import first_line, optimize
from app.inference.predictor import PRECISIONS, Predictor, is_out_of_memory
from app.telemetry.log import event
from classifier.checkpoint import Checkpoint, CheckpointError
from classifier.normalize import normalizer
from classifier.preprocess import Pixels

logger = logging.getLogger(__name__)

# Resampling may round differently in another build of Pillow.
MAX_LEVELS = 1
# Bounds on |Δ logit| / (1 + |logit|). In fp32, with TF32 off, another device takes sums in another order. In bf16 each
# value keeps 8 bits; there the likeliest class must be the same as well.
MAX_LOGIT_ERROR = {"fp32": 1e-3, "bf16": 1e-1}


def verify(
    path: Path,
    *,
    device: torch.device,
    max_items: int,
    precision: str = "fp32",
    slots: int = 1,
    compile_with: str | None = None,
) -> Predictor:
    """Loads the checkpoint at `path`, checks all of it, and gives a predictor that is warmed up.

    Args:
        device: where the network computes.
        max_items: how many images one batch may have.
        precision: what the network computes in: fp32 or bf16.
        slots: how many batches may be computed at the same time.
        compile_with: a backend of torch.compile; None does without.

    Raises:
        CheckpointError: something is wrong with the file, or its reference batch is not repeated.
        OSError: the file cannot be read.
        MemoryError: the host or the device has too little memory.
    """
    checkpoint = None
    try:
        checkpoint = Checkpoint.load(path)
        network = checkpoint.build(
            max_items,
            every_batch=compile_with is not None,  # compiled code does not watch itself
            free_memory=free_memory() if device.type == "cpu" else math.inf,
        )
        if checkpoint.program is not None and device.type != "cpu":
            _run_on_cpu(checkpoint, network)
        optimize(
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
    except (RuntimeError, LookupError, TypeError, ValueError, ArithmeticError) as error:
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            raise MemoryError(str(error)) from error
        if checkpoint is not None and checkpoint.program is not None:
            raise CheckpointError(f"the program cannot be run: {first_line(error)}") from error
        raise
    return predictor


def _warm_up(predictor: Predictor, *, compiled: bool) -> None:
    began = time.perf_counter()
    try:
        predictor.warm_up()
    except RuntimeError as error:
        if not compiled or is_out_of_memory(error):
            raise
        raise CheckpointError(
            f"the network cannot be compiled here; serve it without --compile ({first_line(error)})"
        ) from error
    if compiled:
        event(logger, "compiled", model=predictor.manifest.model, seconds=round(time.perf_counter() - began, 1))


def _run_on_cpu(checkpoint: Checkpoint, network: nn.Module) -> None:
    """Runs a program where an index that is out of range is an error. On a GPU it would end all work there."""
    normalize = normalizer(checkpoint.manifest.preprocess, device=torch.device("cpu"))
    with torch.inference_mode():
        network(normalize(checkpoint.reference.pixels[:1]))


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
    # One by one and together: both must agree, and both warm up the shapes that serving meets.
    alone = torch.cat([_timed(predictor, image) for image in images])
    tried = [(alone, saved), (predictor.logits(images), saved)]
    if checkpoint.program is not None:
        # What a program says of one image may depend on the others of the batch, or on how many there are. Every second
        # one is another image, of which nothing is known.
        for count in sorted({2, 3, predictor.max_items}):
            several = [i // 2 % len(images) for i in range(count)]
            beside = [255 - images[each] if i % 2 else images[each] for i, each in enumerate(several)]
            tried.append((predictor.logits(beside)[::2], saved[several[::2]]))
    for logits, expected in tried:
        error = float(((logits - expected).abs() / (1 + expected.abs())).nan_to_num(torch.inf, torch.inf).max())
        allowed = MAX_LOGIT_ERROR[predictor.precision]
        if error > allowed:
            raise CheckpointError(
                f"the reference logits are not repeated on {predictor.device} in {predictor.precision}: the relative "
                f"difference is up to {error:.2g} where {allowed:g} is allowed"
            )
        if predictor.precision != "fp32" and not torch.equal(logits.argmax(dim=1), expected.argmax(dim=1)):
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
    """Checks what follows the logits, to the last step: a temperature can make all of them useless as well."""
    image = Item(checkpoint.reference.pixels.numpy()[0], len(checkpoint.manifest.labels))
    (row,) = predictor.predict([image])
    outcome = predictor.row_decoder.decode(row.tolist(), image.top_k)
    if isinstance(outcome, ItemError):
        raise CheckpointError(f"no predictions can be made of the reference logits: {outcome.detail}")
