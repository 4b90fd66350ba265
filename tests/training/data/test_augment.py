"""What is done at random to a whole batch: bounds, independence of the images, and the generator as the only source."""

import math
from collections.abc import Callable

import pytest
import torch

from training.data.augment import affine, augmented, flip_in_place, sampled, shifted, warped
from training.recipes.recipe import Augment

Warp = Callable[[torch.Tensor, torch.Generator], torch.Tensor]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def noise(count: int = 6, height: int = 28, width: int = 28, channels: int = 1) -> torch.Tensor:
    return torch.randint(0, 256, (count, height, width, channels), dtype=torch.uint8, generator=seeded(9))


def warp(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    return warped(images, degrees=15, scale=0.1, shear=10, translate=2, elastic=3, generator=generator)


def flipped(images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    changed = images.clone()
    flip_in_place(changed, generator)
    return changed


ALL: list[Warp] = [
    warp,
    flipped,
    lambda images, generator: shifted(images, 2, generator),
    lambda images, generator: augmented(images.clone(), Augment(flip=True, shift=1, degrees=9, elastic=2), generator),
]
each_augmentation = pytest.mark.parametrize("augmentation", ALL, ids=["warped", "flipped", "shifted", "augmented"])


def still(count: int, **changes: float) -> torch.Tensor:
    """The map that changes nothing but what is named."""
    values = {"turn": 0.0, "enlarge": 1.0, "slant": 0.0, "right": 0.0, "down": 0.0} | changes
    return affine(**{name: torch.full((count,), value) for name, value in values.items()})


def seen_through(sources: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    """`images` under the maps [n, 2, 3]."""
    height, width = images.shape[1:3]
    y, x = torch.meshgrid(torch.arange(height) - (height - 1) / 2, torch.arange(width) - (width - 1) / 2, indexing="ij")
    places = torch.einsum("nij,jhw->nihw", sources, torch.stack([x, y, torch.ones_like(x)]))
    return sampled(images, places)


def dot(row: int, column: int, size: int = 9) -> torch.Tensor:
    image = torch.zeros(1, size, size, 1, dtype=torch.uint8)
    image[0, row, column] = 255
    return image


def centres(images: torch.Tensor) -> torch.Tensor:
    """float [n, 2]: the centre of mass of each grey image, (row, column)."""
    mass = images[..., 0].float()
    rows, columns = torch.arange(mass.shape[1]).float(), torch.arange(mass.shape[2]).float()
    total = mass.sum((1, 2))
    return torch.stack([(mass.sum(2) @ rows) / total, (mass.sum(1) @ columns) / total], dim=1)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(("height", "width"), [(28, 28), (20, 33)])
def test_a_warp_by_nothing_gives_every_image_back(height: int, width: int, channels: int) -> None:
    images = noise(height=height, width=width, channels=channels)

    assert warped(images, generator=seeded()).equal(images)


@pytest.mark.parametrize("channels", [1, 3])
def test_a_quarter_turn_is_the_image_turned_clockwise(channels: int) -> None:
    images = noise(height=21, width=21, channels=channels)

    turned = seen_through(still(6, turn=math.pi / 2), images)

    assert turned.equal(images.rot90(-1, dims=(1, 2)))


def test_right_and_down_move_by_pixels_and_zero_comes_in() -> None:
    images = noise(height=10, width=14, channels=3)

    moved = seen_through(still(6, right=3, down=-2), images)

    assert moved[:, :-2, 3:].equal(images[:, 2:, :-3])
    assert not moved[:, -2:].any()
    assert not moved[:, :, :3].any()


def test_half_a_pixel_is_shared_by_its_neighbours() -> None:
    moved = seen_through(still(1, right=0.5), dot(4, 4))

    assert moved[0, 4, 3:7, 0].tolist() == [0, 128, 128, 0]


def test_an_enlarged_image_moves_away_from_its_middle() -> None:
    assert centres(seen_through(still(1, enlarge=2), dot(6, 8, size=13)))[0].tolist() == pytest.approx([6, 10], abs=0.3)


def test_a_slant_moves_the_top_to_the_right_and_the_bottom_to_the_left() -> None:
    slanted = still(1, slant=math.pi / 4)

    assert seen_through(slanted, dot(2, 4)).equal(dot(2, 6))
    assert seen_through(slanted, dot(6, 4)).equal(dot(6, 2))
    assert seen_through(slanted, dot(4, 4)).equal(dot(4, 4))


def test_an_image_is_slanted_then_turned_then_enlarged_then_moved() -> None:
    everything = still(1, slant=math.pi / 4, turn=math.pi / 2, enlarge=2, right=1, down=-1)

    # (x, y) from the middle: (0, -1) slanted (1, -1), turned clockwise (1, 1), enlarged (2, 2), moved (3, 1).
    assert centres(seen_through(everything, dot(3, 4)))[0].tolist() == pytest.approx([5, 7], abs=0.3)


@each_augmentation
@pytest.mark.parametrize("channels", [1, 3])
def test_the_result_is_a_batch_of_the_same_kind(augmentation: Warp, channels: int) -> None:
    images = noise(height=20, width=33, channels=channels)
    before = images.clone()

    after = augmentation(images, seeded())

    assert (after.shape, after.dtype) == (images.shape, torch.uint8)
    assert not after.equal(images)
    assert images.equal(before)


@each_augmentation
def test_the_generator_alone_decides(augmentation: Warp) -> None:
    images = noise()
    first = augmentation(images, seeded(1))
    torch.rand(5)  # torch's own generator goes on

    assert augmentation(images, seeded(1)).equal(first)
    assert not augmentation(images, seeded(2)).equal(first)


@each_augmentation
def test_the_global_generator_is_left_alone(augmentation: Warp) -> None:
    before = torch.get_rng_state()

    augmentation(noise(), seeded())

    assert torch.get_rng_state().equal(before)


@each_augmentation
def test_a_second_batch_is_treated_differently(augmentation: Warp) -> None:
    generator = seeded()

    assert not augmentation(noise(), generator).equal(augmentation(noise(), generator))


@each_augmentation
def test_mixed_precision_changes_nothing(augmentation: Warp) -> None:
    exact = augmentation(noise(), seeded())

    with torch.autocast("cpu", torch.bfloat16):
        assert augmentation(noise(), seeded()).equal(exact)


def test_every_image_gets_a_map_of_its_own() -> None:
    images = noise(1).expand(8, -1, -1, -1)

    after = warp(images, seeded())

    assert not any(after[i].equal(after[j]) for i in range(8) for j in range(i))


@each_augmentation
def test_nothing_leaks_from_one_image_to_another(augmentation: Warp) -> None:
    images = noise()
    alone = torch.zeros_like(images)
    alone[2] = images[2]

    among_others, by_itself = augmentation(images, seeded()), augmentation(alone, seeded())

    assert by_itself[2].equal(among_others[2])
    assert not by_itself[[0, 1, 3, 4, 5]].any()


@each_augmentation
def test_the_channels_stay_apart_and_move_together(augmentation: Warp) -> None:
    colour = noise(channels=3)

    together = augmentation(colour, seeded())

    for channel in range(3):
        assert together[..., channel : channel + 1].equal(augmentation(colour[..., channel : channel + 1], seeded()))


@pytest.mark.parametrize(
    ("options", "most"),
    [({"translate": 1.5}, 1.5), ({"elastic": 2.0}, 2.0), ({"translate": 1.0, "elastic": 1.0}, 2.0)],
)
def test_nothing_moves_further_than_it_may(options: dict[str, float], most: float) -> None:
    spot = torch.zeros(2000, 21, 21, 1, dtype=torch.uint8)
    spot[:, 10, 10] = 255

    seen = warped(spot, **options, generator=seeded()).nonzero()[:, 1:3]

    reach = (seen - 10).abs().max().item()
    assert most <= reach <= math.ceil(most) + (0 if most.is_integer() else 1)


def test_translation_is_even_over_its_range() -> None:
    spot = torch.zeros(4000, 21, 21, 1, dtype=torch.uint8)
    spot[:, 10, 10] = 255

    moves = centres(warped(spot, translate=3, generator=seeded())) - 10

    assert moves.mean(0).tolist() == pytest.approx([0, 0], abs=0.1)
    assert moves.std(0).tolist() == pytest.approx([3 / math.sqrt(3)] * 2, abs=0.1)
    assert moves.T.corrcoef()[0, 1].abs() < 0.1


def test_a_shift_takes_every_whole_step_each_way() -> None:
    moves = centres(shifted(dot(4, 4).expand(1000, -1, -1, -1), 2, seeded())) - 4

    steps = {(row, column) for row in range(-2, 3) for column in range(-2, 3)}
    assert {(row, column) for row, column in moves.tolist()} == steps


@pytest.mark.parametrize(("degrees", "least"), [(30, 28), (90, 86)])
def test_turns_stay_within_the_degrees_and_use_them(degrees: float, least: float) -> None:
    spot = torch.zeros(1000, 41, 41, 1, dtype=torch.uint8)
    spot[:, 20, 38] = 255  # to the right of the middle

    down, right = (centres(warped(spot, degrees=degrees, generator=seeded())) - 20).unbind(1)

    turned = torch.atan2(down, right) * 180 / math.pi
    assert least < turned.abs().max() < degrees + 1
    assert turned.mean().abs() < degrees / 10


def test_sizes_stay_within_the_scale() -> None:
    spot = torch.zeros(1000, 41, 41, 1, dtype=torch.uint8)
    spot[:, 20, 30] = 255

    out = (centres(warped(spot, scale=0.2, generator=seeded())) - 20)[:, 1] / 10

    assert 0.77 < out.min() < 0.83
    assert 1.17 < out.max() < 1.23


def test_an_elastic_displacement_is_smooth_and_not_the_same_everywhere() -> None:
    slope = (torch.arange(28) * 9).to(torch.uint8).expand(50, 28, 28)[..., None].contiguous()  # 9 levels a pixel

    pulled = (warped(slope, elastic=3, generator=seeded()).float() - slope)[:, 4:-4, 4:-4, 0] / 9  # pixels

    assert max(pulled.diff(dim=1).abs().max().item(), pulled.diff(dim=2).abs().max().item()) < 1
    assert pulled.flatten(1).std(1).min() > 0.1


def test_about_half_of_the_images_are_mirrored_and_the_rest_is_left() -> None:
    images = noise(1000, 4, 5, 3)

    after = flipped(images, seeded())

    mirrored = (after == images.flip(2)).flatten(1).all(1)
    untouched = (after == images).flatten(1).all(1)
    assert (mirrored ^ untouched).all()
    assert 430 < mirrored.sum() < 570


def test_a_recipe_that_asks_for_nothing_gets_the_batch_itself() -> None:
    images, generator = noise(), seeded()
    before = generator.get_state()

    assert augmented(images, Augment(), generator) is images
    assert generator.get_state().equal(before)


@pytest.mark.parametrize(
    "augment",
    [
        Augment(flip=True),
        Augment(shift=1),
        Augment(degrees=9),
        Augment(scale=0.2),
        Augment(shear=9),
        Augment(translate=1),
        Augment(elastic=2),
    ],
    ids=lambda augment: next(iter(augment.model_dump(exclude_defaults=True))),
)
def test_each_value_of_a_recipe_has_its_effect(augment: Augment) -> None:
    images = noise()

    expected = {
        "flip": lambda: flipped(images, seeded()),
        "shift": lambda: shifted(images, 1, seeded()),
    }
    name, value = next(iter(augment.model_dump(exclude_defaults=True).items()))
    by_hand = expected[name]() if name in expected else warped(images, **{name: value}, generator=seeded())

    assert augmented(images.clone(), augment, seeded()).equal(by_hand)
    assert not by_hand.equal(images)
