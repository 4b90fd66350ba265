"""uint8 batches become the floats that torchvision's own transform makes, without moving a pixel."""

import pytest
import torch
from torchvision.transforms import functional as F

from classifier.normalize import normalizer
from classifier.preprocess import Preprocess

CPU = torch.device("cpu")


def _preprocess(mean: tuple[float, ...], std: tuple[float, ...]) -> Preprocess:
    return Preprocess(mode="L" if len(mean) == 1 else "RGB", resize=None, crop=(5, 7), mean=mean, std=std)


def _all_levels(channels: int) -> torch.Tensor:
    levels = torch.arange(8 * 5 * 7, dtype=torch.int64) % 256
    return torch.stack([levels.roll(i) for i in range(channels)], dim=-1).to(torch.uint8).reshape(8, 5, 7, channels)


@pytest.mark.parametrize(
    ("mean", "std"),
    [
        ((0.1307,), (0.3081,)),
        ((0.0,), (1.0,)),
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
    ],
)
def test_it_equals_torchvisions_conversion_and_normalization(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    pixels = _all_levels(len(mean))
    expected = F.normalize(F.convert_image_dtype(pixels.permute(0, 3, 1, 2), torch.float32), list(mean), list(std))
    floats = normalizer(_preprocess(mean, std), device=CPU)(pixels)
    assert floats.dtype == torch.float32
    assert floats.shape == expected.shape
    assert (floats - expected).abs().max() <= 1e-6


@pytest.mark.parametrize("channels", [1, 3])
def test_the_result_is_channels_last_over_the_pixels_own_order(channels: int) -> None:
    pixels = _all_levels(channels)
    floats = normalizer(_preprocess((0.5,) * channels, (0.5,) * channels), device=CPU)(pixels)
    assert floats.is_contiguous(memory_format=torch.channels_last)
    assert floats.permute(0, 2, 3, 1).is_contiguous()
    assert floats.untyped_storage().nbytes() == pixels.numel() * 4  # one tensor of floats, nothing behind it


@pytest.mark.parametrize("channels", [1, 3])
def test_pixels_of_another_size_and_order_in_memory_are_taken_too(channels: int) -> None:
    normalize = normalizer(_preprocess((0.25,) * channels, (0.5,) * channels), device=CPU)
    pixels = _all_levels(channels)
    assert torch.equal(normalize(pixels[:, 1:4, 2:5]), normalize(pixels)[..., 1:4, 2:5])
    flipped = pixels.transpose(1, 2)
    assert torch.equal(normalize(flipped), normalize(pixels).transpose(2, 3))


@pytest.mark.parametrize("channels", [1, 3])
def test_the_pixels_are_left_as_they_were(channels: int) -> None:
    pixels = _all_levels(channels)
    normalizer(_preprocess((0.5,) * channels, (0.5,) * channels), device=CPU)(pixels)
    assert torch.equal(pixels, _all_levels(channels))


def test_ink_on_paper_gives_the_same_floats_in_both_polarities_and_changes_none_of_white_on_black() -> None:
    plain = Preprocess(mode="L", resize=None, crop=(9, 7), mean=(0.1307,), std=(0.3081,))
    ink = normalizer(plain.model_copy(update={"ink_on_paper": True}), device=CPU)
    pixels = torch.zeros((2, 9, 7, 1), dtype=torch.uint8)
    pixels[0, 2:7, 3] = 255
    pixels[1, 4, 2:5] = 204
    assert torch.equal(ink(pixels), normalizer(plain, device=CPU)(pixels))
    assert torch.equal(ink(255 - pixels), ink(pixels))
    assert ink(pixels).is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_narrower_type_is_rounded_once_from_full_precision(dtype: torch.dtype) -> None:
    preprocess = _preprocess((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    exact = normalizer(preprocess, device=CPU)(_all_levels(3))
    narrow = normalizer(preprocess, device=CPU, dtype=dtype)(_all_levels(3))
    assert narrow.dtype == dtype
    assert torch.equal(narrow, exact.to(dtype))


@pytest.mark.cuda
def test_on_a_gpu_it_agrees_with_the_cpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    preprocess = _preprocess((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    there = normalizer(preprocess, device=torch.device("cuda"))(_all_levels(3).cuda())
    assert there.is_contiguous(memory_format=torch.channels_last)
    assert (there.cpu() - normalizer(preprocess, device=CPU)(_all_levels(3))).abs().max() <= 1e-6
