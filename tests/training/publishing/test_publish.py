"""Publishing: a version is there whole or not at all, and has a number of its own."""

import dataclasses
import errno
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path

import pytest

from app.lifecycle.storage import LocalFolder, ModelListing
from classifier.checkpoint import Checkpoint
from classifier.manifest import Dataset, Provenance
from classifier.store.remote import RemoteStore, StoreError
from tests.support.checkpoints import checkpoint
from tests.support.checkpoints import publish as put
from tests.support.memory_store import memory_url
from tests.support.s3 import S3Server
from tests.support.server import PROJECT
from training.publishing.fetched import fetched
from training.publishing.publish import check_reachable, publish, published_already, remote_versions, versions


def test_versions_count_from_1_and_are_what_was_published(tmp_path: Path) -> None:
    paths = [publish(checkpoint(seed), tmp_path) for seed in (1, 2, 3)]
    assert [path.relative_to(tmp_path).as_posix() for path in paths] == [f"digits/{n}.safetensors" for n in (1, 2, 3)]
    assert Checkpoint.load(paths[1]).network["fc2.bias"].equal(checkpoint(2).network["fc2.bias"])
    assert names(tmp_path) == ["1.safetensors", "2.safetensors", "3.safetensors"]


def test_the_next_number_is_above_the_highest_whatever_is_missing_below(tmp_path: Path) -> None:
    put(tmp_path, 7, b"junk")
    assert publish(checkpoint(), tmp_path).name == "8.safetensors"


def test_two_at_once_get_two_numbers(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda seed: publish(checkpoint(seed), tmp_path), range(8)))
    assert sorted(int(path.stem) for path in paths) == list(range(1, 9))


@pytest.mark.parametrize("reason", [errno.EPERM, errno.ENOTSUP])
def test_where_links_are_not_supported_it_publishes_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    def no_links(*_: object) -> None:
        raise OSError(reason, os.strerror(reason))

    monkeypatch.setattr("os.link", no_links)
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda seed: publish(checkpoint(seed), tmp_path), range(4)))
    assert sorted(int(path.stem) for path in paths) == [1, 2, 3, 4]
    assert len(names(tmp_path)) == 4


def test_a_full_disk_publishes_nothing_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(OSError, match="No space left"):
        publish(checkpoint(), tmp_path)
    assert names(tmp_path) == []


@pytest.mark.slow
def test_a_publisher_that_is_killed_before_the_link_leaves_no_version(tmp_path: Path) -> None:
    killed = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from tests.support.checkpoints import checkpoint\n"
        "from training.publishing.publish import publish\n"
        "os.link = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
        "publish(checkpoint(), Path(sys.argv[1]))\n"
    )
    subprocess.run([sys.executable, "-c", killed, str(tmp_path)], cwd=PROJECT, check=False)
    (left,) = names(tmp_path)
    assert left.startswith(".")
    assert versions(tmp_path / "digits") == []
    assert LocalFolder(tmp_path).versions("digits", {}) == ModelListing({})
    assert publish(checkpoint(), tmp_path).name == "1.safetensors"


def names(store: Path) -> list[str]:
    return sorted(path.name for path in (store / "digits").iterdir())


class TestBehindAUrl:
    def test_versions_count_from_1_and_are_what_was_published(self) -> None:
        url = memory_url()
        made = [publish(checkpoint(seed), url) for seed in (1, 2, 3)]
        assert made == [f"{url}/digits/{number}.safetensors" for number in (1, 2, 3)]
        with fetched(made[1]) as path:
            assert Checkpoint.load(path).network["fc2.bias"].equal(checkpoint(2).network["fc2.bias"])

    def test_a_number_that_somebody_has_taken_meanwhile_is_left_to_them(self, monkeypatch: pytest.MonkeyPatch) -> None:
        url = memory_url()
        for seed in (1, 2):
            publish(checkpoint(seed), url)
        monkeypatch.setattr("training.publishing.publish.remote_versions", lambda *_: [])  # listed before both
        assert publish(checkpoint(3), url) == f"{url}/digits/3.safetensors"

    def test_what_is_cut_off_while_it_is_sent_is_an_error_and_no_version(self, monkeypatch: pytest.MonkeyPatch) -> None:
        url = memory_url()
        publish(checkpoint(), url)

        def cut_off(*_: object, **__: object) -> None:
            raise StoreError("the network is gone")

        monkeypatch.setattr(RemoteStore, "create", cut_off)
        with pytest.raises(StoreError, match="the network is gone"):
            publish(checkpoint(1), url)
        assert remote_versions(RemoteStore(url), "digits") == [1]

    @pytest.mark.slow
    def test_of_eight_at_once_to_a_real_store_each_gets_a_number(self, s3: S3Server) -> None:
        url = s3.new_url()
        with ThreadPoolExecutor(8) as pool:
            made = list(pool.map(lambda seed: publish(checkpoint(seed), url), range(8)))
        assert sorted(made) == [f"{url}/digits/{number}.safetensors" for number in range(1, 9)]
        for seed, each in enumerate(made):
            with fetched(each) as path:
                assert Checkpoint.load(path).network["fc2.bias"].equal(checkpoint(seed).network["fc2.bias"])

    @pytest.mark.slow
    def test_before_a_run_a_bucket_that_is_not_there_is_noticed_and_a_folder_in_one_need_not_be(
        self, s3: S3Server
    ) -> None:
        check_reachable(s3.new_url(), "digits")
        with pytest.raises(FileNotFoundError, match="there is no such object"):
            check_reachable("s3://no-such-bucket/models", "digits")


def test_what_is_published_already_is_found_whenever_it_was_made(tmp_path: Path) -> None:
    path = publish(made(2026), tmp_path)
    assert published_already(made(2027), tmp_path) == path
    assert published_already(made(2026, epoch=7), tmp_path) is None
    put(tmp_path, 2, b"junk")
    assert published_already(made(2026), tmp_path) is None


def test_behind_a_url_too() -> None:
    url = memory_url()
    assert published_already(made(2026), url) is None
    address = publish(made(2026), url)
    assert published_already(made(2027), url) == address


def test_where_nothing_is_published_yet_nothing_is_found(tmp_path: Path) -> None:
    assert published_already(made(2026), tmp_path) is None
    publish(checkpoint(), tmp_path)  # which does not say how it was made
    assert published_already(made(2026), tmp_path) is None


def made(year: int, epoch: int = 1) -> Checkpoint:
    """A checkpoint that was trained in that year."""
    provenance = Provenance(
        dataset=Dataset(name="digits", samples=10, fingerprint="0" * 64),
        recipe={},
        seed=0,
        epoch=epoch,
        code_revision=None,
        versions={},
        created=datetime(year, 1, 1, tzinfo=UTC),
        parent=None,
    )
    plain = checkpoint()
    return dataclasses.replace(plain, manifest=plain.manifest.model_copy(update={"provenance": provenance}))
