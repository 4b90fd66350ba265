"""A store behind a URL, as the server sees it. Here it is in memory; `tests/system/test_s3.py` has a real one."""

from collections.abc import Callable
from pathlib import Path

import pytest

from app.lifecycle.cache import Cache
from app.lifecycle.remote_storage import RemoteStorage
from app.lifecycle.storage import VersionFile
from classifier.checkpoint import Checkpoint
from classifier.header import DamagedError
from classifier.store.remote import RemoteEntry, RemoteStore, StoreError
from tests.support.checkpoints import checkpoint
from tests.support.memory_store import memory_url

SOUND, OTHER = checkpoint(), checkpoint(seed=1)


class Bucket(RemoteStore):
    """Notes what it is asked, and can be cut off."""

    def __init__(self, url: str, folder: Path) -> None:
        super().__init__(url)
        self.asked: list[str] = []
        self.is_cut_off = False
        self._folder = folder

    def publish(self, name: str, content: Checkpoint | bytes = SOUND) -> None:
        file = self._folder / "to publish"
        if isinstance(content, bytes):
            file.write_bytes(content)
        else:
            content.save(file)
        self.create(*name.split("/"), content=file)

    def replace(self, name: str, content: Checkpoint | bytes) -> None:
        self.remove(*name.split("/"))
        self.publish(name, content)

    def entries(self, *names: str) -> list[RemoteEntry]:
        self._ask("list", *names)
        return super().entries(*names)

    def read(self, *names: str, start: int, end: int) -> bytes:
        self._ask("read", *names)
        return super().read(*names, start=start, end=end)

    def fetch(self, *names: str, to: Path, size: int | None = None) -> None:
        self._ask("fetch", *names)
        super().fetch(*names, to=to, size=size)

    def gone(self) -> list[RemoteEntry]:
        raise FileNotFoundError

    def fail(self, what: str) -> bytes:
        self.asked.append(what)
        raise StoreError("the network is gone")

    def _ask(self, what: str, *names: str) -> None:
        self.asked.append(" ".join((what, *names)))
        if self.is_cut_off:
            raise StoreError(f"{self.url}: the network is gone")


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return Bucket(memory_url(), tmp_path)


Storages = Callable[[], RemoteStorage]


@pytest.fixture
def storage_again(bucket: Bucket, tmp_path: Path) -> Storages:
    """Makes the storage of a server that was just started, with the same cache."""
    return lambda: RemoteStorage(bucket, Cache(tmp_path / "cache", max_bytes=10_000_000))


@pytest.fixture
def storage(storage_again: Storages) -> RemoteStorage:
    return storage_again()


def files(
    storage: RemoteStorage, model: str = "digits", known: dict[int, VersionFile] | None = None
) -> dict[int, VersionFile]:
    listing = storage.versions(model, known or {})
    assert listing is not None
    return dict(listing.versions)


class TestListing:
    def test_models_and_versions_are_found_and_the_rest_is_passed_over(
        self, bucket: Bucket, storage: RemoteStorage
    ) -> None:
        for name in ("digits/1.safetensors", "digits/12.safetensors", "ants/3.safetensors"):
            bucket.publish(name)
        for name in (
            "Ants/1.safetensors",
            "digits/net.pth",
            "digits/1/model.safetensors",
            ".hidden/1",
            "digits/notes.txt",
        ):
            bucket.publish(name, b"anything")
        listing = storage.models()
        assert (listing.models, listing.problem) == (("ants", "digits"), None)
        assert [each.path for each in listing.passed_over] == ["Ants"]
        digits = storage.versions("digits", {})
        assert digits is not None
        assert list(digits.versions) == [12, 1]
        assert [each.path for each in digits.passed_over] == ["digits/1", "digits/net.pth"]

    def test_a_store_or_a_model_that_is_not_there_is_none(self, bucket: Bucket, storage: RemoteStorage) -> None:
        with pytest.raises(FileNotFoundError):
            storage.models()
        bucket.publish("digits/1.safetensors")
        assert storage.versions("ants", {}) is None
        assert storage.versions("../digits", {}) is None

    def test_of_a_version_the_header_alone_is_read_and_only_once(
        self, bucket: Bucket, storage: RemoteStorage, storage_again: Storages
    ) -> None:
        bucket.publish("digits/1.safetensors")
        found = files(storage)
        assert found[1].header is not None
        assert found[1].header.manifest.model == "digits"
        assert bucket.asked == ["list digits", "read digits 1.safetensors"]
        assert files(storage, known=found)[1] is found[1]
        assert files(storage_again()) == found  # also by a server that was started again
        assert [each for each in bucket.asked if each.startswith("read")] == ["read digits 1.safetensors"]

    def test_a_header_that_is_longer_than_what_is_asked_for_first_is_read_whole(
        self, bucket: Bucket, storage: RemoteStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("app.lifecycle.remote_storage._FIRST_BYTES", 100)
        bucket.publish("digits/1.safetensors")
        (file,) = files(storage).values()
        assert file.header is not None
        assert file.header.manifest == SOUND.manifest
        assert bucket.asked.count("read digits 1.safetensors") == 2

    @pytest.mark.parametrize("content", [b"", b"junk", b"\xff" * 100, (10**6).to_bytes(8, "little") + bytes(50)])
    def test_what_is_no_checkpoint_is_told_of(self, bucket: Bucket, storage: RemoteStorage, content: bytes) -> None:
        bucket.publish("digits/1.safetensors", content)
        (file,) = files(storage).values()
        assert file.header is None
        assert file.problem is not None
        assert not file.transient

    def test_an_object_that_is_replaced_is_read_again(self, bucket: Bucket, storage: RemoteStorage) -> None:
        bucket.publish("digits/1.safetensors")
        before = files(storage)
        bucket.replace("digits/1.safetensors", OTHER)
        after = files(storage, known=before)
        assert after[1].header != before[1].header
        assert not after[1].fingerprint.is_renumbered(before[1].fingerprint)

    def test_an_object_that_only_claims_a_long_header_is_not_read_and_nothing_of_it_is_kept(
        self, bucket: Bucket, storage: RemoteStorage, tmp_path: Path
    ) -> None:
        bucket.publish("digits/1.safetensors", b"PK\x03\x04" * 100_000)
        (file,) = files(storage).values()
        assert file.header is None
        assert not file.transient
        assert bucket.asked == ["list digits", "read digits 1.safetensors"]
        assert [path.suffix for path in (tmp_path / "cache").iterdir()] == [".listing"]

    @pytest.mark.parametrize("damage", [b"", bytes(1000), b"junk"])
    def test_a_header_that_was_damaged_in_the_cache_is_read_again(
        self, bucket: Bucket, storage: RemoteStorage, storage_again: Storages, tmp_path: Path, damage: bytes
    ) -> None:
        bucket.publish("digits/1.safetensors")
        found = files(storage)
        (header,) = (tmp_path / "cache").glob("*.header")
        header.write_bytes(damage)
        assert files(storage_again()) == found

    def test_a_header_that_comes_only_in_part_is_tried_again(
        self, bucket: Bucket, storage: RemoteStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bucket.publish("digits/1.safetensors")
        read = bucket.read
        monkeypatch.setattr(bucket, "read", lambda *names, start, end: read(*names, start=start, end=end)[:-1])
        known = files(storage)
        assert (known[1].header, known[1].transient) == (None, True)
        monkeypatch.setattr(bucket, "read", read)
        assert files(storage, known=known)[1].header is not None

    @pytest.mark.parametrize(("error", "transient"), [(MemoryError(), True), (RecursionError("deep"), False)])
    def test_whatever_else_goes_wrong_with_a_header_is_a_reason(
        self, bucket: Bucket, storage: RemoteStorage, monkeypatch: pytest.MonkeyPatch, error: Exception, transient: bool
    ) -> None:
        bucket.publish("digits/1.safetensors")

        def fail(*_: object) -> None:
            raise error

        monkeypatch.setattr("classifier.header.Header.parse", fail)
        (file,) = files(storage).values()
        assert (file.header, file.transient) == (None, transient)


class TestFetching:
    def test_a_version_is_fetched_once_whoever_asks(
        self, bucket: Bucket, storage: RemoteStorage, storage_again: Storages
    ) -> None:
        bucket.publish("digits/1.safetensors")
        (file,) = files(storage).values()
        paths = {storage.fetch("digits", file), storage.fetch("digits", file), storage_again().fetch("digits", file)}
        (path,) = paths
        assert Checkpoint.load(path).manifest == SOUND.manifest
        assert bucket.asked.count("fetch digits 1.safetensors") == 1

    def test_the_same_content_under_another_number_is_not_fetched_again(
        self, bucket: Bucket, storage: RemoteStorage
    ) -> None:
        bucket.publish("digits/1.safetensors")
        bucket.publish("digits/2.safetensors")
        one, two = (files(storage)[number] for number in (1, 2))
        assert storage.fetch("digits", one) == storage.fetch("digits", two)

    def test_an_object_that_was_replaced_since_it_was_listed_is_not_taken_for_it(
        self, bucket: Bucket, storage: RemoteStorage
    ) -> None:
        bucket.publish("digits/1.safetensors")
        (file,) = files(storage).values()
        bucket.replace("digits/1.safetensors", OTHER)
        with pytest.raises(OSError, match="replaced while it was fetched"):
            storage.fetch("digits", file)

    def test_of_an_object_that_comes_only_in_part_nothing_is_kept(
        self, bucket: Bucket, storage: RemoteStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bucket.publish("digits/1.safetensors")
        (file,) = files(storage).values()
        fetch = bucket.fetch

        def half(*names: str, to: Path, size: int) -> None:
            fetch(*names, to=to, size=size)
            to.write_bytes(to.read_bytes()[: to.stat().st_size // 2])

        monkeypatch.setattr(bucket, "fetch", half)
        with pytest.raises(OSError, match="only in part"):
            storage.fetch("digits", file)
        monkeypatch.setattr(bucket, "fetch", fetch)
        assert Checkpoint.load(storage.fetch("digits", file)).manifest == SOUND.manifest

    def test_an_object_whose_weights_are_damaged_is_refused_for_its_content(
        self, bucket: Bucket, storage: RemoteStorage, tmp_path: Path
    ) -> None:
        SOUND.save(tmp_path / "sound")
        sound = (tmp_path / "sound").read_bytes()
        bucket.publish("digits/1.safetensors", sound[:-1] + bytes([sound[-1] ^ 1]))
        (file,) = files(storage).values()
        with pytest.raises(DamagedError):
            storage.fetch("digits", file)
        assert "does not match its hash" in (storage.read_whole("digits", file).problem or "")

    def test_what_was_damaged_in_the_cache_is_fetched_again(
        self, bucket: Bucket, storage: RemoteStorage, storage_again: Storages
    ) -> None:
        bucket.publish("digits/1.safetensors")
        (file,) = files(storage).values()
        path = storage.fetch("digits", file)
        for each in (storage, storage_again()):
            path.write_bytes(bytes(path.stat().st_size))
            assert Checkpoint.load(each.fetch("digits", file)).manifest == SOUND.manifest

    def test_what_is_read_whole_is_what_was_listed(self, bucket: Bucket, storage: RemoteStorage) -> None:
        bucket.publish("digits/1.safetensors")
        (file,) = files(storage).values()
        assert storage.read_whole("digits", file) == file
        assert storage.is_unchanged(file)


class TestWithoutTheNetwork:
    def test_what_was_last_seen_counts_and_the_reason_is_said(self, bucket: Bucket, storage: RemoteStorage) -> None:
        bucket.publish("digits/1.safetensors")
        storage.models()
        known = files(storage)
        bucket.is_cut_off = True
        listing = storage.models()
        assert listing.models == ("digits",)
        assert listing.problem == f"cannot be read: {bucket.url}: the network is gone"
        digits = storage.versions("digits", known)
        assert digits is not None
        assert digits.versions == known
        (said,) = digits.passed_over
        assert said.path == "digits"
        assert "the network is gone" in said.reason

    def test_after_a_failure_other_models_are_not_asked_for_at_once(
        self, bucket: Bucket, storage: RemoteStorage
    ) -> None:
        models = [f"model-{number}" for number in range(20)]
        for model in models:
            bucket.publish(f"{model}/1.safetensors")
            assert len(files(storage, model)) == 1
        storage.models()
        bucket.asked.clear()
        bucket.is_cut_off = True
        storage.models()
        for model in models:
            assert len(files(storage, model)) == 1
        assert bucket.asked == ["list"]

    def test_nor_are_headers_that_are_not_known_yet(self, bucket: Bucket, storage: RemoteStorage) -> None:
        for number in range(1, 21):
            bucket.publish(f"digits/{number}.safetensors")
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bucket, "read", lambda *_, **__: bucket.fail("read"))
            assert all(file.transient for file in files(storage).values())
        assert bucket.asked == ["list digits", "read"]

    def test_a_model_that_may_not_be_listed_hides_no_other(
        self, bucket: Bucket, storage: RemoteStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bucket.publish("ants/1.safetensors")
        bucket.publish("digits/1.safetensors")
        entries = bucket.entries

        def denied(*names: str) -> list[RemoteEntry]:
            if names == ("ants",):
                raise StoreError("access denied") from PermissionError()
            return entries(*names)

        monkeypatch.setattr(bucket, "entries", denied)
        storage.models()
        with pytest.raises(StoreError):
            files(storage, "ants")
        assert list(files(storage)) == [1]

    @pytest.mark.parametrize("damage", [b"", bytes(100), b"null", b'[{"name": "digits", "colour": "red"}]', b"\xff"])
    def test_a_listing_that_was_damaged_in_the_cache_is_as_none(
        self, bucket: Bucket, storage: RemoteStorage, tmp_path: Path, damage: bytes
    ) -> None:
        bucket.publish("digits/1.safetensors")
        storage.models()
        (listing,) = (tmp_path / "cache").glob("*.listing")
        listing.write_bytes(damage)
        bucket.is_cut_off = True
        with pytest.raises(StoreError, match="the network is gone"):
            storage.models()

    def test_what_was_removed_from_the_store_does_not_come_back(
        self, bucket: Bucket, storage: RemoteStorage, storage_again: Storages
    ) -> None:
        bucket.publish("digits/1.safetensors")
        storage.models()
        files(storage)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(bucket, "entries", lambda *_: bucket.gone())
            with pytest.raises(FileNotFoundError):
                storage.models()
            assert storage.versions("digits", {}) is None
        bucket.is_cut_off = True
        with pytest.raises(StoreError):
            storage_again().models()
        with pytest.raises(StoreError):
            storage_again().versions("digits", {})

    def test_a_server_that_is_started_again_serves_from_its_cache(
        self, bucket: Bucket, storage: RemoteStorage, storage_again: Storages
    ) -> None:
        bucket.publish("digits/1.safetensors")
        storage.models()
        storage.fetch("digits", files(storage)[1])
        bucket.is_cut_off = True
        again = storage_again()
        assert again.models().models == ("digits",)
        (file,) = files(again).values()
        assert Checkpoint.load(again.fetch("digits", file)).manifest == SOUND.manifest

    def test_a_version_that_was_never_fetched_is_not_there_for_now(
        self, bucket: Bucket, storage: RemoteStorage, storage_again: Storages
    ) -> None:
        bucket.publish("digits/1.safetensors")
        (file,) = files(storage).values()
        bucket.is_cut_off = True
        with pytest.raises(StoreError, match="the network is gone"):
            storage_again().fetch("digits", file)
        read = storage_again().read_whole("digits", file)
        assert read.transient

    def test_a_version_whose_header_was_never_read_is_tried_again(
        self, bucket: Bucket, storage: RemoteStorage, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        bucket.publish("digits/1.safetensors")
        read = bucket.read

        def cut_off(*_: object, **__: object) -> bytes:
            raise StoreError("the network is gone")

        monkeypatch.setattr(bucket, "read", cut_off)
        monkeypatch.setattr("app.lifecycle.remote_storage._ASKED_AGAIN_SECONDS", 0)
        known = files(storage)
        assert (known[1].problem, known[1].transient) == ("cannot be read: the network is gone", True)
        monkeypatch.setattr(bucket, "read", read)
        assert files(storage, known=known)[1].header is not None

    def test_a_server_that_has_never_seen_the_store_says_that_it_cannot(
        self, bucket: Bucket, storage: RemoteStorage
    ) -> None:
        bucket.is_cut_off = True
        with pytest.raises(StoreError, match="the network is gone"):
            storage.models()

    def test_a_disk_that_is_full_keeps_nothing_and_ends_nothing(self, bucket: Bucket, tmp_path: Path) -> None:
        bucket.publish("digits/1.safetensors")
        storage = RemoteStorage(bucket, Cache(tmp_path / "cache", max_bytes=1))
        assert storage.models().models == ("digits",)
        (file,) = files(storage).values()
        assert file.header is not None
        with pytest.raises(OSError, match="do not fit into the cache"):
            storage.fetch("digits", file)
