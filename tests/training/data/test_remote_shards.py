"""Shards behind a URL: found, looked at once, fetched when they are needed, and never trusted to be what they were."""

import functools
import gc
import re
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch

from classifier.progress import Progress
from classifier.store.remote import RemoteStore, StoreError
from tests.support.memory_store import memory_url
from tests.support.photo_files import write
from tests.support.runs import Said
from tests.support.server import PATIENCE
from tests.support.shard_files import archive, samples
from training.data import remote_shard, remote_shards
from training.data.dataset import Dataset, name_of
from training.data.shard_cache import ShardCache
from training.errors import TrainingError
from training.recipes.builtin import builtin
from training.recipes.recipe import Recipe
from training.runs.loop import order_of

RECIPE = builtin("shards").replace(held_out=0.25)
CPU = torch.device("cpu")
Load = Callable[..., Dataset]
SHARDS, EACH = 6, 4


@pytest.fixture
def photo(tmp_path: Path) -> Callable[[int], bytes]:
    return lambda seed: write(tmp_path / "one.jpg", seed=seed).read_bytes()


@pytest.fixture
def folder(tmp_path: Path, photo: Callable[[int], bytes]) -> Path:
    """Shards of one size each."""
    for i in range(SHARDS):
        archive(tmp_path / "models" / f"data-{i:03}.tar", samples(photo, EACH * i, EACH))
    return tmp_path / "models"


@pytest.fixture
def url(folder: Path) -> str:
    """The same shards behind a URL."""
    url = memory_url()
    for path in folder.glob("*.tar"):
        put(url, path)
    return url


def put(url: str, path: Path) -> None:
    fsspec.filesystem("memory").put_file(str(path), f"{url}/{path.name}")


@pytest.fixture
def load(load_files: Load) -> Load:
    return functools.partial(load_files, RECIPE)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """How many times something of each object was read."""
    counts: Counter[str] = Counter()
    read = RemoteStore.read

    def counting(self: RemoteStore, name: str, *, start: int, end: int) -> bytes:
        counts[name] += 1
        return read(self, name, start=start, end=end)

    monkeypatch.setattr(RemoteStore, "read", counting)
    return counts


def size_of(folder: Path) -> int:
    return next(folder.glob("*.tar")).stat().st_size


def epoch(dataset: Dataset, recipe: Recipe, seed: int = 0) -> list[torch.Tensor]:
    """The images of one epoch, in its order."""
    order = order_of(dataset.train, torch.Generator().manual_seed(seed), recipe)
    return [images for images, _ in dataset.train.batches(torch.split(order, 2), device=CPU)]


def mixed(count: int) -> Recipe:
    return RECIPE.replace(source={"kind": "shards", "mixed": count})


def same_images(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return torch.equal(torch.cat(one), torch.cat(other))


@pytest.mark.parametrize("recipe", [RECIPE, mixed(2)])
def test_they_are_the_data_set_that_they_are_in_a_folder(
    load_files: Load, folder: Path, url: str, recipe: Recipe
) -> None:
    here, there = (load_files(recipe, data) for data in (folder / "data-*.tar", f"{url}/data-*.tar"))
    assert (there.name, there.labels, there.fingerprint) == (here.name, here.labels, here.fingerprint)
    assert there.examples == here.examples
    assert same_images(epoch(there, recipe), epoch(here, recipe))
    for one, other in ((here.held_out, there.held_out), (here.test, there.test)):
        (pixels, targets), (those, theirs) = (
            next(split.batches([torch.arange(len(split))], device=CPU)) for split in (one, other)
        )
        assert torch.equal(pixels, those)
        assert torch.equal(targets, theirs)
    assert there.unchanged()


def test_a_pattern_of_urls_means_what_it_means_of_files(url: str, folder: Path) -> None:
    put(url, archive(folder / ".hidden.tar", {}))

    def names(pattern: str) -> list[str]:
        return [shard.name for shard in remote_shard.found(f"{url}/{pattern}", Progress.silent())]

    assert names("data-{000..001}.tar") == ["data-000.tar", "data-001.tar"]
    assert names("data-00[12].tar") == ["data-001.tar", "data-002.tar"]
    assert names("data-00{5,4}.tar") == ["data-004.tar", "data-005.tar"]
    assert len(names("*")) == SHARDS
    assert names(".*") == [".hidden.tar"]
    for missing in ("data-{005..006}.tar", "b-*.tar", "other/data-000.tar"):
        with pytest.raises(TrainingError, match=r"there is no such shard .*put the pattern into quotes"):
            names(missing)
    with pytest.raises(TrainingError, match="only the last part may hold"):
        names("*/data-000.tar")


def test_the_data_set_is_called_as_their_folder() -> None:
    assert name_of(RECIPE, "s3://bucket/birds/data-{00..15}.tar") == "birds"
    assert name_of(RECIPE, "s3://bucket/data.tar") == "bucket"


def test_what_was_looked_at_is_known_again_until_the_shard_changes(
    load: Load, folder: Path, url: str, photo: Callable[[int], bytes], asked: Counter[str], said: Said
) -> None:
    before = load(f"{url}/*.tar").fingerprint
    assert str(said).count("looking at 6 shards") == 1
    assert asked == dict.fromkeys(asked, 1)  # what is measured comes from the shards that are here
    asked.clear()
    assert load(f"{url}/*.tar").fingerprint == before
    assert not asked
    put(url, archive(folder / "data-003.tar", samples(photo, 50, EACH)))
    changed = load(f"{url}/*.tar")
    assert changed.fingerprint != before
    assert asked["data-003.tar"]
    assert "looking at 1 shards" in str(said)


def test_what_was_kept_of_a_shard_and_is_damaged_is_found_out_again(
    load: Load, url: str, tmp_path: Path, said: Said
) -> None:
    first = load(f"{url}/*.tar")
    kept = sorted((tmp_path / "scratch" / "shards").glob("*.json"))
    assert len(kept) == SHARDS
    kept[0].write_bytes(kept[0].read_bytes()[:-10])
    kept[1].write_bytes(b'{"version": 0}')
    assert load(f"{url}/*.tar").fingerprint == first.fingerprint
    assert "looking at 2 shards" in str(said)


def test_what_is_here_and_is_not_what_it_was_is_fetched_again(load: Load, url: str, tmp_path: Path) -> None:
    dataset = load(f"{url}/*.tar")
    expected = epoch(dataset, RECIPE)
    del dataset
    gc.collect()
    scratch = tmp_path / "scratch" / "shards"
    (measured,) = (scratch / "0").glob("measured-*")
    measured.write_bytes(measured.read_bytes()[:-10])
    for path in scratch.glob("*.json"):  # nothing is known of the shards
        path.unlink()
    for path in (scratch / "0").glob("*.tar"):
        path.write_bytes(bytes(path.stat().st_size))
    again = load(f"{url}/*.tar")
    assert same_images(epoch(again, RECIPE), expected)
    for split in (again.held_out, again.test):
        assert len(list(split.batches([torch.arange(len(split))], device=CPU))) == 1


def test_shards_that_were_looked_at_before_an_interrupt_are_not_looked_at_again(
    load: Load, url: str, monkeypatch: pytest.MonkeyPatch, said: Said
) -> None:
    look = remote_shards.RemoteShards._look_at

    def interrupted_at_the_third(self: remote_shards.RemoteShards, shard: remote_shard.RemoteShard, pool: Any) -> Any:
        if shard.name == "data-002.tar":
            raise KeyboardInterrupt
        return look(self, shard, pool)

    with monkeypatch.context() as patch:
        patch.setattr(remote_shards.RemoteShards, "_look_at", interrupted_at_the_third)
        with pytest.raises(KeyboardInterrupt):
            load(f"{url}/*.tar")
    load(f"{url}/*.tar")
    assert "looking at 4 shards" in str(said)


class TestMoreThanTheDiskHolds:
    """Six shards, and room for four and for what is measured."""

    @pytest.fixture
    def limited(self, load_files: Load, folder: Path, url: str) -> Dataset:
        dataset = load_files(mixed(2), f"{url}/*.tar", cache_bytes=self.room(folder))
        assert isinstance(dataset, Dataset)
        return dataset

    def room(self, folder: Path) -> int:
        return 4 * size_of(folder) + 15_000

    def on_disk(self, tmp_path: Path) -> int:
        """The bytes that are here, without those that are on their way."""
        files = (tmp_path / "scratch" / "shards" / "0").iterdir()
        return sum(path.stat().st_size for path in files if path.suffix != ".tmp")

    def test_what_is_measured_takes_the_place_of_shards_and_not_more(
        self, load_files: Load, folder: Path, url: str, tmp_path: Path
    ) -> None:
        room = self.room(folder)
        dataset = load_files(mixed(1), f"{url}/*.tar", cache_bytes=room)
        assert self.on_disk(tmp_path) <= room
        epoch(dataset, mixed(1))
        del dataset
        gc.collect()
        smaller = room - size_of(folder)  # another time, with less
        again = load_files(mixed(1), f"{url}/*.tar", cache_bytes=smaller)
        assert self.on_disk(tmp_path) <= smaller
        assert len(epoch(again, mixed(1))) > 1

    @pytest.mark.slow
    def test_workers_that_run_ahead_do_not_hold_more_either(
        self, load_files: Load, folder: Path, url: str, tmp_path: Path
    ) -> None:
        room = 2 * size_of(folder) + 15_000
        dataset = load_files(mixed(1), f"{url}/*.tar", cache_bytes=room, workers=2)
        order = order_of(dataset.train, torch.Generator(), mixed(1))
        held = [self.on_disk(tmp_path) for _ in dataset.train.batches(torch.split(order, 1), device=CPU)]
        assert max(held) <= room

    def test_an_epoch_reads_each_shard_once_and_never_holds_more_than_it_may(
        self, limited: Dataset, folder: Path, asked: Counter[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        held: list[int] = []
        read = RemoteStore.read

        def watching(store: RemoteStore, name: str, *, start: int, end: int) -> bytes:
            held.append(self.on_disk(tmp_path))
            return read(store, name, start=start, end=end)

        monkeypatch.setattr(RemoteStore, "read", watching)
        for seed in range(3):
            asked.clear()
            epoch(limited, mixed(2), seed)
            assert set(asked.values()) <= {1}
            assert len(asked) >= 2  # those that were not here from before
        assert max(held) <= self.room(folder)

    def test_it_is_the_epoch_of_shards_in_a_folder(self, limited: Dataset, load_files: Load, folder: Path) -> None:
        here = load_files(mixed(2), folder / "*.tar")
        for seed in range(2):
            assert same_images(epoch(limited, mixed(2), seed), epoch(here, mixed(2), seed))

    def test_what_is_measured_stays_here(self, limited: Dataset, asked: Counter[str]) -> None:
        epoch(limited, mixed(2))
        asked.clear()
        for split in (limited.held_out, limited.test):
            assert len(list(split.batches([torch.arange(len(split))], device=CPU))) == 1
        assert not asked

    def test_any_order_gives_the_right_images_however_slow_that_is(
        self, limited: Dataset, load_files: Load, folder: Path
    ) -> None:
        here = load_files(mixed(2), folder / "*.tar")
        order = torch.split(torch.arange(len(here.train)).flip(0).repeat(3), 5)
        images = [[pixels for pixels, _ in each.train.batches(order, device=CPU)] for each in (limited, here)]
        assert same_images(*images)

    def test_without_mixing_it_is_refused_before_anything_is_read_and_the_way_out_is_named(
        self, load: Load, folder: Path, url: str, asked: Counter[str]
    ) -> None:
        with pytest.raises(TrainingError, match=r"--set source.mixed=1 mixes 1 shards at a time.* more --cache-gb"):
            load(f"{url}/*.tar", cache_bytes=self.room(folder))
        with pytest.raises(
            TrainingError, match=r"two shards of up to .* are the least: give more --cache-gb, or measure"
        ):
            load(f"{url}/*.tar", cache_bytes=size_of(folder))
        assert not asked

    def test_the_number_that_is_named_does(self, load_files: Load, load: Load, folder: Path, url: str) -> None:
        tried = 0
        for room in range(3 * size_of(folder), 7 * size_of(folder), size_of(folder) // 2):
            try:
                load(f"{url}/*.tar", cache_bytes=room)
            except TrainingError as error:
                named = re.search(r"source\.mixed=(\d+)", str(error))
                if named is not None:
                    load_files(mixed(int(named[1])), f"{url}/*.tar", cache_bytes=room)
                    tried += 1
        assert tried > 3

    def test_to_measure_alone_needs_room_for_two_shards_and_what_is_measured(
        self, load_files: Load, folder: Path, url: str
    ) -> None:
        room = 2 * size_of(folder) + 15_000
        for recipe in (RECIPE, mixed(2)):
            assert len(load_files(recipe, f"{url}/*.tar", cache_bytes=room, only_measured=True).test) > 0
            with pytest.raises(TrainingError):
                load_files(recipe, f"{url}/*.tar", cache_bytes=room)

    def test_more_shards_at_a_time_than_there_is_room_for_are_refused(
        self, load_files: Load, folder: Path, url: str
    ) -> None:
        with pytest.raises(
            TrainingError, match=r"--set source.mixed=1 mixes 1 shards at a time, while as many are fetch"
        ):
            load_files(mixed(3), f"{url}/*.tar", cache_bytes=self.room(folder))

    def test_what_is_measured_needs_room_too(self, load_files: Load, folder: Path, url: str) -> None:
        with pytest.raises(TrainingError, match=r"--set source\.mixed=1 mixes 1 shards at a time"):
            load_files(mixed(2), f"{url}/*.tar", cache_bytes=4 * size_of(folder))


class TestWhatGoesWrong:
    def test_a_shard_that_changed_since_it_was_looked_at_is_refused(
        self, load: Load, folder: Path, url: str, photo: Callable[[int], bytes], tmp_path: Path
    ) -> None:
        dataset = load(f"{url}/*.tar")
        for path in (tmp_path / "scratch" / "shards" / "0").glob("*.tar"):
            path.unlink()
        size = (folder / "data-003.tar").stat().st_size
        put(url, archive(folder / "data-003.tar", samples(photo, 90, EACH)))
        assert (folder / "data-003.tar").stat().st_size == size
        with pytest.raises(TrainingError, match=r"data-003.tar is not what it was.*start again"):
            epoch(dataset, RECIPE)

    def test_to_start_again_helps_also_if_what_was_damaged_was_the_first_fetch(
        self, load: Load, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        read, reads = RemoteStore.read, 0

        def damaging(self: RemoteStore, name: str, *, start: int, end: int) -> bytes:
            nonlocal reads
            piece = read(self, name, start=start, end=end)
            if name != "data-001.tar":
                return piece
            reads += 1
            return piece[:-1] + b"x" if reads == 1 else piece  # behind the end of the archive

        monkeypatch.setattr(RemoteStore, "read", damaging)
        dataset = load(f"{url}/*.tar")
        for path in (tmp_path / "scratch" / "shards" / "0").glob("*.tar"):
            path.unlink()
        with pytest.raises(TrainingError, match="is not what it was"):
            epoch(dataset, RECIPE)
        del dataset
        gc.collect()
        assert len(epoch(load(f"{url}/*.tar"), RECIPE)) > 1

    def test_a_listing_that_fails_once_is_asked_again(
        self, load: Load, url: str, monkeypatch: pytest.MonkeyPatch, said: Said
    ) -> None:
        monkeypatch.setattr(remote_shard, "_WAITS", (0.0,) * 5)
        entries, failures = RemoteStore.entries, iter([True, False, True, False])

        def unsure(self: RemoteStore, *names: str) -> Any:
            if next(failures):
                raise StoreError("s3://bucket: the network is gone")
            return entries(self, *names)

        monkeypatch.setattr(RemoteStore, "entries", unsure)
        load(f"{url}/*.tar")
        assert str(said).count("trying again") == 2

    def test_a_store_that_refuses_is_not_asked_again(
        self, load: Load, url: str, monkeypatch: pytest.MonkeyPatch, said: Said
    ) -> None:
        def refuse(*_: Any, **__: int) -> bytes:
            raise StoreError("s3://bucket: Access Denied") from PermissionError()

        monkeypatch.setattr(RemoteStore, "read", refuse)
        with pytest.raises(TrainingError, match=r"Access Denied; start again when it may be read"):
            load(f"{url}/*.tar")
        assert "trying again" not in str(said)

    def test_an_object_that_has_a_long_or_an_odd_name_is_read_and_named_in_one_line(
        self, load: Load, photo: Callable[[int], bytes], tmp_path: Path
    ) -> None:
        url = memory_url()
        content = archive(tmp_path / "x.tar", samples(photo, 0, 9)).read_bytes()
        for name in ("鳥" * 80, "a\n\x1b[31mb", "x y#?%41"):
            fsspec.filesystem("memory").pipe_file(f"{url}/{name}.tar", content)
        assert load(f"{url}/*.tar").labels == ("9", "10")
        fsspec.filesystem("memory").pipe_file(f"{url}/a\n\x1b[31mb.tar", b"junk")
        with pytest.raises(TrainingError) as refused:
            load(f"{url}/*.tar")
        assert str(refused.value).isprintable()

    def test_an_image_to_measure_on_that_changed_is_refused(
        self,
        load: Load,
        folder: Path,
        url: str,
        photo: Callable[[int], bytes],
        monkeypatch: pytest.MonkeyPatch,
        tmp_path: Path,
    ) -> None:
        keep = remote_shards.RemoteShards.keep

        def late(*arguments: Any) -> Any:
            for path in (tmp_path / "scratch" / "shards" / "0").glob("*.tar"):
                path.unlink()
            for number in range(SHARDS):
                put(url, archive(folder / f"data-{number:03}.tar", samples(photo, 90, EACH)))
            return keep(*arguments)

        monkeypatch.setattr(remote_shards.RemoteShards, "keep", late)
        with pytest.raises(TrainingError, match="is not what it was"):
            load(f"{url}/*.tar")

    def test_a_shard_that_is_removed_meanwhile_is_named(self, load: Load, url: str, tmp_path: Path) -> None:
        dataset = load(f"{url}/*.tar")
        for path in (tmp_path / "scratch" / "shards" / "0").glob("*.tar"):
            path.unlink()
        fsspec.filesystem("memory").rm_file(f"{url}/data-002.tar")
        with pytest.raises(TrainingError, match=r"data-002.tar is not there any more"):
            epoch(dataset, RECIPE)

    def test_a_network_that_goes_and_comes_is_waited_for(
        self, load: Load, url: str, monkeypatch: pytest.MonkeyPatch, said: Said
    ) -> None:
        monkeypatch.setattr(remote_shard, "_WAITS", (0.0,) * 5)
        failures = iter([True, True, False, True] + [False] * 1000)
        read = RemoteStore.read

        def unsure(self: RemoteStore, name: str, *, start: int, end: int) -> bytes:
            if next(failures):
                raise StoreError("s3://bucket: the network is gone")
            return read(self, name, start=start, end=end)

        monkeypatch.setattr(RemoteStore, "read", unsure)
        assert len(load(f"{url}/*.tar").labels) == 2
        assert str(said).count("the network is gone: trying again") == 3

    def test_a_network_that_does_not_come_back_is_one_line_with_what_to_do(
        self, load: Load, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(remote_shard, "_WAITS", (0.0,) * 5)

        def gone(*_: Any, **__: int) -> bytes:
            raise StoreError("s3://bucket: the network is gone")

        monkeypatch.setattr(RemoteStore, "read", gone)
        with pytest.raises(
            TrainingError, match=r"the network is gone; once it can be reached, start again, with --res"
        ):
            load(f"{url}/*.tar")

    @pytest.mark.parametrize(
        ("content", "why"),
        [(b"no archive" * 99, "is no tar file, or is damaged"), (b"", "is no tar file|was cut off|holds no image")],
    )
    def test_what_is_wrong_in_a_shard_names_its_url(
        self, load: Load, url: str, tmp_path: Path, content: bytes, why: str
    ) -> None:
        (tmp_path / "data-003.tar").write_bytes(content)
        put(url, tmp_path / "data-003.tar")
        with pytest.raises(TrainingError, match=why) as refused:
            load(f"{url}/*.tar")
        assert f"{url}/data-003.tar" in str(refused.value)
        assert str(refused.value).isprintable()

    def test_shards_that_change_while_they_are_looked_at_are_refused(
        self, load: Load, folder: Path, url: str, photo: Callable[[int], bytes], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        look = remote_shards.RemoteShards._look_at

        def slow(*arguments: Any) -> Any:
            put(url, archive(folder / "data-000.tar", samples(photo, 90, EACH)))
            return look(*arguments)

        monkeypatch.setattr(remote_shards.RemoteShards, "_look_at", slow)
        with pytest.raises(TrainingError, match="the shards changed while they were looked at"):
            load(f"{url}/*.tar")

    def test_other_data_than_shards_may_not_be_behind_a_url(self, load_files: Load, url: str) -> None:
        for data in ("photos", "table", "cifar10"):
            with pytest.raises(
                TrainingError, match=r"only shards may be behind a URL; other data must be on this mach"
            ):
                load_files(builtin(data), url)


class TestTheCache:
    @pytest.fixture
    def cache(self, tmp_path: Path) -> ShardCache:
        """Room for two archives of 10 bytes."""
        cache = ShardCache(tmp_path, max_bytes=25)
        self.fetched: list[str] = []

        def fetch(path: Path, _: threading.Event) -> None:
            self.fetched.append(path.stem)
            path.write_bytes(bytes(10))

        cache.serve({cache.path_of(name): (10, fetch) for name in "abcd"})
        return cache

    def through(self, cache: ShardCache, *turns: str) -> list[set[str]]:
        """What is here in each turn."""
        seen = []
        with cache.window([[cache.path_of(name) for name in turn] for turn in turns]) as window:
            for number in range(len(turns)):
                window.enter(number)
                seen.append({path.stem for path in cache.folder.glob("*.tar")})
                window.leave(number)
        return seen

    def test_what_a_turn_needs_is_here_and_what_was_needed_leaves(self, cache: ShardCache) -> None:
        for turn, seen in zip("abcd", self.through(cache, "a", "b", "c", "d"), strict=True):
            assert turn in seen
            assert len(seen) <= 2
        assert self.fetched == ["a", "b", "c", "d"]

    def test_what_is_needed_later_stays_until_then(self, cache: ShardCache) -> None:
        self.through(cache, "a", "b", "a", "a", "c")
        assert sorted(self.fetched) == ["a", "b", "c"]

    def test_what_is_here_is_not_fetched_again(self, cache: ShardCache) -> None:
        self.through(cache, "a", "b")
        self.through(cache, "b", "a")
        assert self.fetched == ["a", "b"]

    def test_a_turn_gets_what_it_needs_even_if_there_is_no_room_for_it(self, cache: ShardCache) -> None:
        assert {"a", "b", "c"} <= self.through(cache, "abc", "d")[0]

    def test_what_leaves_is_what_nobody_will_need_and_then_what_is_needed_last(self, cache: ShardCache) -> None:
        self.through(cache, "a", "b")
        self.through(cache, "c", "b")  # a leaves, and not b
        assert self.fetched == ["a", "b", "c"]
        self.fetched.clear()
        self.through(cache, "d", "c", "b")  # b leaves
        assert self.fetched == ["d", "b"]

    def test_no_more_than_four_are_fetched_at_the_same_time_however_many_a_turn_needs(self, tmp_path: Path) -> None:
        cache, at_work, most = ShardCache(tmp_path, max_bytes=1000), [0], [0]
        lock, gate = threading.Lock(), threading.Barrier(4, timeout=PATIENCE)

        def fetch(path: Path, _: threading.Event) -> None:
            with lock:
                at_work[0] += 1
                most[0] = max(most[0], at_work[0])
            gate.wait()  # until four are here
            path.write_bytes(bytes(10))
            with lock:
                at_work[0] -= 1

        names = [f"{i:02}" for i in range(20)]
        cache.serve({cache.path_of(name): (10, fetch) for name in names})
        with cache.window([[cache.path_of(name) for name in names]]) as window:
            window.enter(0)
        assert most == [4]
        cache.close()

    def test_what_was_cut_off_is_fetched_again(self, cache: ShardCache) -> None:
        self.through(cache, "a")
        cache.path_of("a").write_bytes(b"short")
        self.through(cache, "a")
        assert self.fetched == ["a", "a"]

    def test_two_processes_have_folders_of_their_own_and_the_next_one_finds_what_is_there(
        self, cache: ShardCache, tmp_path: Path
    ) -> None:
        other = ShardCache(tmp_path)
        assert (cache.folder.name, other.folder.name) == ("0", "1")
        assert other.max_bytes > 1_000_000  # what the disk has room for
        (other.folder / ".x.tar.1.tmp").touch()
        other.close()
        again = ShardCache(tmp_path)
        assert again.folder.name == "1"
        assert not list(again.folder.glob(".x*"))
        again.close()


def test_an_epoch_of_mixed_shards_takes_each_sample_once_and_few_shards_at_a_time(
    load_files: Load, folder: Path
) -> None:
    recipe = mixed(2)
    train = load_files(recipe, folder / "*.tar").train
    assert train.shards is not None
    orders = [order_of(train, torch.Generator().manual_seed(seed), recipe) for seed in range(3)]
    groups = set()
    for order in orders:
        assert sorted(order.tolist()) == list(range(len(train)))
        rest = train.shards[order].tolist()
        while rest:
            group = set(
                dict.fromkeys(rest[: next((i for i in range(len(rest)) if len(set(rest[: i + 1])) > 2), len(rest))])
            )
            groups.add(frozenset(group))
            assert len(group) <= 2
            assert not group & set(rest[sum(shard in group for shard in rest) :])
            rest = rest[sum(shard in group for shard in rest) :]
    assert len(groups) > 3  # others meet in each epoch
    assert not torch.equal(orders[0], orders[1])


def test_mixed_shards_and_balanced_classes_are_refused() -> None:
    with pytest.raises(TrainingError, match="balanced draws from all shards at once"):
        mixed(2).replace(balanced=True)
