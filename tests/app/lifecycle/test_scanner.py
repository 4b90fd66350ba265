"""What becomes of files that change: another content is another version; another time, or another inode, is not."""

import asyncio
import itertools
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from app.lifecycle.storage import Fingerprint
from classifier.checkpoint import Checkpoint, CheckpointError
from classifier.header import DamagedError
from tests.support.checkpoints import checkpoint, publish
from tests.support.shelf import SOUND, OddDisk, Shelf

pytestmark = pytest.mark.anyio

OTHER = checkpoint(seed=1)
DAMAGED = DamagedError("the content does not match its hash")


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def bytes_of(content: Checkpoint, folder: Path) -> bytes:
    path = publish(folder / "elsewhere", 1, content)
    return path.read_bytes()


def keeping_times(path: Path, change: Callable[[], object]) -> None:
    """Changes a file, and gives it the times that it had."""
    before = path.stat()
    change()
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (path.stat().st_size, path.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def renewed(path: Path) -> None:
    """Another inode with the same bytes and times, as rsync leaves it."""
    other = path.with_name(".rsync")
    shutil.copy2(path, other)
    other.replace(path)


def with_a_byte_flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]


def refused(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.__dict__["values"]["reason"] for record in caplog.records if record.message == "refused"]


# Another content.


@pytest.mark.parametrize("way", ["in its place", "under another inode"])
async def test_another_content_of_the_same_size_and_time_is_swapped_in(shelf: Shelf, tmp_path: Path, way: str) -> None:
    path, other = shelf.publish(1), bytes_of(OTHER, tmp_path / "x")
    await shelf.look()
    before = shelf.infos()[0].sha256
    if way == "in its place":
        keeping_times(path, lambda: path.write_bytes(other))
    else:
        keeping_times(path, lambda: shelf.publish(1, OTHER))
    assert await shelf.look() == (1, True, [], False)
    assert shelf.loads == [1, 1]
    assert shelf.infos()[0].sha256 not in (None, before)


async def test_another_header_over_the_same_body_is_another_content(shelf: Shelf) -> None:
    """The hash in the header covers neither the names nor the places of the tensors."""
    path = shelf.publish(1)
    await shelf.look()
    changed = path.read_bytes().replace(b"network.fc1.bias", b"network.fc1.bios")
    shelf.faulty[1] = CheckpointError("the weights do not fit the architecture")
    keeping_times(path, lambda: path.write_bytes(changed))
    assert await shelf.look() == (1, False, [1], True)
    assert shelf.loads == [1, 1]


async def test_a_version_that_was_never_read_whole_is_not_read_whole_because_its_time_changes(shelf: Shelf) -> None:
    path = shelf.publish(1)
    shelf.publish(2)
    await shelf.look()
    path.touch()
    assert await shelf.look() == (2, False, [], False)
    assert shelf.disk.read == []


# The same content.


def moved_away_and_back(path: Path) -> None:
    path.rename(path.with_name(".away")).rename(path)


def linked_to(path: Path) -> None:
    path.with_name(".backup").hardlink_to(path)


def touched(path: Path) -> None:
    os.utime(path, ns=(1, 1))


def with_other_rights(path: Path) -> None:
    path.chmod(0o600)


@pytest.mark.parametrize("change", [touched, renewed, moved_away_and_back, linked_to, with_other_rights])
async def test_the_same_bytes_are_neither_loaded_nor_swapped_again_and_read_once(
    shelf: Shelf, change: Callable[[Path], None]
) -> None:
    path = shelf.publish(1)
    await shelf.look()
    told = shelf.changes
    change(path)
    for _ in range(3):
        assert await shelf.look() == (1, False, [], False)
    assert (shelf.loads, shelf.disk.read, shelf.changes) == ([1], [1], told)
    assert shelf.states() == {1: "ready"}


async def test_a_link_that_is_switched_to_the_same_bytes_swaps_nothing_and_to_others_swaps(
    shelf: Shelf, tmp_path: Path
) -> None:
    """As Kubernetes does it: `digits` leads to `..data/digits`, and `..data` to a folder that is made anew."""
    contents = {"..one": SOUND, "..two": SOUND, "..three": OTHER}
    for name, content in contents.items():
        publish(tmp_path / name, 1, content)

    def switch(name: str) -> None:
        (tmp_path / "..new").symlink_to(name)
        (tmp_path / "..new").replace(tmp_path / "..data")

    switch("..one")
    (tmp_path / "digits").symlink_to("..data/digits")
    await shelf.registry.refresh_all()
    assert shelf.served == {"digits": 1}
    switch("..two")
    assert await shelf.look() == (1, False, [], False)
    switch("..three")
    assert await shelf.look() == (1, True, [], False)
    assert shelf.loads == [1, 1]
    assert shelf.registry.store.passed_over == ()


async def test_where_inodes_are_numbered_anew_at_each_look_nothing_is_read_whole(tmp_path: Path) -> None:
    numbers = itertools.count()
    shelf = Shelf(tmp_path, OddDisk(tmp_path, lambda fingerprint: replace(fingerprint, inode=next(numbers))))
    path = shelf.publish(1)
    shelf.publish(2, b"junk")
    shelf.faulty[3] = CheckpointError("its logits are not repeated")
    shelf.publish(3)
    await shelf.look()
    told = shelf.changes
    for _ in range(3):
        assert await shelf.look() == (1, False, [3, 2], True)
    assert (shelf.loads, shelf.disk.read, shelf.changes, shelf.refusals) == ([3, 1], [], told, 2)
    keeping_times(path, lambda: shelf.publish(1, OTHER))
    assert await shelf.look() == (1, True, [3, 2], True)


@pytest.mark.parametrize("change", [renewed, with_other_rights])
async def test_a_version_that_was_refused_for_its_content_is_not_tried_again_with_the_same(
    shelf: Shelf, change: Callable[[Path], None]
) -> None:
    shelf.faulty[1] = CheckpointError("its logits are not repeated")
    path = shelf.publish(1)
    await shelf.look()
    change(path)
    assert await shelf.look() == (None, False, [1], True)
    assert (shelf.loads, shelf.refusals) == ([1], 1)


async def test_a_version_that_was_refused_by_accident_is_tried_again_when_its_file_changes_or_somebody_asks(
    shelf: Shelf,
) -> None:
    shelf.faulty[1] = RuntimeError("a driver")
    path = shelf.publish(1)
    await shelf.look()
    renewed(path)
    await shelf.look()
    await shelf.look()
    await shelf.look(afresh=True)
    assert shelf.loads == [1, 1, 1]


# A damaged file.


async def test_the_same_header_over_another_body_is_told_of_once_and_the_served_version_goes_on(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    path = shelf.publish(1)
    await shelf.look()
    whole = path.read_bytes()
    keeping_times(path, lambda: path.write_bytes(with_a_byte_flipped(whole, -2)))
    for change in (lambda _: None, touched, renewed):
        change(path)
        assert await shelf.look() == (1, False, [1], True)
        assert await shelf.look(afresh=True) == (1, False, [1], True)
    assert shelf.loads == [1]
    assert shelf.versions.entry(0).version == 1
    assert shelf.states() == {1: "refused"}
    assert "does not match its hash" in shelf.reason(1)
    assert refused(caplog) == [shelf.reason(1)]
    assert shelf.refusals == 1
    path.write_bytes(whole)
    assert await shelf.look() == (1, False, [], False)
    assert shelf.states() == {1: "ready"}
    assert shelf.loads == [1]


@pytest.mark.parametrize("way", ["in its place", "under another inode"])
async def test_a_damaged_file_that_becomes_whole_under_its_header_is_loaded(
    shelf: Shelf, tmp_path: Path, way: str
) -> None:
    """A copy that made room for the whole file first, and has its header already."""
    whole = bytes_of(SOUND, tmp_path / "x")
    path = shelf.publish(1, with_a_byte_flipped(whole, -2))
    shelf.faulty[1] = DAMAGED
    assert await shelf.look() == (None, False, [1], True)
    del shelf.faulty[1]
    if way == "in its place":
        path.write_bytes(whole)
    else:
        shelf.publish(1, whole)
    assert await shelf.look() == (1, True, [], False)


async def test_a_served_file_that_cannot_be_read_now_is_told_of_and_is_served_on_when_it_can_be(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = shelf.publish(1)
    await shelf.look()
    path.touch()
    with monkeypatch.context() as broken:

        def unreadable(*_: object, **__: object) -> None:
            raise OSError(5, "Input/output error")

        broken.setattr(Path, "open", unreadable)
        for _ in range(2):
            assert await shelf.look() == (1, False, [1], True)
    assert shelf.refusals == 1
    assert await shelf.look() == (1, False, [], False)
    assert shelf.loads == [1]


async def test_a_served_file_of_which_nothing_can_be_said_now_is_not_taken_for_gone(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next lower version would be served instead."""
    shelf.publish(1)
    path = shelf.publish(2)
    await shelf.look()
    stat = Path.stat
    with monkeypatch.context() as broken:

        def stale(self: Path, **options: bool) -> os.stat_result:
            if self == path:
                raise OSError(116, "Stale file handle")
            return stat(self, **options)

        broken.setattr(Path, "stat", stale)
        assert await shelf.look() == (2, False, [2], True)
        assert shelf.reason(2) == "cannot be read: Stale file handle"
    assert await shelf.look() == (2, False, [], False)
    assert shelf.loads == [2]


# A look that somebody asks for.


def constant(fingerprint: Fingerprint) -> Fingerprint:
    """A file system that tells of no change."""
    return replace(fingerprint, inode=1, modified_ns=1, changed_ns=1)


async def test_a_look_afresh_sees_what_no_fingerprint_tells(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, OddDisk(tmp_path, constant))
    path = shelf.publish(1)
    await shelf.look()
    whole = path.read_bytes()
    path.write_bytes(with_a_byte_flipped(whole, -2))
    assert await shelf.look() == (1, False, [], False)
    assert await shelf.look(afresh=True) == (1, False, [1], True)
    path.write_bytes(whole)
    assert await shelf.look(afresh=True) == (1, False, [], False)
    assert shelf.loads == [1]
    shelf.publish(1, OTHER)
    assert await shelf.look() == (1, False, [], False)
    assert await shelf.look(afresh=True) == (1, True, [], False)
    shelf.publish(1, b"junk")
    assert await shelf.look(afresh=True) == (1, False, [1], True)


async def test_a_look_afresh_reads_the_headers_of_versions_that_are_not_served(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, OddDisk(tmp_path, constant))
    for version in (1, 2):
        shelf.publish(version)
    whole = (tmp_path / "digits" / "1.safetensors").read_bytes()
    shelf.publish(3, b"-" * len(whole))
    await shelf.look()
    before = shelf.infos()[2].sha256
    shelf.publish(1, OTHER)
    shelf.publish(3, whole)
    assert await shelf.look() == (2, False, [3], True)
    assert await shelf.look(afresh=True) == (3, True, [], False)
    assert shelf.infos()[2].sha256 not in (before, None)


async def test_a_look_afresh_at_the_same_bytes_reads_what_is_served_and_changes_nothing(shelf: Shelf) -> None:
    for version in (1, 2, 3):
        shelf.publish(version)
    shelf.publish(4, b"junk")
    await shelf.look()
    told = shelf.changes
    assert await shelf.look(afresh=True) == (3, False, [4], True)
    assert (shelf.disk.read, shelf.loads, shelf.changes, shelf.refusals) == ([3], [3], told, 1)


async def test_while_a_file_is_read_whole_all_versions_are_told_of(shelf: Shelf) -> None:
    for version in (1, 2, 3):
        shelf.publish(version)
    await shelf.look()
    reading, gate = shelf.gated_reading()
    looking = asyncio.create_task(shelf.look(afresh=True))
    await reading.wait()
    assert shelf.states() == {3: "ready", 2: "available", 1: "available"}
    gate.set()
    await looking


async def test_a_thousand_who_ask_at_once_get_two_looks(shelf: Shelf) -> None:
    shelf.publish(1)
    await shelf.look()
    looks = await asyncio.gather(*(shelf.look(afresh=True) for _ in range(1000)))
    assert all(look == (1, False, [], False) for look in looks)
    assert shelf.disk.read == [1, 1]


# A file that changes while it is loaded.


async def test_a_file_that_is_replaced_while_it_is_loaded_is_not_served_for_the_other(shelf: Shelf) -> None:
    shelf.publish(1)
    loading, gate = shelf.gated()
    looking = asyncio.create_task(shelf.look())
    await loading.wait()
    shelf.publish(1, OTHER)
    gate.set()
    assert await looking == (None, False, [1], True)
    assert "replaced while it was read" in shelf.reason(1)
    assert await shelf.look() == (1, True, [], False)
    assert shelf.loads == [1, 1]


async def test_a_publisher_that_removes_its_temporary_name_meanwhile_changes_nothing(shelf: Shelf) -> None:
    path = shelf.publish(1)
    temporary = path.with_name(".publishing.tmp")
    temporary.hardlink_to(path)
    loading, gate = shelf.gated()
    looking = asyncio.create_task(shelf.look())
    await loading.wait()
    temporary.unlink()
    gate.set()
    assert await looking == (1, True, [], False)
    assert await shelf.look() == (1, False, [], False)
    assert (shelf.loads, shelf.refusals) == ([1], 0)


async def test_what_is_wrong_with_a_file_that_is_still_being_written_is_not_held_against_it(shelf: Shelf) -> None:
    path = shelf.publish(1)
    shelf.faulty[1] = CheckpointError("the file has 5 bytes where its header says 6")
    loading, gate = shelf.gated()
    looking = asyncio.create_task(shelf.look())
    await loading.wait()
    renewed(path)
    gate.set()
    assert await looking == (None, False, [1], True)
    del shelf.faulty[1]
    assert await shelf.look() == (1, True, [], False)


# The store's own folder.


async def test_a_store_that_is_not_there_is_told_of_once_and_again_when_it_goes(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    shelf = Shelf(tmp_path / "late")
    for _ in range(3):
        await shelf.registry.refresh_all()
    shelf.publish(1)
    await shelf.registry.refresh_all()
    assert shelf.served == {"digits": 1}
    shutil.rmtree(shelf.folder)
    for _ in range(3):
        await shelf.registry.refresh_all()
    assert shelf.served == {"digits": 1}
    told = [record.message for record in caplog.records if "store" in record.message]
    assert told == ["the store is not there", "the store can be read again", "the store is not there"]


async def test_what_is_passed_over_is_told_of_once_and_again_when_something_is_added(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    publish(shelf.folder, 1, SOUND, model="ResNet50")
    path = shelf.publish(1)
    path.with_name("best.safetensors").touch()
    for _ in range(3):
        await shelf.registry.refresh_all()
    told = shelf.changes
    path.with_name("01.safetensors").touch()
    await shelf.registry.refresh_all()
    assert shelf.changes == told + 1
    (shelf.folder / "2.safetensors").touch()
    await shelf.registry.refresh_all()
    assert shelf.changes == told + 2
    paths = [record.__dict__["values"]["path"] for record in caplog.records if record.message == "passed over"]
    assert paths == ["ResNet50", "digits/best.safetensors", "digits/01.safetensors", "2.safetensors"]


async def test_of_thousands_of_files_that_are_passed_over_a_few_are_told_of(
    shelf: Shelf, caplog: pytest.LogCaptureFixture
) -> None:
    folder = shelf.publish(1).parent
    for number in range(100):
        (folder / f"epoch{number}.pth").touch()
    await shelf.registry.refresh_all()
    await shelf.registry.refresh_all()
    values = [record.__dict__["values"] for record in caplog.records if record.message == "passed over"]
    assert len(values) == 21
    assert values[-1] == {"path": "…", "reason": "80 more are passed over"}


async def test_a_models_folder_that_cannot_be_read_is_told_of_once_and_what_was_known_counts(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    shelf.publish(1)
    await shelf.registry.refresh_all()
    with monkeypatch.context() as broken:

        def stale(*_: object) -> None:
            raise OSError(116, "Stale file handle")

        broken.setattr("app.lifecycle.storage.list_versions", stale)
        for _ in range(3):
            await shelf.registry.refresh_all()
    assert shelf.states() == {1: "ready"}
    (told,) = [record.__dict__["values"] for record in caplog.records if record.message == "passed over"]
    assert told == {"path": "digits", "reason": "it cannot be read: Stale file handle"}
    await shelf.registry.refresh_all()
    assert shelf.registry.models["digits"].passed_over == ()
