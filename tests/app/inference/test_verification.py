"""A checkpoint goes live only if this server repeats its reference batch."""

import logging
import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

from app.inference.verification import verify
from classifier.checkpoint import Checkpoint, CheckpointError, Reference
from classifier.manifest import Calibration, OutOfDistribution
from classifier.normalize import normalizer
from tests.support import programs
from tests.support.checkpoints import DIGITS, PHOTOS, checkpoint, png, saying

CPU = torch.device("cpu")


def saved(content: Checkpoint, folder: Path) -> Path:
    content.save(folder / "1.safetensors")
    return folder / "1.safetensors"


@pytest.mark.slow
@pytest.mark.parametrize(("architecture", "preprocess"), [("mnist_cnn", DIGITS), ("resnet18", PHOTOS)])
def test_a_sound_checkpoint_is_proven(architecture: str, preprocess: object, tmp_path: Path) -> None:
    content = checkpoint(architecture=architecture, preprocess=PHOTOS if preprocess is PHOTOS else DIGITS)
    predictor = verify(saved(content, tmp_path), device=CPU, max_items=3)
    assert predictor.manifest == content.manifest


def test_logits_that_these_weights_do_not_give_are_refused(tmp_path: Path) -> None:
    content = checkpoint()
    logits = content.reference.logits.clone()
    logits[2, 5] += 0.1
    with pytest.raises(CheckpointError, match="logits are not repeated on cpu"):
        verify(
            saved(replace(content, reference=replace(content.reference, logits=logits)), tmp_path),
            device=CPU,
            max_items=8,
        )


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    content = replace(checkpoint(seed=0), network=checkpoint(seed=1).network)
    with pytest.raises(CheckpointError, match="logits are not repeated"):
        verify(saved(content, tmp_path), device=CPU, max_items=8)


def test_a_difference_of_rounding_is_allowed(tmp_path: Path) -> None:
    content = checkpoint()
    reference = replace(content.reference, logits=content.reference.logits * (1 + 1e-4))
    verify(saved(replace(content, reference=reference), tmp_path), device=CPU, max_items=8)


def test_pixels_that_this_decoder_does_not_make_are_refused(tmp_path: Path) -> None:
    content = checkpoint()
    pixels = content.reference.pixels.clone()
    pixels[1, 14, 14, 0] = pixels[1, 14, 14, 0].bitwise_xor(4)
    reference = replace(content.reference, pixels=pixels)
    with pytest.raises(CheckpointError, match="reference image 1 becomes other pixels"):
        verify(saved(replace(content, reference=reference), tmp_path), device=CPU, max_items=8)


def test_a_resize_that_training_did_not_do_is_refused(tmp_path: Path) -> None:
    large = tuple(png(i, (61, 47)) for i in range(4))
    content = checkpoint()
    made_otherwise = checkpoint(preprocess=DIGITS.model_copy(update={"interpolation": "nearest"}))
    reference = Reference(large, made_otherwise.reference.pixels, content.reference.logits)
    with pytest.raises(CheckpointError, match="becomes other pixels here than in training"):
        verify(saved(replace(content, reference=reference), tmp_path), device=CPU, max_items=8)


def test_a_reference_image_that_is_no_image_is_refused(tmp_path: Path) -> None:
    content = checkpoint()
    reference = replace(content.reference, encoded=(*content.reference.encoded[:3], b"no picture"))
    with pytest.raises(CheckpointError, match="reference image 3 cannot be decoded"):
        verify(saved(replace(content, reference=reference), tmp_path), device=CPU, max_items=8)


def test_too_little_memory_is_not_the_files_fault(tmp_path: Path) -> None:
    """The store tries again what a MemoryError has kept from being loaded; a refused file stays refused."""
    with pytest.raises(MemoryError):
        verify(saved(checkpoint(), tmp_path), device=CPU, max_items=10**14)


def test_a_threshold_that_no_score_can_be_compared_with_is_refused(tmp_path: Path) -> None:
    section = OutOfDistribution.model_construct(method="energy", threshold=math.nan)
    with pytest.raises(CheckpointError, match="threshold"):
        verify(saved(saying(checkpoint(), out_of_distribution=section), tmp_path), device=CPU, max_items=8)


def test_a_temperature_that_makes_every_score_useless_is_refused(tmp_path: Path) -> None:
    content = checkpoint()
    manifest = content.manifest.model_copy(update={"calibration": Calibration(temperature=1e-46)})
    with pytest.raises(CheckpointError, match="no predictions can be made"):
        verify(saved(replace(content, manifest=manifest), tmp_path), device=CPU, max_items=8)


def test_in_bf16_the_logits_may_differ_a_little(tmp_path: Path) -> None:
    content = with_fixed_logits([3.0, 1.003, 0, 0, 0, 0, 0, 0, 0, 0])
    (row, *_) = verify(saved(content, tmp_path), device=CPU, max_items=8, precision="bf16").logits(
        list(content.reference.pixels.numpy())
    )
    assert row[1] != pytest.approx(1.003, abs=1e-3)
    assert row[:2].tolist() == pytest.approx([3.0, 1.003], abs=0.01)
    assert row.dtype == torch.float32


def test_in_bf16_another_likeliest_class_is_refused(tmp_path: Path) -> None:
    path = saved(with_fixed_logits([1.0, 1.0001, 0, 0, 0, 0, 0, 0, 0, 0]), tmp_path)
    verify(path, device=CPU, max_items=8)
    with pytest.raises(CheckpointError, match="another likeliest class than in training: serve this model in fp32"):
        verify(path, device=CPU, max_items=8, precision="bf16")


@pytest.mark.slow
def test_what_is_served_is_folded_and_the_proof_is_of_that(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "app")
    path = saved(checkpoint(architecture="resnet18", preprocess=PHOTOS), tmp_path)
    verify(path, device=CPU, max_items=8)
    assert [(record.message, record.__dict__["values"]["modules"]) for record in caplog.records] == [
        ("folded", 20),
        ("packed", 8),
    ]

    def wrong(weights: torch.Tensor, *_: object, **__: object) -> tuple[nn.Parameter, nn.Parameter]:
        return nn.Parameter(weights), nn.Parameter(torch.ones(len(weights)))

    monkeypatch.setattr("torch.nn.utils.fusion.fuse_conv_bn_weights", wrong)
    with pytest.raises(CheckpointError, match="logits are not repeated"):
        verify(path, device=CPU, max_items=8)


@pytest.mark.slow
def test_what_cannot_be_folded_is_served_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unable(*_: object, **__: object) -> None:
        raise TypeError("no such thing\nas a batch norm")

    monkeypatch.setattr("torch.nn.utils.fusion.fuse_conv_bn_weights", unable)
    verify(saved(checkpoint(architecture="resnet18", preprocess=PHOTOS), tmp_path), device=CPU, max_items=8)
    (record,) = caplog.records
    assert record.__dict__["values"] == {"model": "digits", "reason": "TypeError: no such thing"}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("owner", "function"),
    [(torch.nn.utils.fusion, "fuse_conv_bn_weights"), (torch.ops.mkldnn, "_reorder_convolution_weight")],
)
def test_memory_that_runs_out_while_folding_or_packing_is_not_the_files_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, owner: object, function: str
) -> None:
    def unable(*_: object, **__: object) -> None:
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory")

    monkeypatch.setattr(owner, function, unable)
    with pytest.raises(MemoryError):
        verify(saved(checkpoint(architecture="resnet18", preprocess=PHOTOS), tmp_path), device=CPU, max_items=8)


@pytest.mark.slow
def test_what_is_packed_wrongly_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(checkpoint(architecture="resnet18", preprocess=PHOTOS), tmp_path)

    def wrong(weights: torch.Tensor, *_: object) -> torch.Tensor:
        return weights.flip(0)

    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_convolution_weight", wrong)
    with pytest.raises(CheckpointError, match="logits are not repeated"):
        verify(path, device=CPU, max_items=8)


@pytest.mark.slow
def test_what_cannot_be_packed_is_served_as_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def unable(*_: object) -> None:
        raise AttributeError("no such operator\nfor this processor")

    monkeypatch.setattr(torch.ops.mkldnn, "_reorder_convolution_weight", unable)
    verify(saved(checkpoint(architecture="resnet18", preprocess=PHOTOS), tmp_path), device=CPU, max_items=8)
    (record,) = caplog.records
    assert record.message == "not packed"
    assert record.__dict__["values"] == {"model": "digits", "reason": "AttributeError: no such operator"}


@pytest.mark.slow
@pytest.mark.parametrize("max_items", [1, 3, 20])
def test_a_compiled_network_is_proven_like_another(tmp_path: Path, max_items: int) -> None:
    """By a backend that needs no compiler: torch then traces the network, and calls what it has traced."""
    content = checkpoint()
    predictor = verify(saved(content, tmp_path), device=CPU, max_items=max_items, compile_with="eager")
    repeated = predictor.logits(list(content.reference.pixels.numpy()))
    torch.testing.assert_close(repeated, content.reference.logits, rtol=1e-4, atol=1e-5)


@pytest.mark.slow
def test_torch_compiles_each_version_however_many_there_were_before(tmp_path: Path) -> None:
    from torch._dynamo.utils import counters

    for seed in range(5):  # torch compiles one function eight times at the most, and each of these twice
        preprocess = DIGITS.model_copy(update={"mean": (0.1 + seed / 100,)})
        before = counters["stats"]["unique_graphs"]
        verify(saved(checkpoint(seed, preprocess=preprocess), tmp_path), device=CPU, max_items=4, compile_with="eager")
        assert counters["stats"]["unique_graphs"] > before
        (tmp_path / "1.safetensors").unlink()


@pytest.mark.slow
def test_what_cannot_be_compiled_is_refused_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from torch._inductor import config

    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "compiled"))
    refused = pytest.raises(
        CheckpointError, match=r"cannot be compiled here; serve it without --compile .*no-such-compiler"
    )
    with refused, config.patch({"cpp.cxx": (None, "no-such-compiler")}):
        verify(saved(checkpoint(), tmp_path), device=CPU, max_items=8, compile_with="inductor")


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_program_is_proven_as_a_named_network_is(tmp_path: Path, precision: str) -> None:
    content = programs.checkpoint()
    predictor = verify(saved(content, tmp_path), device=CPU, max_items=5, precision=precision)
    again = predictor.logits(list(content.reference.pixels.numpy()))
    assert torch.equal(again.argmax(dim=1), content.reference.logits.argmax(dim=1))


def test_several_threads_compute_batches_of_any_size_with_a_program_at_once(tmp_path: Path) -> None:
    content = programs.checkpoint()
    predictor = verify(saved(content, tmp_path), device=CPU, max_items=16, slots=3)
    images, expected = list(content.reference.pixels.numpy()), content.reference.logits
    chosen = [[(n + i) % len(images) for i in range(n % 16 + 1)] for n in range(64)]
    with ThreadPoolExecutor(4) as pool:
        made = pool.map(lambda batch: predictor.logits([images[i] for i in batch]), chosen)
        for logits, batch in zip(made, chosen, strict=True):
            torch.testing.assert_close(logits, expected[batch], rtol=1e-3, atol=1e-4)


def _and(*nodes: object) -> Checkpoint:
    return programs.checkpoint([*programs.DIGITS_NODES, *nodes])  # type: ignore[list-item]


def test_a_program_that_mixes_the_images_of_a_batch_is_refused(tmp_path: Path) -> None:
    mean = programs.node("mean.dim", programs.value(11), (0,), True)
    content = _and(mean, programs.node("add.Tensor", programs.value(11), programs.value(12)))
    with pytest.raises(CheckpointError, match="logits are not repeated"):
        verify(saved(content, tmp_path), device=CPU, max_items=8)


def test_a_program_whose_result_depends_on_the_number_of_images_is_refused(tmp_path: Path) -> None:
    content = _and(
        programs.node("sym_size", programs.IMAGES, 0),
        programs.node("mul.Scalar", programs.value(11), programs.value(12)),
    )
    with pytest.raises(CheckpointError, match="logits are not repeated"):
        verify(saved(content, tmp_path), device=CPU, max_items=8)


def test_a_program_that_is_wrong_for_the_largest_batches_alone_is_refused(tmp_path: Path) -> None:
    """It doubles the logits of more images than the reference has."""
    content = _and(
        programs.node("sym_size", programs.IMAGES, 0),
        programs.node("size_add", programs.value(12), 3),
        programs.node("size_floordiv", programs.value(13), 4),
        programs.node("mul.Scalar", programs.value(11), programs.value(14)),
    )
    assert len(content.reference.encoded) == 4
    with pytest.raises(CheckpointError, match="logits are not repeated"):
        verify(saved(content, tmp_path), device=CPU, max_items=8)


def test_a_program_that_is_misled_by_other_images_of_the_batch_is_refused(tmp_path: Path) -> None:
    """What it adds is nothing as long as no image of the batch is brighter than those of the reference."""
    plain = programs.checkpoint()
    images = normalizer(plain.manifest.preprocess, device=CPU)(plain.reference.pixels)
    content = _and(
        programs.node("mean.dim", programs.IMAGES, (1, 2, 3)),
        programs.node("amax", programs.value(12), (0,)),
        programs.node("sub.Scalar", programs.value(13), float(images.mean((1, 2, 3)).max()) + 0.01),
        programs.node("relu", programs.value(14)),
        programs.node("add.Tensor", programs.value(11), programs.value(15)),
    )
    with pytest.raises(CheckpointError, match="logits are not repeated"):
        verify(saved(content, tmp_path), device=CPU, max_items=8)


def test_a_program_that_squeezes_its_result_at_one_image_is_refused(tmp_path: Path) -> None:
    content = _and(programs.node("squeeze", programs.value(11)))
    with pytest.raises(CheckpointError, match="cannot compute a batch of 1"):
        saved(content, tmp_path)


def test_a_program_that_takes_more_memory_than_there_is_is_refused_for_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("app.inference.verification.free_memory", lambda: 1000.0)
    with pytest.raises(MemoryError, match="smaller max_batch"):
        verify(saved(programs.checkpoint(), tmp_path), device=CPU, max_items=8)


@pytest.mark.slow
def test_a_program_is_compiled_like_another_network(tmp_path: Path) -> None:
    content = programs.checkpoint()
    predictor = verify(saved(content, tmp_path), device=CPU, max_items=3, compile_with="eager")
    repeated = predictor.logits(list(content.reference.pixels.numpy()))
    torch.testing.assert_close(repeated, content.reference.logits, rtol=1e-4, atol=1e-5)


def with_fixed_logits(values: list[float]) -> Checkpoint:
    """A network that gives every image these logits."""
    content = checkpoint()
    weights = {**content.network, "fc2.weight": torch.zeros(10, 128), "fc2.bias": torch.tensor(values)}
    reference = replace(content.reference, logits=torch.tensor([values] * len(content.reference.encoded)))
    return replace(content, network=weights, reference=reference)
