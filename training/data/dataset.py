"""Loads a recipe's data set: what a network is trained on, chosen by, and measured on."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image

from classifier.checkpoint import MAX_REFERENCES
from classifier.cores import usable_cores
from classifier.preprocess import ImageError
from classifier.progress import Progress
from classifier.visible import to_mode
from training.data import image_folder, label_table, shards, stratified, torchvision_datasets
from training.data.batches import InMemorySplit, OnDemandSplit, Split
from training.data.decode import opened, pixels_of, stacked
from training.data.folder_names import Role
from training.data.labelled_files import Reading
from training.data.raw_dataset import Archives, RawDataset, Rows
from training.data.strokes.cache import load_digits
from training.data.workers import Workers
from training.errors import TrainingError
from training.png import png
from training.recipes.recipe import (
    FileSource,
    PhotosSource,
    Recipe,
    ShardsSource,
    StrokesSource,
    TableSource,
    TorchvisionSource,
)

_HELD_OUT_STREAM = 0  # of the seed's random numbers; 1 is the photos' test share, 2 a data set's samples per class
_EXAMPLE_EDGE = 512  # pixels: what a reference may have


@dataclass(frozen=True, slots=True, eq=False)
class Dataset:
    """Holds three splits that share no sample, and what is known of them all.

    Args:
        labels: by class index.
        train: the network is trained on it.
        held_out: taken out of the training set; by it the epoch is chosen and the temperature fitted.
        test: only measured, once, and reported. For a folder of photos with splits, this is `val/` or, if that is asked
            for, `test/`.
        fingerprint: a hash of names and contents; equal for the same data, however it is split.
        examples: a few test images as PNG files, from as many classes as possible, as a user would send them.
        skipped: photos that cannot be used, each as "folder/file: reason".
        unchanged: tells whether the fingerprint still is that of the data; files may be written to meanwhile.
    """

    name: str
    labels: tuple[str, ...]
    train: Split
    held_out: Split
    test: Split
    fingerprint: str
    examples: tuple[bytes, ...]
    skipped: tuple[str, ...] = ()
    unchanged: Callable[[], bool] = lambda: True


def load_dataset(
    recipe: Recipe,
    *,
    folder: Path | str,
    scratch: Path,
    outputs: Collection[Path] = (),
    measure: Role = "val",
    workers: int | None = None,
    strict: bool = False,
    cache_bytes: int | None = None,
    sharers: int = 1,
    only_measured: bool = False,
    progress: Progress,
) -> Dataset:
    """Returns the recipe's data set, split by the recipe's seed.

    Args:
        folder: where torchvision's data sets are looked for, or downloaded to; or the folder of photos, the table, or
            the pattern of the shards, which alone may be behind a URL.
        scratch: where drawn digits, and what was found out about photos, are kept for the next time.
        outputs: other folders that are written to. Neither they nor `scratch` are photos, even in the folder of photos.
        measure: the split of a folder of photos to measure on: "val", if it is there; "test", which must be there.
        workers: how many processes decode images; 0: this process does; None: as many as there are cores.
        strict: a file that is not a sound image is refused, instead of being left out.
        cache_bytes: how much of what is behind a URL may be on this machine at a time; None: four fifths of what the
            disk has room for.
        sharers: among so many processes that is shared out evenly.
        only_measured: nothing will be trained on, which needs less room.

    Raises:
        TrainingError: there is no such data set, or it cannot be used.
        TorchvisionError: torchvision is needed and cannot be imported.
        OSError: `scratch` cannot be written to.
    """
    processes = Workers(workers, preload=(pixels_of.__module__, "torchvision.transforms.v2"))
    match recipe.source:
        case StrokesSource() as source:
            train = load_digits(source.samples, seed=recipe.seed, stream=0, scratch=scratch, progress=progress)
            test = load_digits(source.test_samples, seed=recipe.seed, stream=1, scratch=scratch, progress=progress)
            raw = RawDataset.of_arrays(train, test, tuple("0123456789"))
        case TorchvisionSource() as source:
            raw = torchvision_datasets.load(source, _on_this_machine(folder), seed=recipe.seed)
        case PhotosSource() | TableSource() | ShardsSource() as source:
            processes.start()
            threads = usable_cores() if workers is None else workers
            reading = Reading(scratch, measure, threads, strict, progress, cache_bytes, sharers, only_measured)
            raw = _files(source, recipe, folder, outputs, reading)
    return _split(recipe, name_of(recipe, folder), raw, processes)


def name_of(recipe: Recipe, data: Path | str) -> str:
    """Returns what the data set is called: as it is known by, or as the folder of the photos is.

    Args:
        data: the folder of photos; or the table or the shards, whose folder is then meant.
    """
    if not isinstance(recipe.source, FileSource):
        return recipe.source.kind
    place = PurePosixPath(data) if isinstance(data, str) else data.resolve()
    return (place if isinstance(recipe.source, PhotosSource) else place.parent).name or "photos"


def _on_this_machine(data: Path | str) -> Path:
    if isinstance(data, str):
        raise TrainingError(f"{data}: only shards may be behind a URL; other data must be on this machine")
    return data


def _files(
    source: FileSource, recipe: Recipe, data: Path | str, outputs: Collection[Path], reading: Reading
) -> RawDataset:
    if isinstance(source, ShardsSource):
        return shards.load(source, recipe, data, reading)
    data = _on_this_machine(data)
    if isinstance(source, TableSource):
        return label_table.load(source, recipe, [data], data.parent, reading)
    tables = label_table.tables_in(data)
    if not tables:
        return image_folder.load(source, recipe, data, reading, outputs=outputs)
    reading.progress.say(f"the labels are those of {' and '.join(str(table) for table in tables)}")
    return label_table.load(TableSource(test_share=source.test_share), recipe, tables, data, reading)


def _split(recipe: Recipe, name: str, raw: RawDataset, workers: Workers) -> Dataset:
    kept, held_out = stratified.split(
        raw.targets,
        raw.train,
        recipe.held_out,
        seed=recipe.seed,
        stream=_HELD_OUT_STREAM,
        what="out of training",
    )
    raw = raw.keeping(np.concatenate([held_out, raw.test]))
    train = _part(recipe, raw, kept, workers, raw.archives)
    chooser, test = (_part(recipe, raw, rows, workers) for rows in (held_out, raw.test))
    return Dataset(
        name=name,
        labels=raw.labels,
        train=train,
        held_out=chooser,
        test=test,
        fingerprint=raw.fingerprint,
        examples=_examples(recipe, raw),
        skipped=raw.skipped,
        unchanged=raw.unchanged,
    )


def _part(recipe: Recipe, raw: RawDataset, rows: Rows, workers: Workers, archives: Archives | None = None) -> Split:
    """Returns a split in memory if the images are there already, do not grow, and are not augmented one by one."""
    targets = torch.from_numpy(raw.targets[rows])
    pictures, (height, width, _) = raw.pictures, recipe.preprocess.shape
    if isinstance(pictures, np.ndarray) and height * width <= pictures[0].size and not recipe.augment.one_by_one:
        return InMemorySplit(torch.from_numpy(stacked(pictures[rows], recipe.preprocess)), targets)
    return OnDemandSplit(pictures, rows, targets, recipe.preprocess, recipe.augment, workers, archives)


def _examples(recipe: Recipe, raw: RawDataset) -> tuple[bytes, ...]:
    firsts = np.unique(raw.targets[raw.test], return_index=True)[1]
    others = np.setdiff1d(np.arange(len(raw.test)), firsts)
    examples: list[bytes] = []
    for row in raw.test[np.concatenate([firsts, others])].tolist():
        if len(examples) == MAX_REFERENCES:
            break
        example = _example(recipe, raw, row)
        if example is not None:
            examples.append(example)
    return tuple(examples)


def _example(recipe: Recipe, raw: RawDataset, row: int) -> bytes | None:
    """Returns a PNG file, or None for an image that is too long and thin to be used when it is made smaller."""
    picture, preprocess = raw.pictures[row], recipe.preprocess
    image = opened(picture)
    mode = "L" if image.mode == "L" else "RGB"
    image = to_mode(image, mode=mode, background=preprocess.background)
    image.thumbnail((_EXAMPLE_EDGE, _EXAMPLE_EDGE), Image.Resampling.BICUBIC)
    try:
        preprocess.to_pixels(image)
    except ImageError:
        return None
    return png(image)
