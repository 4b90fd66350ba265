"""Batches that are decoded on the way: the server's pixels, or augmented ones, the same whoever makes them and when."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from classifier.preprocess import Preprocess
from tests.support.photo_files import write
from training.data.batches import InMemorySplit, OnDemandSplit
from training.data.decode import Job, pixels_of
from training.data.workers import Workers
from training.errors import TrainingError
from training.recipes.recipe import Augment

CPU = torch.device("cpu")
RGB = Preprocess(mode="RGB", resize=40, crop=(32, 36), mean=(0.5,) * 3, std=(0.5,) * 3)
CROP = Augment(crop=(0.2, 1.0))


@pytest.fixture(scope="module")
def workers() -> Workers:
    return Workers(2)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Forty, with a few of each kind that files come in."""
    folder = tmp_path_factory.mktemp("photos")
    held = Image.Exif()
    held[0x0112] = 8
    paths = [write(folder / f"{i}.jpg", seed=i, size=(90 + i, 70), quality=95) for i in range(30)]
    paths += [write(folder / f"held {i}.jpg", seed=30 + i, size=(90, 70), exif=held) for i in range(4)]
    paths += [write(folder / f"{i}.png", seed=34 + i, size=(60, 70), mode="RGBA") for i in range(3)]
    paths += [write(folder / f"grey {i}.png", seed=37 + i, size=(60, 70), mode="L") for i in range(3)]
    return paths


def split_of(
    paths: list[Path], *, preprocess: Preprocess = RGB, augment: Augment = CROP, workers: Workers | None = None
) -> OnDemandSplit:
    targets = torch.arange(len(paths)) % 3
    return OnDemandSplit(paths, np.arange(len(paths)), targets, preprocess, augment, workers or Workers(0))


def whole(split: OnDemandSplit, *, draw: int | None = None, size: int = 7) -> torch.Tensor:
    chosen = torch.split(torch.arange(len(split)), size)
    return torch.cat([images for images, _ in split.batches(chosen, device=CPU, draw=draw)])


@pytest.mark.slow
def test_without_a_draw_the_pixels_are_the_servers(photos: list[Path], workers: Workers) -> None:
    images = whole(split_of(photos, workers=workers))
    assert images.dtype == torch.uint8
    for path, pixels in zip(photos, images.numpy(), strict=True):
        with Image.open(path) as image:
            assert np.array_equal(RGB.to_pixels(image), pixels)


@pytest.mark.process
def test_batches_come_in_the_order_in_which_they_were_chosen(photos: list[Path], workers: Workers) -> None:
    split = split_of(photos, workers=workers)
    everything = whole(split)
    chosen = [torch.tensor([39, 0, 5]), torch.tensor([7]), torch.arange(39, -1, -1), torch.tensor([0, 0])]
    batches = list(split.batches(chosen, device=CPU))
    assert len(batches) == len(chosen)
    for rows, (images, targets) in zip(chosen, batches, strict=True):
        assert images.equal(everything[rows])
        assert targets.equal(split.targets[rows])


@pytest.mark.slow
@pytest.mark.parametrize(
    "augment", [CROP, Augment(trivial=True), Augment(crop=(0.2, 1.0), trivial=True), Augment(rand=(2, 9), erase=0.5)]
)
def test_what_is_drawn_depends_on_the_draw_and_the_sample_alone(
    photos: list[Path], workers: Workers, augment: Augment
) -> None:
    one, other = split_of(photos, augment=augment), split_of(photos, augment=augment, workers=workers)
    first = whole(one, draw=3)
    torch.rand(1)  # nor on torch's own generator
    assert whole(other, draw=3, size=11).equal(first)
    order = torch.randperm(len(photos))
    shuffled = torch.cat([images for images, _ in other.batches(torch.split(order, 5), device=CPU, draw=3)])
    assert shuffled.equal(first[order])
    assert not whole(one, draw=4).equal(first)


def test_torchs_own_generator_is_left_alone(photos: list[Path]) -> None:
    before = torch.get_rng_state()
    whole(split_of(photos, augment=Augment(crop=(0.2, 1.0), trivial=True)), draw=3)
    assert torch.get_rng_state().equal(before)


def test_each_sample_is_drawn_for_itself(photos: list[Path]) -> None:
    same = whole(split_of([photos[0]] * 30), draw=1)
    assert len({image.numpy().tobytes() for image in same}) == 30


def test_a_recipe_without_augmentation_of_single_images_draws_nothing(photos: list[Path]) -> None:
    split = split_of(photos, augment=Augment(flip=True, shift=2))
    assert whole(split, draw=1).equal(whole(split))


def test_a_crop_is_that_of_torchvision(photos: list[Path]) -> None:
    upright = [path for path in photos if path.suffix == ".jpg" and "held" not in path.name]
    job = Job(tuple(upright), RGB, CROP, seeds=tuple(range(len(upright))))
    for seed, (path, pixels) in enumerate(zip(upright, pixels_of(job).numpy(), strict=True)):
        with Image.open(path) as image:
            assert np.abs(pixels - torchvisions_crop(image, seed)).max() <= 1


def test_large_photos_are_decoded_smaller_without_being_seen(tmp_path: Path) -> None:
    paths = tuple(write(tmp_path / f"{i}.jpg", seed=i, size=(1500 + i, 1100), quality=95) for i in range(6))
    differences = []
    for seed, pixels in enumerate(pixels_of(Job(paths, RGB, CROP, seeds=tuple(range(6)))).numpy()):
        with Image.open(paths[seed]) as image:
            differences.append(np.abs(pixels - torchvisions_crop(image, seed)))
    assert 1 < np.max(differences) <= 4  # it is another way, and leads to the same
    assert np.mean(differences) < 0.5


def torchvisions_crop(image: Image.Image, seed: int) -> npt.NDArray[np.int64]:
    transform = v2.RandomResizedCrop(RGB.shape[:2], CROP.crop, antialias=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return np.asarray(transform(image), np.int64)


def test_a_trivial_augment_is_that_of_torchvision(photos: list[Path]) -> None:
    transform = v2.TrivialAugmentWide(interpolation=v2.InterpolationMode.BILINEAR)
    job = Job(tuple(photos), RGB, Augment(trivial=True), seeds=tuple(range(len(photos))))
    for seed, (path, pixels) in enumerate(zip(photos, pixels_of(job).numpy(), strict=True)):
        with Image.open(path) as image, torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            assert np.array_equal(pixels, np.asarray(transform(Image.fromarray(RGB.to_pixels(image)))))


def test_a_rand_augment_is_that_of_torchvision(photos: list[Path]) -> None:
    transform = v2.RandAugment(3, 12, interpolation=v2.InterpolationMode.BILINEAR)
    job = Job(tuple(photos), RGB, Augment(rand=(3, 12)), seeds=tuple(range(len(photos))))
    for seed, (path, pixels) in enumerate(zip(photos, pixels_of(job).numpy(), strict=True)):
        with Image.open(path) as image, torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            assert np.array_equal(pixels, np.asarray(transform(Image.fromarray(RGB.to_pixels(image)))))


def test_a_part_of_the_images_is_painted_over_with_the_mean_colour(photos: list[Path]) -> None:
    mean = RGB.model_copy(update={"mean": (0.2, 0.4, 0.6)})
    split = split_of(photos, preprocess=mean, augment=Augment(erase=0.5))
    plain, drawn = whole(split), whole(split, draw=1)
    changed = (plain != drawn).any(3)
    assert 10 < int(changed.any((1, 2)).sum()) < 30  # of 40
    assert {tuple(pixel) for pixel in drawn[changed].tolist()} == {(51, 102, 153)}
    areas = changed.float().mean((1, 2))
    assert float(areas.max()) < 0.34


def test_a_grey_network_gets_grey_crops(photos: list[Path]) -> None:
    grey = Preprocess(mode="L", resize=(28, 28), crop=None, mean=(0.5,), std=(0.5,))
    for augment in (Augment(crop=(0.2, 1.0), trivial=True), Augment(rand=(2, 30), erase=1)):
        images = whole(split_of(photos, preprocess=grey, augment=augment), draw=1)
        assert images.shape == (40, 28, 28, 1)


@pytest.mark.parametrize("interpolation", ["nearest", "bicubic"])
def test_crops_are_resampled_as_the_preprocess_says(photos: list[Path], interpolation: str) -> None:
    split = split_of(photos, preprocess=RGB.model_copy(update={"interpolation": interpolation}))
    images, bilinear = whole(split, draw=1).float(), whole(split_of(photos), draw=1).float()
    assert not images.equal(bilinear)
    assert (images - bilinear).abs().mean() < 20


@pytest.mark.process
@pytest.mark.parametrize("draw", [None, 1])
@pytest.mark.parametrize("processes", [0, 2])
def test_a_file_that_goes_bad_in_training_is_named(
    tmp_path: Path, workers: Workers, draw: int | None, processes: int
) -> None:
    paths = [write(tmp_path / f"{i}.jpg", seed=i) for i in range(40)]
    split = split_of(paths, workers=workers if processes else None)
    paths[17].write_bytes(paths[17].read_bytes()[:300])
    paths[30].unlink()
    batches = split.batches(torch.split(torch.arange(40), 10), device=CPU, draw=draw)
    next(batches)
    with pytest.raises(TrainingError, match=r"17\.jpg cannot be used: the image is damaged: it ends") as caught:
        next(batches)
    assert "\n" not in str(caught.value)
    with pytest.raises(TrainingError, match=r"30\.jpg cannot be used: No such file"):
        list(split.batches([torch.tensor([30])], device=CPU, draw=draw))


@pytest.mark.process
def test_leaving_early_is_no_trouble_for_the_next_epoch(photos: list[Path], workers: Workers) -> None:
    split = split_of(photos, workers=workers)
    wanted = whole(split)
    for _ in range(3):
        batches = split.batches(torch.split(torch.arange(40), 3), device=CPU)
        next(batches)
        batches.close()  # type: ignore[attr-defined]
    assert whole(split).equal(wanted)


def test_images_in_an_array_are_opened_too() -> None:
    array = np.random.default_rng(0).integers(0, 256, (20, 28, 28), np.uint8)
    split = OnDemandSplit(array, np.arange(5, 15), torch.arange(10), RGB, CROP, Workers(0))
    ((images, _),) = split.batches([torch.arange(10)], device=CPU)
    assert np.array_equal(images[3].numpy(), RGB.to_pixels(Image.fromarray(array[8])))


def test_stacked_images_are_copied_not_lent() -> None:
    split = InMemorySplit(torch.zeros(10, 4, 4, 1, dtype=torch.uint8), torch.arange(10))
    ((images, targets),) = split.batches([torch.arange(10)], device=CPU, draw=1)
    images += 1
    assert targets.equal(torch.arange(10))
    assert not split.images.any()
