"""Ink on paper: the same digit gives the same levels, whatever it is written with and on."""

import numpy as np
import pytest
import torch

from classifier.ink import ink_brightener
from training.data.strokes.draw import draw_digits

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def digits() -> torch.Tensor:
    """uint8 [n, 28, 28, 1]; the strongest ink of each is 255."""
    images = torch.from_numpy(draw_digits(120, seed=7)[0])[..., None]
    return images[images.flatten(1).amax(1) == 255]


def brightened(images: torch.Tensor, *, device: torch.device = CPU) -> torch.Tensor:
    _, height, width, _ = images.shape
    return ink_brightener(height, width, device=device)(images.to(device)).cpu()


def on_paper(digits: torch.Tensor, *, paper: int, ink: int) -> torch.Tensor:
    return (paper + (ink - paper) * (digits / 255)).round().to(torch.uint8)


def level(value: int, size: int = 28) -> torch.Tensor:
    return torch.full((1, size, size, 1), value, dtype=torch.uint8)


def grain(deviation: float, *, paper: int = 200) -> torch.Tensor:
    noise = np.random.default_rng(0).normal(paper, deviation, (20, 28, 28, 1))
    return torch.from_numpy(np.clip(noise, 0, 255).round().astype(np.uint8))


def test_what_becomes_of_an_image_does_not_depend_on_those_beside_it(digits: torch.Tensor) -> None:
    """A batch of bright on black alone is known by a quicker look."""
    kinds = [on_paper(digits[:4], paper=paper, ink=ink) for paper, ink in [(0, 255), (255, 0), (0, 203), (0, 204)]]
    beside = brightened(torch.cat([*kinds, level(0), level(255)]))
    alone = torch.cat([brightened(image[None]) for image in torch.cat([*kinds, level(0), level(255)])])
    assert torch.equal(beside, alone)
    assert torch.equal(brightened(torch.cat([kinds[0], kinds[3]])), torch.cat([beside[:4], beside[12:16]]))


def test_white_on_black_stays_as_it_is_to_the_last_bit(digits: torch.Tensor) -> None:
    assert torch.equal(brightened(digits), digits.float())
    assert torch.equal(brightened(on_paper(digits, paper=0, ink=204)), on_paper(digits, paper=0, ink=204).float())


def test_a_negative_gives_the_same_levels_to_the_last_bit(digits: torch.Tensor) -> None:
    assert torch.equal(brightened(255 - digits), brightened(digits))


@pytest.mark.parametrize("edges", [(28, 28), (29, 40), (64, 64), (1, 6), (3, 2)])
def test_so_does_the_negative_of_a_picture_that_has_no_even_paper(edges: tuple[int, int]) -> None:
    chance = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (100, *edges, 1), dtype=torch.uint8, generator=chance)
    assert torch.equal(brightened(255 - images), brightened(images))


@pytest.mark.parametrize(
    ("paper", "ink"),
    [(255, 64), (200, 30), (150, 20), (128, 0), (100, 20), (127, 255), (90, 220), (0, 128), (230, 180), (60, 92)],
)
def test_ink_of_any_level_on_paper_of_any_level_is_as_bright_as_white_on_black(
    digits: torch.Tensor, paper: int, ink: int
) -> None:
    rounding = 255 / abs(ink - paper)  # a level of the image is so many of the result
    assert (brightened(on_paper(digits, paper=paper, ink=ink)) - digits).abs().max() <= rounding


@pytest.mark.parametrize("value", [0, 1, 127, 128, 200, 255])
def test_an_empty_page_becomes_black(value: int) -> None:
    assert not brightened(level(value)).any()


def test_what_is_fainter_than_32_levels_is_not_made_stronger() -> None:
    assert brightened(grain(3)).max() < 32
    page = level(200)
    page[0, 14, 14] = 200 - 31
    assert brightened(page).max() == 31
    page[0, 14, 14] = 200 - 32
    assert brightened(page).max() == 255


def test_strokes_that_cover_less_than_half_of_the_border_do_not_make_it_paper() -> None:
    page = level(255)
    page[0, :, 8:11] = 0  # from edge to edge
    page[0, 13:16, :] = 0
    page[0, 0, :10] = 0
    assert torch.equal(brightened(page), 255 - page.float())


def test_specks_on_the_other_side_of_the_paper_vanish() -> None:
    page = level(180)
    page[0, 6:22, 12:16] = 20
    clean = brightened(page)
    page[0, 3, 3] = page[0, 25, 20] = 255  # a reflection
    assert torch.equal(brightened(page), clean)


def test_an_image_never_depends_on_its_neighbours(digits: torch.Tensor) -> None:
    mixed = torch.cat([digits[:5], 255 - digits[5:10], on_paper(digits[10:15], paper=150, ink=20), level(77)])
    alone = torch.cat([brightened(image[None]) for image in mixed])
    assert torch.equal(brightened(mixed), alone)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (1, 9), (9, 1), (2, 2), (3, 40), (64, 33)])
def test_images_of_any_size_are_taken_and_the_pixels_are_left_as_they_were(height: int, width: int) -> None:
    pixels = torch.full((2, height, width, 1), 250, dtype=torch.uint8)
    pixels[:, height // 2, width // 2] = 10
    before = pixels.clone()
    levels = brightened(pixels)
    assert levels.shape == pixels.shape
    assert levels.dtype == torch.float32
    assert torch.equal(pixels, before)
    if min(height, width) > 2:
        assert levels[0, height // 2, width // 2] == 240
        assert levels.count_nonzero() == 2


def test_the_order_in_memory_does_not_matter(digits: torch.Tensor) -> None:
    turned = digits.transpose(1, 2)
    assert torch.equal(brightened(turned), brightened(turned.contiguous()))


@pytest.mark.cuda
def test_on_a_gpu_it_agrees_with_the_cpu(digits: torch.Tensor) -> None:
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    grey = on_paper(digits, paper=150, ink=20)
    assert torch.allclose(brightened(grey, device=torch.device("cuda")), brightened(grey), atol=1e-3)
