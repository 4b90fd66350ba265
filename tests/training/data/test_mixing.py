"""Mixup and CutMix are those of their papers, and the generator is the only source of chance."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from training.data import mixing
from training.data.mixing import Targets, mixed
from training.recipes.recipe import Augment

N, HEIGHT, WIDTH = 8, 12, 10
TARGETS = torch.arange(N) % 3


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def numbered() -> torch.Tensor:
    """Images of one level each: 0, 30, 60, …"""
    return (torch.arange(N, dtype=torch.uint8) * 30)[:, None, None, None].repeat(1, HEIGHT, WIDTH, 3)


def partners_of(images: torch.Tensor, changed: torch.Tensor, share: float) -> torch.Tensor:
    """What each image was mixed with, found out by the formula x = share * a + (1 - share) * b."""
    others = (changed.double() - share * images.double()) / (1 - share)
    return (others.mean((1, 2, 3)) / 30).round().long()


@pytest.mark.parametrize("seed", range(5))
def test_mixup_is_the_sum_of_two_images_and_of_their_classes_by_one_share(seed: int) -> None:
    images = numbered()
    changed, targets = mixed(images, TARGETS, Augment(mixup=1.0), seeded(seed))
    partners = partners_of(images, changed, targets.share)
    assert sorted(partners.tolist()) == list(range(N))  # a batch in another order
    exact = targets.share * images + (1 - targets.share) * images[partners]
    assert (changed - exact).abs().max() <= 0.5  # rounded to whole levels
    assert changed.dtype == torch.uint8
    assert targets.first.equal(TARGETS)
    assert targets.second.equal(TARGETS[partners])


@pytest.mark.parametrize("seed", range(20))
def test_cutmix_puts_a_part_of_another_image_in_and_counts_classes_by_area(seed: int) -> None:
    images = numbered()
    changed, targets = mixed(images, TARGETS, Augment(cutmix=1.0), seeded(seed))
    foreign = changed[..., 0] != images[..., 0]
    place = foreign.any(0)
    rows, columns = place.any(1).sum(), place.any(0).sum()
    assert place.sum() == rows * columns  # one box, the same in all images
    assert targets.share == pytest.approx(1 - int(place.sum()) / (HEIGHT * WIDTH))
    for i in range(N):
        of_others = set(changed[i][place].flatten().tolist())
        assert len(of_others) <= 1
        if of_others and place.any():
            assert targets.second[i] == TARGETS[of_others.pop() // 30]


def test_a_part_has_the_ratio_of_the_image_and_the_area_that_was_drawn() -> None:
    """Yun et al. 2019, equation 2: both edges are the image's by the root of 1 - share; the border cuts them."""
    images = torch.zeros(1, 40, 20, 1, dtype=torch.uint8)
    sizes = set()
    for seed in range(300):
        changed, stayed = mixing._cut(images, images + 1, 0.75, np.random.default_rng(seed))
        place = changed[0, ..., 0].bool()
        rows, columns = int(place.any(1).sum()), int(place.any(0).sum())
        assert stayed == pytest.approx(1 - rows * columns / 800)
        sizes.add((rows, columns))
    assert max(sizes) == (20, 10)
    assert min(rows for rows, _ in sizes) == 10
    assert min(columns for _, columns in sizes) == 5


def test_the_share_is_drawn_from_the_beta_distribution() -> None:
    generator = seeded()
    images = torch.zeros(2, 1, 1, 1, dtype=torch.uint8)
    for alpha in (0.2, 1.0, 5.0):
        augment = Augment(mixup=alpha)
        shares = torch.tensor([mixed(images, TARGETS[:2], augment, generator)[1].share for _ in range(3000)])
        deviation = math.sqrt(1 / (4 * (2 * alpha + 1)))  # of Beta(alpha, alpha)
        assert float(shares.mean()) == pytest.approx(0.5, abs=5 * deviation / math.sqrt(3000))
        assert float(shares.std()) == pytest.approx(deviation, rel=0.06)


def test_of_both_chance_takes_one_for_each_batch() -> None:
    generator, cuts = seeded(), 0
    for _ in range(200):
        images = numbered()
        changed, _ = mixed(images, TARGETS, Augment(mixup=1.0, cutmix=1.0), generator)
        cuts += bool(torch.isin(changed, images).all())
    assert 70 < cuts < 130


def test_the_loss_is_that_of_the_mixed_classes() -> None:
    logits = torch.randn(N, 3, generator=seeded(), dtype=torch.float64)
    targets = Targets(TARGETS, TARGETS.flip(0), 0.3)
    soft = 0.3 * F.one_hot(targets.first, 3) + 0.7 * F.one_hot(targets.second, 3)
    for smoothing in (0.0, 0.1):
        expected = F.cross_entropy(logits, soft.double(), label_smoothing=smoothing)
        torch.testing.assert_close(targets.loss(logits, label_smoothing=smoothing), expected)
    right = 0.3 * (logits.argmax(1) == targets.first).sum() + 0.7 * (logits.argmax(1) == targets.second).sum()
    assert float(targets.right(logits)) == pytest.approx(float(right))


def test_the_same_generator_mixes_alike_and_without_both_nothing_is_drawn() -> None:
    images, augment = numbered(), Augment(mixup=0.5, cutmix=0.5)
    first, again = (mixed(images, TARGETS, augment, seeded(3)) for _ in range(2))
    assert first[0].equal(again[0])
    assert first[1].share == again[1].share
    generator = seeded()
    same, targets = mixed(images, TARGETS, Augment(), generator)
    assert same is images
    assert targets.share == 1
    assert generator.get_state().equal(seeded().get_state())
