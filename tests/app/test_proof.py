"""A checkpoint goes live only if this server repeats its reference batch."""

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from app.proof import prove
from classifier.checkpoint import Checkpoint, CheckpointError, Reference
from classifier.manifest import Calibration, OutOfDistribution
from tests.checkpoints import DIGITS, PHOTOS, checkpoint, png, saying

CPU = torch.device("cpu")


def saved(content: Checkpoint, folder: Path) -> Path:
    content.save(folder / "1.safetensors")
    return folder / "1.safetensors"


@pytest.mark.parametrize(("architecture", "preprocess"), [("mnist_cnn", DIGITS), ("resnet18", PHOTOS)])
def test_a_sound_checkpoint_is_proven(architecture: str, preprocess: object, tmp_path: Path) -> None:
    content = checkpoint(architecture=architecture, preprocess=PHOTOS if preprocess is PHOTOS else DIGITS)
    predictor = prove(saved(content, tmp_path), device=CPU, max_items=3)
    assert predictor.manifest == content.manifest


def test_logits_that_these_weights_do_not_give_are_refused(tmp_path: Path) -> None:
    content = checkpoint()
    logits = content.reference.logits.clone()
    logits[2, 5] += 0.1
    with pytest.raises(CheckpointError, match="logits are not repeated on cpu"):
        prove(
            saved(replace(content, reference=replace(content.reference, logits=logits)), tmp_path),
            device=CPU,
            max_items=8,
        )


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    content = replace(checkpoint(seed=0), network=checkpoint(seed=1).network)
    with pytest.raises(CheckpointError, match="logits are not repeated"):
        prove(saved(content, tmp_path), device=CPU, max_items=8)


def test_a_difference_of_rounding_is_allowed(tmp_path: Path) -> None:
    content = checkpoint()
    reference = replace(content.reference, logits=content.reference.logits * (1 + 1e-4))
    prove(saved(replace(content, reference=reference), tmp_path), device=CPU, max_items=8)


def test_pixels_that_this_decoder_does_not_make_are_refused(tmp_path: Path) -> None:
    content = checkpoint()
    pixels = content.reference.pixels.clone()
    pixels[1, 14, 14, 0] = pixels[1, 14, 14, 0].bitwise_xor(4)
    reference = replace(content.reference, pixels=pixels)
    with pytest.raises(CheckpointError, match="reference image 1 becomes other pixels"):
        prove(saved(replace(content, reference=reference), tmp_path), device=CPU, max_items=8)


def test_a_resize_that_training_did_not_do_is_refused(tmp_path: Path) -> None:
    large = tuple(png(i, (61, 47)) for i in range(4))
    content = checkpoint()
    made_otherwise = checkpoint(preprocess=DIGITS.model_copy(update={"interpolation": "nearest"}))
    reference = Reference(large, made_otherwise.reference.pixels, content.reference.logits)
    with pytest.raises(CheckpointError, match="becomes other pixels here than in training"):
        prove(saved(replace(content, reference=reference), tmp_path), device=CPU, max_items=8)


def test_a_reference_image_that_is_no_image_is_refused(tmp_path: Path) -> None:
    content = checkpoint()
    reference = replace(content.reference, encoded=(*content.reference.encoded[:3], b"no picture"))
    with pytest.raises(CheckpointError, match="reference image 3 cannot be decoded"):
        prove(saved(replace(content, reference=reference), tmp_path), device=CPU, max_items=8)


def test_too_little_memory_is_not_the_files_fault(tmp_path: Path) -> None:
    """The store tries again what a MemoryError has kept from being loaded; a refused file stays refused."""
    with pytest.raises(MemoryError):
        prove(saved(checkpoint(), tmp_path), device=CPU, max_items=10**14)


def test_a_threshold_that_no_score_can_be_compared_with_is_refused(tmp_path: Path) -> None:
    section = OutOfDistribution.model_construct(method="energy", threshold=math.nan)
    with pytest.raises(CheckpointError, match="threshold"):
        prove(saved(saying(checkpoint(), out_of_distribution=section), tmp_path), device=CPU, max_items=8)


def test_a_temperature_that_makes_every_score_useless_is_refused(tmp_path: Path) -> None:
    content = checkpoint()
    manifest = content.manifest.model_copy(update={"calibration": Calibration(temperature=1e-46)})
    with pytest.raises(CheckpointError, match="no predictions can be made"):
        prove(saved(replace(content, manifest=manifest), tmp_path), device=CPU, max_items=8)


def test_in_bf16_the_logits_may_differ_a_little(tmp_path: Path) -> None:
    content = with_fixed_logits([3.0, 1.003, 0, 0, 0, 0, 0, 0, 0, 0])
    (row, *_) = prove(saved(content, tmp_path), device=CPU, max_items=8, precision="bf16").logits(
        list(content.reference.pixels.numpy())
    )
    assert row[1] != pytest.approx(1.003, abs=1e-3)
    assert row[:2].tolist() == pytest.approx([3.0, 1.003], abs=0.01)
    assert row.dtype == torch.float32


def test_in_bf16_another_likeliest_class_is_refused(tmp_path: Path) -> None:
    path = saved(with_fixed_logits([1.0, 1.0001, 0, 0, 0, 0, 0, 0, 0, 0]), tmp_path)
    prove(path, device=CPU, max_items=8)
    with pytest.raises(CheckpointError, match="another likeliest class than in training: serve this model in fp32"):
        prove(path, device=CPU, max_items=8, precision="bf16")


def with_fixed_logits(values: list[float]) -> Checkpoint:
    """A network that gives every image these logits."""
    content = checkpoint()
    weights = {**content.network, "fc2.weight": torch.zeros(10, 128), "fc2.bias": torch.tensor(values)}
    reference = replace(content.reference, logits=torch.tensor([values] * len(content.reference.encoded)))
    return replace(content, network=weights, reference=reference)
