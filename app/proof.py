"""Proves a checkpoint before it is served: this server, on its device, repeats what training saw.

The reference batch in the file holds real images, the pixels that training made of them and the logits that exactly
these weights gave. A wrong resize, a broken kernel or a damaged file does not repeat them.
"""

import time
from pathlib import Path

import numpy as np
import torch

from app.engine import ItemError
from app.images import ImageProblem, decode
from app.predictor import Item, Predictor
from classifier.checkpoint import Checkpoint, CheckpointError
from classifier.preprocess import Pixels

# Resampling may round differently in another build of Pillow.
MAX_LEVELS = 1
# Bounds on |Δ logit| / (1 + |logit|). In fp32, with TF32 off, sums are taken in another order on another device. In
# bf16 each value keeps 8 bits, and the likeliest class must be the same, too.
MAX_LOGIT_ERROR = {"fp32": 1e-3, "bf16": 1e-1}


def prove(path: Path, *, device: torch.device, max_items: int, precision: str = "fp32") -> Predictor:
    """A warmed-up predictor of the checkpoint at `path`.

    Raises:
        CheckpointError: what is wrong with the file, or in what it does not repeat its reference batch.
        OSError: the file cannot be read.
        MemoryError: of the host or of the device.
    """
    try:
        checkpoint = Checkpoint.load(path)
        predictor = Predictor(
            checkpoint.build(), checkpoint.manifest, device=device, max_items=max_items, precision=precision
        )
        _check_pixels(checkpoint)
        _check_logits(checkpoint, predictor)
        _check_predictions(checkpoint, predictor)
    except RuntimeError as error:
        # Torch says it by this type for the host, and on the device not always by its own OutOfMemoryError.
        if "out of memory" in str(error) or "can't allocate memory" in str(error):
            raise MemoryError(str(error)) from error
        raise
    return predictor


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
    together = torch.cat(
        [
            predictor.logits(images[i : i + predictor.max_items]).cpu()
            for i in range(0, len(images), predictor.max_items)
        ]
    )
    for logits in (alone, together):
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
    logits = predictor.logits([image]).cpu()
    predictor.seconds_alone = min(predictor.seconds_alone, time.perf_counter() - began)
    return logits


def _check_predictions(checkpoint: Checkpoint, predictor: Predictor) -> None:
    """What follows the logits, to the last step: a temperature, too, can make all of them useless."""
    image = Item(checkpoint.reference.pixels.numpy()[0], len(checkpoint.manifest.labels))
    (row,) = predictor.predict([image])
    outcome = predictor.reader.answer(row.tolist(), image.top_k)
    if isinstance(outcome, ItemError):
        raise CheckpointError(f"no predictions can be made of the reference logits: {outcome.detail}")
