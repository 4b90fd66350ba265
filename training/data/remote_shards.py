"""Reads shards behind a URL. What is in each is found out once, and kept; then a few at a time are on this machine.

What is measured is measured after each epoch. So these images alone stay here, in a file of their own.
"""

import functools
import hashlib
import json
import threading
import warnings
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, TypeVar

from classifier import atomic_files
from classifier.progress import Progress
from training.data.file_scan import VERSION, FileRecord, record_of
from training.data.raw_dataset import Member
from training.data.remote_shard import PIECE, Reader, RemoteShard, changed, found
from training.data.shard_cache import ShardCache, Window
from training.data.shard_index import Sample, samples_in
from training.errors import TrainingError

J = TypeVar("J")
R = TypeVar("R")

_INDEX = f"1, {VERSION}"  # another one whenever the same shard would be described otherwise
_GAP = 1 << 18  # bytes: so few between two images are quicker read than another request is answered
_READ_AT_ONCE = 8
_KEPT = "measured-"


@dataclass(frozen=True, slots=True)
class Contents:
    """Says what is in a shard.

    Args:
        samples: with where each image will be when the shard is on this machine.
        records: what is known of each image.
        without_image: how many files of a class have no image.
        sha256: the hash of the shard.
    """

    samples: tuple[Sample, ...]
    records: tuple[FileRecord, ...]
    without_image: int
    sha256: str

    def to_json(self) -> bytes:
        """Returns what `from_json` reads."""
        images = [
            [sample.image.name, sample.image.offset, sample.image.size, sample.label, asdict(record)]
            for sample, record in zip(self.samples, self.records, strict=True)
        ]
        document = {"version": _INDEX, "sha256": self.sha256, "without_image": self.without_image, "images": images}
        return json.dumps(document).encode()

    @classmethod
    def from_json(cls, data: bytes, path: Path) -> Self | None:
        """Returns what was written of the shard at `path`; None if that is not to be understood."""
        try:
            document = json.loads(data)
            if document["version"] != _INDEX:
                return None
            images = document["images"]
            return cls(
                samples=tuple(
                    Sample(Member(path, name, offset, size), label) for name, offset, size, label, _ in images
                ),
                records=tuple(FileRecord(**record | {"size": tuple(record["size"])}) for *_, record in images),
                without_image=document["without_image"],
                sha256=document["sha256"],
            )
        except (ValueError, KeyError, TypeError):
            return None


class RemoteShards:
    """Is the shards of a pattern of URLs, of which a part is on this machine.

    Use it from one thread only.

    Args:
        mixed: so many shards are mixed at a time; None: all, which then must have room.
        progress: is told what is fetched, and when something must be tried again.

    Raises:
        TrainingError: there are no such shards, or there is no room for so many at once.
        OSError: the store cannot be asked.
    """

    def __init__(self, pattern: str, cache: ShardCache, *, mixed: int | None, progress: Progress) -> None:
        self._pattern = pattern
        self._cache = cache
        self._mixed = mixed
        self._progress = progress
        self.shards = found(pattern)
        self._by_path = {cache.path_of(shard.file_name): shard for shard in self.shards}
        self._paths = {shard: path for path, shard in self._by_path.items()}
        self._reader = Reader(progress)
        self._image_hashes: dict[Member, str] = {}
        cache.serve(
            {path: (shard.size, functools.partial(self._reader.fetch, shard)) for path, shard in self._by_path.items()}
        )
        self._check_room()

    def contents(self, folder: Path, *, threads: int) -> list[Contents]:
        """Returns what is in each shard. Those that are not known yet are fetched, one after the other.

        Args:
            folder: what is found is kept in it, shard by shard, for the next time.
            threads: how many images are looked at at once.

        Raises:
            TrainingError: one is no sound shard, or changes meanwhile.
            OSError: the results cannot be kept.
        """
        places = {shard: folder / f"{shard.key}.json" for shard in self.shards}
        known = {shard: each for shard, place in places.items() if (each := self._known(shard, place)) is not None}
        new = [shard for shard in self.shards if shard not in known]
        if new:
            title = f"looking at {len(new):,} shards of {self._pattern}"
            with (
                warnings.catch_warnings(action="ignore"),  # what Pillow finds odd, but reads
                self._progress.step(title, total=_megabytes(new), unit="MB") as advance,
                self._cache.window([[self._paths[shard]] for shard in new]) as window,
                ThreadPoolExecutor(max(1, threads)) as pool,
            ):
                for turn, shard in enumerate(new):
                    window.enter(turn)
                    known[shard] = self._look_at(shard, pool)
                    window.leave(turn)
                    atomic_files.replace(places[shard], known[shard].to_json())
                    advance(_megabytes(new[: turn + 1]) - _megabytes(new[:turn]))
            if [shard.key for shard in found(self._pattern)] != [shard.key for shard in self.shards]:
                raise TrainingError(f"{self._pattern}: the shards changed while they were looked at: start again")
        for shard, each in known.items():
            self._reader.hashes[shard] = each.sha256
            self._image_hashes |= {
                sample.image: record.sha256 for sample, record in zip(each.samples, each.records, strict=True)
            }
        return [known[shard] for shard in self.shards]

    def window(self, turns: Sequence[Collection[Path]]) -> AbstractContextManager[Window]:
        """Gives what lets a reader wait for the shards that each of its turns needs, by path."""
        return self._cache.window(turns)

    def keep(self, members: Iterable[Member]) -> Mapping[Member, Member]:
        """Brings some images to this machine, to stay as long as this object lives, and returns where each is.

        Raises: TrainingError, if there is no room for them beside the shards, or one is not what it was.
        """
        wanted = sorted(members, key=lambda each: (each.archive, each.offset))
        size = sum(member.size for member in wanted)
        self._cache.reserve(size)
        self._check_room()
        identity = "\0".join(f"{member.archive.name}\0{member.offset}" for member in wanted)
        path = self._cache.folder / f"{_KEPT}{hashlib.sha256(identity.encode()).hexdigest()}"
        for other in self._cache.folder.glob(f"{_KEPT}*"):
            if other != path:
                other.unlink(missing_ok=True)
        if not path.is_file():
            title = f"fetching {len(wanted):,} images that are measured"
            with (
                self._progress.step(title, total=len(wanted), unit="images") as advance,
                atomic_files.atomic_write(path) as file,
                ThreadPoolExecutor(_READ_AT_ONCE) as pool,
            ):
                stop = threading.Event()
                try:
                    for images in _ahead(pool, functools.partial(self._read_images, stop), _near(wanted)):
                        file.writelines(images)
                        advance(len(images))
                finally:  # after Ctrl-C too
                    stop.set()
                    pool.shutdown(cancel_futures=True)
        places: dict[Member, Member] = {}
        offset = 0
        for member in wanted:
            places[member] = Member(path, f"{self._by_path[member.archive].url}: {member.name}", offset, member.size)
            offset += member.size
        return places

    def _known(self, shard: RemoteShard, place: Path) -> Contents | None:
        try:
            return Contents.from_json(place.read_bytes(), self._paths[shard])
        except FileNotFoundError:
            return None

    def _look_at(self, shard: RemoteShard, pool: ThreadPoolExecutor) -> Contents:
        path = self._paths[shard]
        samples, without_image = samples_in(path, shard.url)
        records = pool.map(record_of, [sample.image for sample in samples])
        if shard not in self._reader.hashes:  # it was here before
            with path.open("rb") as file:
                self._reader.hashes[shard] = hashlib.file_digest(file, "sha256").hexdigest()
        return Contents(tuple(samples), tuple(records), without_image, self._reader.hashes[shard])

    def _read_images(self, stop: threading.Event, members: Sequence[Member]) -> list[bytes]:
        """Returns the content of images that lie near each other in one shard."""
        first, last = members[0], members[-1]
        path, start, end = first.archive, first.offset, last.offset + last.size
        shard = self._by_path[path]
        if self._cache.has(path):
            piece = Member(path, "", start, end - start).read_bytes()
        else:
            piece = self._reader.read(shard, start, end, stop)
        images = [piece[each.offset - first.offset :][: each.size] for each in members]
        for member, image in zip(members, images, strict=True):
            if hashlib.sha256(image).hexdigest() != self._image_hashes[member]:
                raise changed(shard)
        return images

    def _check_room(self) -> None:
        """Checks that there is room for all shards, or for those that are mixed and as many that come next."""
        room, total, mixed = self._cache.room, sum(shard.size for shard in self.shards), self._mixed
        if total <= room:
            return
        largest = max(shard.size for shard in self.shards)
        where = f"and {self._cache.folder} has room for {_size(room)}"
        if mixed is None:
            if room < 4 * largest:
                raise TrainingError(f"the shards have up to {_size(largest)} each, {where}: give more --cache-gb")
            fitting = room // (4 * largest)  # what is measured may take half of it
            raise TrainingError(
                f"the shards have {_size(total)}, {where}: --set source.mixed={fitting} mixes {fitting} shards at a "
                "time, and fetches them when they are needed; or give more --cache-gb"
            )
        if 2 * mixed * largest > room:
            raise TrainingError(
                f"{mixed} shards at a time, while the next {mixed} are fetched, have up to "
                f"{_size(2 * mixed * largest)}, {where}: lower source.mixed, or give more --cache-gb"
            )


def _near(members: Iterable[Member]) -> Iterator[list[Member]]:
    """Gives members in groups that are read at once: near each other in one archive, and not too much together."""
    group: list[Member] = []
    for member in members:
        if group and (
            member.archive != group[0].archive
            or member.offset - group[-1].offset - group[-1].size > _GAP
            or member.offset + member.size - group[0].offset > PIECE
        ):
            yield group
            group = []
        group.append(member)
    if group:
        yield group


def _ahead(pool: ThreadPoolExecutor, function: Callable[[J], R], jobs: Iterable[J]) -> Iterator[R]:
    """Gives the results in the order of the jobs, of which only a few are begun before their results are wanted."""
    begun: deque[Future[R]] = deque()
    for job in jobs:
        begun.append(pool.submit(function, job))
        if len(begun) > _READ_AT_ONCE:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()


def _megabytes(shards: Sequence[RemoteShard]) -> int:
    return round(sum(shard.size for shard in shards) / 1e6)


def _size(count: Any) -> str:
    for unit, power in (("GB", 1e9), ("MB", 1e6)):
        if count >= power:
            return f"{count / power:,.1f} {unit}"
    return f"{count:,} bytes"
