"""Reads photos that lie in tar files, as WebDataset writes them.

A sample is an image and a file of its class, side by side: `00123.jpg` and `00123.cls`. The headers of an archive are
read once, and tell where its files lie. Then each image is read from its place, as a file of its own would be. So the
samples come in any order, and a data set may be larger than memory. Of archives behind a URL, only a part is on this
machine at a time.
"""

import glob
import os
import posixpath
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath, PurePosixPath

from training.data.file_scan import FileRecord
from training.data.folder_names import Role, of_all, role_in, role_of
from training.data.labelled_files import LabelledFiles, Reading
from training.data.raw_dataset import Archives, Member, RawDataset
from training.data.remote_shards import RemoteShards
from training.data.shard_index import Sample, samples_in
from training.data.shard_pattern import matching
from training.errors import TrainingError
from training.recipes.recipe import Recipe, ShardsSource


@dataclass(frozen=True, slots=True)
class _Found:
    """Holds what was found in the shards of a pattern.

    Args:
        folder: all shards lie in it, or below.
        samples: by shard, which is a path in `folder`.
        lonely: how many files of a class have no image.
        records: by name, what is known of each image; None: each is to be scanned.
        archives: brings the shards to this machine; None: they are here.
    """

    folder: PurePath
    samples: Mapping[PurePath, Sequence[Sample]]
    lonely: int
    records: Mapping[str, FileRecord] | None = None
    archives: Archives | None = None


def load(source: ShardsSource, recipe: Recipe, pattern: Path | str, reading: Reading) -> RawDataset:
    """Returns the photos of shards that can be used. Every image is scanned first.

    Args:
        pattern: the tar files, as `paths_of` reads it, or their URLs. They are splits, if all are called so.

    Raises:
        TrainingError: a file is no sound shard, a sample has no class, or there are too few photos.
        OSError: the results of the scan cannot be kept, or a URL cannot be asked.
    """
    found = _here(pattern, reading) if isinstance(pattern, Path) else _elsewhere(source, recipe, pattern, reading)
    splits: dict[Role, dict[str, str]] = {"train": {}, "val": {}, "test": {}}
    members: dict[str, Member] = {}
    # By path, for what is held out is chosen by place: the order of a pattern must not matter.
    shards = sorted(found.samples)
    for shard, role in zip(shards, _roles(found.folder, shards), strict=True):
        for sample in found.samples[shard]:
            name = _name(shard, sample)
            splits[role][name], members[name] = sample.label, sample.image
    measure, progress = reading.measure, reading.progress
    if found.lonely:
        progress.say(f"left out: {found.lonely:,} files of a class without an image")
    if not splits["train"] or (measure == "test" and not splits["test"]):
        missing = "test" if splits["train"] else "train"
        raise TrainingError(f"{pattern} has no shards that are called like {missing}")
    if measure == "test":
        progress.say("measured on: the shards that are called like test")
    elif splits["test"]:
        progress.say(f"left out: {len(splits['test']):,} samples in shards that are called like test")
    files = LabelledFiles.of_splits(
        Path(found.folder),
        splits,
        measure,
        name="the shards",
        train="the shards for training",
        measured=f"the shards for {measure}",
        members=members,
        records=found.records,
        archives=found.archives,
    )
    return files.load(recipe, reading, test_share=source.test_share)


def paths_of(pattern: Path) -> list[Path]:
    """Returns the files that a pattern means, in its order.

    Args:
        pattern: as in `shard_pattern.matching`; `*`, `?` and `[...]` stand for what is there.

    Raises: TrainingError if one of them is not there.
    """
    return matching(str(pattern), _files)


def _files(text: str) -> list[Path]:
    found = sorted(glob.glob(text)) if glob.has_magic(text) else [text]  # noqa: PTH207  it may begin at any folder
    return [Path(each).absolute() for each in found] if found and Path(found[0]).is_file() else []


def _here(pattern: Path, reading: Reading) -> _Found:
    paths = paths_of(pattern)
    folder = Path(os.path.commonpath([path.parent for path in paths]))
    samples: dict[PurePath, Sequence[Sample]] = {}
    lonely = 0
    with reading.progress.step(f"reading {len(paths):,} shards", total=len(paths), unit="shards") as advance:
        for path in sorted(paths):
            samples[path.relative_to(folder)], without_image = samples_in(path, str(path))
            lonely += without_image
            advance(1)
    return _Found(folder, samples, lonely)


def _elsewhere(source: ShardsSource, recipe: Recipe, pattern: str, reading: Reading) -> _Found:
    remote = RemoteShards(
        pattern,
        reading.scratch,
        max_bytes=reading.cache_bytes,
        sharers=reading.sharers,
        mixed=1 if reading.only_measured else source.mixed,
        progress=reading.progress,
    )
    paths = [PurePosixPath(shard.url) for shard in remote.shards]
    if len(set(paths)) < len(paths):
        raise TrainingError(f"{pattern} means shards whose URLs differ in a double slash only")
    folder = PurePosixPath(posixpath.commonpath([path.parent for path in paths]))
    places: list[PurePath] = [path.relative_to(folder) for path in paths]
    sizes = {place: shard.size for place, shard in zip(places, remote.shards, strict=True)}
    remote.check_room(_measured_bytes(sizes, folder, source, recipe, reading.measure), is_known=False)
    contents = remote.contents(threads=reading.threads)
    samples = {place: each.samples for place, each in zip(places, contents, strict=True)}
    records = {
        _name(place, sample): record
        for place, each in zip(places, contents, strict=True)
        for sample, record in zip(each.samples, each.records, strict=True)
    }
    return _Found(folder, samples, sum(each.without_image for each in contents), records, remote)


def _measured_bytes(
    sizes: Mapping[PurePath, int], folder: PurePath, source: ShardsSource, recipe: Recipe, measure: Role
) -> int:
    """Returns about how many bytes are held out or tested, which is known before anything is read."""
    roles = dict(zip(sizes, _roles(folder, list(sizes)), strict=True))
    by_role = {role: sum(sizes[shard] for shard in sizes if roles[shard] == role) for role in (measure, "train")}
    tested = by_role[measure] or source.test_share * by_role["train"]
    trained = by_role["train"] - (0 if by_role[measure] else tested)
    return int(tested + trained * (recipe.held_out if recipe.held_out < 1 else 0))


def _name(shard: PurePath, sample: Sample) -> str:
    return f"{shard.as_posix()}/{sample.image.name}"


def _roles(folder: PurePath, shards: Sequence[PurePath]) -> list[Role]:
    """Returns the splits that shards or their folders are called like, if all are; otherwise all are to train on."""
    named = [(role_in(shard.stem), (folder / shard).parent.name) for shard in shards]
    return of_all([role_of(parent) if found is None else found[0] for found, parent in named])
