"""Reads a folder of photos in ImageFolder layout: a folder for each class, or splits with these in each."""

from collections.abc import Collection
from pathlib import Path

from training.data.folder_layout import ClassFolders, layout_of
from training.data.folder_names import shown
from training.data.folder_tree import FolderTree, walk
from training.data.labelled_files import LabelledFiles, Place, Reading
from training.data.raw_dataset import RawDataset
from training.recipes.recipe import PhotosSource, Recipe


def load(
    source: PhotosSource, recipe: Recipe, folder: Path, reading: Reading, *, outputs: Collection[Path] = ()
) -> RawDataset:
    """Returns the photos that can be used. Every file is scanned first.

    Args:
        outputs: other folders that training writes to, which are no data.

    Raises:
        TrainingError: the folder has another layout, or there are too few photos.
        OSError: the results of the scan cannot be kept.
    """
    tree = walk(folder, (*outputs, reading.scratch))
    layout = layout_of(tree, shown(str(folder)), splits=source.splits, measure=reading.measure)
    for line in layout.said:
        reading.progress.say(line)
    train, measured = ({} if split is None else _labelled(tree, split) for split in (layout.train, layout.measured))
    files = LabelledFiles(
        folder=folder,
        labels=train | measured,
        classes={
            label: Place(f"the class folder {folders[0]}", tuple(folders))
            for label, folders in layout.train.folders.items()
        },
        train=str(layout.train),
        measured=None if layout.measured is None else str(layout.measured),
        measured_files=frozenset(measured),
        odd={name: why for name, why in tree.odd.items() if layout.covers(name)},
    )
    return files.load(recipe, reading, test_share=source.test_share)


def _labelled(tree: FolderTree, split: ClassFolders) -> dict[str, str]:
    return {
        name: label for label, folders in split.folders.items() for folder in folders for name in tree.below(folder)
    }
