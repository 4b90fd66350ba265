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
from training.data.remote_shard import PIECE, Reader, RemoteShard, found
from training.data.shard_cache import ShardCache, Window, in_a_thread
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
        scratch: what is found out about each shard is kept in `<scratch>/shards`, for the next time.
        mixed: so many shards are mixed at a time; None: all, which then must have room.
        max_bytes: of all that is here at a time; None: what the disk has room for.
        sharers: among so many processes that is shared out evenly.
        progress: is told what is fetched, and when something must be tried again.

    Raises:
        TrainingError: there are no such shards, or the store cannot be asked for some minutes.
        OSError: the folder for shards cannot be made.
    """

    def __init__(
        self,
        pattern: str,
        scratch: Path,
        *,
        max_bytes: int | None,
        sharers: int = 1,
        mixed: int | None,
        progress: Progress,
    ) -> None:
        self._pattern = pattern
        self._mixed = mixed
        self._progress = progress
        self.shards = found(pattern, progress)
        cache = self._cache = ShardCache(scratch, max_bytes=max_bytes, sharers=sharers)
        self._places = {shard: scratch / "shards" / f"{shard.key}.json" for shard in self.shards}
        self._by_path = {cache.path_of(shard.file_name): shard for shard in self.shards}
        self._paths = {shard: path for path, shard in self._by_path.items()}
        self._reader = Reader(progress, functools.partial(_forget, self._places))
        self._image_hashes: dict[Member, str] = {}
        cache.serve(
            {path: (shard.size, functools.partial(self._reader.fetch, shard)) for path, shard in self._by_path.items()}
        )

    def contents(self, *, threads: int) -> list[Contents]:
        """Returns what is in each shard. Those that are not known yet are fetched, one after the other.

        Args:
            threads: how many images are looked at at once.

        Raises:
            TrainingError: one is no sound shard, or changes meanwhile.
            OSError: the results cannot be kept.
        """
        places = self._places
        known = {shard: each for shard, place in places.items() if (each := self._known(shard, place)) is not None}
        new = [shard for shard in self.shards if shard not in known]
        if new:
            for path in [self._paths[shard] for shard in new]:
                if path in self._cache.held:
                    self._cache.drop(path)  # nothing is known of it, so it may be anything
            title = f"looking at {len(new):,} shards of {self._pattern}"
            with (
                warnings.catch_warnings(action="ignore"),  # what Pillow finds odd, but reads
                self._progress.step(title, total=_megabytes(sum(shard.size for shard in new)), unit="MB") as advance,
                self._cache.window([[self._paths[shard]] for shard in new]) as window,
                ThreadPoolExecutor(max(1, threads)) as pool,
            ):
                looked_at = 0  # bytes
                for turn, shard in enumerate(new):
                    window.enter(turn)
                    known[shard] = self._look_at(shard, pool)
                    window.leave(turn)
                    atomic_files.replace(places[shard], known[shard].to_json())
                    advance(_megabytes(looked_at + shard.size) - _megabytes(looked_at))
                    looked_at += shard.size
            if [shard.key for shard in found(self._pattern, self._progress)] != [shard.key for shard in self.shards]:
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
        self.check_room(size, is_known=True)
        self._cache.reserve(size)
        identity = "\0".join(f"{member.archive.name}\0{member.offset}" for member in wanted)
        path = self._cache.folder / f"{_KEPT}{hashlib.sha256(identity.encode()).hexdigest()}"
        for other in self._cache.folder.glob(f"{_KEPT}*"):
            if other != path:
                other.unlink(missing_ok=True)
        if not path.is_file() or path.stat().st_size != size:
            title = f"fetching {len(wanted):,} images that are measured"
            with (
                self._progress.step(title, total=len(wanted), unit="images") as advance,
                atomic_files.atomic_write(path) as file,
            ):
                stop = threading.Event()
                try:
                    for images in _ahead(functools.partial(self._read_images, stop), _near(wanted)):
                        file.writelines(images)
                        advance(len(images))
                finally:  # after Ctrl-C too
                    stop.set()
        places: dict[Member, Member] = {}
        offset = 0
        for member in wanted:
            shard = self._by_path[member.archive]
            places[member] = Member(path, f"{shard.called}: {member.name}", offset, member.size)
            offset += member.size
        return places

    def _known(self, shard: RemoteShard, place: Path) -> Contents | None:
        try:
            return Contents.from_json(place.read_bytes(), self._paths[shard])
        except FileNotFoundError:
            return None

    def _look_at(self, shard: RemoteShard, pool: ThreadPoolExecutor) -> Contents:
        path = self._paths[shard]
        samples, without_image = samples_in(path, shard.called)
        records = pool.map(record_of, [sample.image for sample in samples])
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
                raise self._reader.changed(shard)
        return images

    def check_room(self, measured: int, *, is_known: bool) -> None:
        """Checks that there is room for all shards, or for those that are mixed and as many that come next.

        Args:
            measured: how many bytes the images have that stay here.
            is_known: that number is no guess. Nothing is refused for a guess, but the number that is named is by it.

        Raises: TrainingError, with the number that there is room for.
        """
        most = self._cache.max_bytes - (measured if is_known else 0)
        total, largest = sum(shard.size for shard in self.shards), max(shard.size for shard in self.shards)
        if total <= most or (self._mixed is not None and 2 * self._mixed * largest <= most):
            return
        where = (
            f"the shards have {_size(total)}, and the images that are measured about {_size(measured)} of it; "
            f"{self._cache.folder} has room for {_size(self._cache.max_bytes)}"
        )
        fitting = max((self._cache.max_bytes - measured) // (2 * largest), min(1, most // (2 * largest)))
        if fitting < 1:
            raise TrainingError(
                f"{where}, but two shards of up to {_size(largest)} beside what is measured are the least: give more "
                "--cache-gb, or measure less (source.test_share, held_out)"
            )
        raise TrainingError(
            f"{where}: --set source.mixed={fitting} mixes {fitting} shards at a time, while as many are fetched; "
            "or give more --cache-gb"
        )


def _forget(places: Mapping[RemoteShard, Path], shard: RemoteShard) -> None:
    places[shard].unlink(missing_ok=True)


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


def _ahead(function: Callable[[J], R], jobs: Iterable[J]) -> Iterator[R]:
    """Gives the results in the order of the jobs, a few of which are done at the same time, in threads."""
    begun: deque[Future[R]] = deque()
    for job in jobs:
        begun.append(in_a_thread(functools.partial(function, job)))
        if len(begun) == _READ_AT_ONCE:
            yield begun.popleft().result()
    while begun:
        yield begun.popleft().result()


def _megabytes(count: int) -> int:
    return round(count / 1e6)


def _size(count: Any) -> str:
    for unit, power in (("GB", 1e9), ("MB", 1e6)):
        if count >= power:
            return f"{count / power:,.1f} {unit}"
    return f"{count:,} bytes"
