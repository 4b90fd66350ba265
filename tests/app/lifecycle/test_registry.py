"""Which versions are served: the rules of the store, with plain loads instead of networks."""

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest
from watchfiles._rust_notify import WatchfilesRustInternalError

from app.engine.errors import Draining, NotFound, Stale
from app.lifecycle.describe import model_info
from app.lifecycle.version import VersionState
from classifier.checkpoint import CheckpointError
from tests.support.checkpoints import checkpoint, publish
from tests.support.shelf import SOUND, Shelf
from tests.support.waiting import until

pytestmark = pytest.mark.anyio


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


async def test_a_look_that_finds_nothing_new_tells_nobody(shelf: Shelf) -> None:
    """Who is told says it to all front-ends: with 50 models, 50 times a look."""
    shelf.publish(1)
    shelf.publish(2, b"junk")
    await shelf.look()
    before = shelf.changes
    await shelf.look()
    assert shelf.changes == before
    shelf.publish(3, b"junk")
    await shelf.look()
    assert shelf.changes > before


async def test_the_highest_version_is_served_and_only_it_is_loaded(shelf: Shelf) -> None:
    for version in (1, 2, 10):
        shelf.publish(version)
    assert await shelf.look() == (10, True, [], False)
    assert shelf.loads == [10]
    assert shelf.states() == {10: "ready", 2: "available", 1: "available"}


async def test_a_look_that_finds_nothing_new_loads_nothing(shelf: Shelf) -> None:
    shelf.publish(1)
    await shelf.look()
    assert await shelf.look() == (1, False, [], False)
    assert shelf.loads == [1]


async def test_a_new_version_takes_over_and_the_old_one_is_retired(shelf: Shelf) -> None:
    shelf.publish(1)
    await shelf.look()
    old = shelf.registry.models["digits"].serving
    shelf.publish(2)
    assert await shelf.look() == (2, True, [], False)
    assert old is not None
    assert old.state is VersionState.RETIRING
    with pytest.raises(Stale):
        shelf.versions.entry(0)


async def test_a_version_that_does_not_pass_changes_nothing_but_what_is_said_of_it(shelf: Shelf) -> None:
    shelf.publish(1)
    await shelf.look()
    shelf.faulty[2] = CheckpointError("its logits are not repeated")
    shelf.publish(2)
    assert await shelf.look() == (1, False, [2], True)
    assert shelf.states() == {2: "refused", 1: "ready"}
    assert shelf.reason(2) == "its logits are not repeated"
    assert shelf.versions.entry(0).version == 1


async def test_a_refused_file_is_not_read_again_until_it_changes(shelf: Shelf) -> None:
    shelf.faulty[2] = CheckpointError("no")
    path = shelf.publish(2)
    for _ in range(3):
        assert await shelf.look() == (None, False, [2], True)
    assert shelf.loads == [2]
    del shelf.faulty[2]
    os.utime(path, ns=(1, 1))
    assert await shelf.look() == (2, True, [], False)


async def test_a_slow_copy_is_refused_and_taken_when_it_is_whole(shelf: Shelf) -> None:
    whole = shelf.publish(1).read_bytes()
    await shelf.look()
    (shelf.folder / "digits" / "2.safetensors").write_bytes(whole[: len(whole) // 2])
    assert await shelf.look() == (1, False, [2], True)
    assert "bytes where its header says" in shelf.reason(2)
    assert 2 not in shelf.loads
    (shelf.folder / "digits" / "2.safetensors").write_bytes(whole)
    assert await shelf.look() == (2, True, [], False)


async def test_a_header_that_nobody_has_thought_of_refuses_that_file_alone(shelf: Shelf) -> None:
    whole = shelf.publish(1).read_bytes()
    shelf.publish(2, with_an_offset_too_long_to_be_said(whole))
    assert await shelf.look() == (1, True, [2], True)
    assert await shelf.look() == (1, False, [2], True)
    assert 'flambeau_refusals_total{model="digits"} 1.0' in shelf.metrics.exposition().decode()


def with_an_offset_too_long_to_be_said(whole: bytes) -> bytes:
    """Python reads integers of up to 4300 digits. The size that comes of this one has 4301: it cannot become text."""
    end = 8 + int.from_bytes(whole[:8], "little")
    header = json.loads(whole[8:end])
    last = max((tensor["dtype"], name) for name, tensor in header.items() if name != "__metadata__")[1]
    header[last]["data_offsets"][1] = "?"
    odd = json.dumps(header).replace('"?"', "9" * 4300).encode()
    return len(odd).to_bytes(8, "little") + odd + whole[end:]


async def test_the_next_lower_version_is_served_where_the_highest_does_not_pass(shelf: Shelf) -> None:
    for version in (1, 2, 3):
        shelf.publish(version)
    shelf.faulty[3] = CheckpointError("no")
    assert await shelf.look() == (2, True, [3], True)
    assert shelf.loads == [3, 2]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (PermissionError(13, "Permission denied"), "cannot be read: Permission denied"),
        (RuntimeError("CUDA out of memory"), "cannot be loaded: RuntimeError: CUDA out of memory"),
        (MemoryError(), "cannot be loaded: out of memory"),
    ],
)
async def test_whatever_happens_while_a_file_is_loaded_refuses_that_file(
    shelf: Shelf, error: Exception, reason: str
) -> None:
    shelf.publish(1)
    shelf.faulty[2] = error
    shelf.publish(2)
    assert await shelf.look() == (1, True, [2], True)
    assert shelf.reason(2) == reason


async def test_what_was_not_the_files_fault_is_tried_again_at_the_next_look(shelf: Shelf) -> None:
    shelf.publish(1)
    shelf.faulty[1] = OSError(24, "Too many open files")
    for _ in range(2):
        assert await shelf.look() == (None, False, [1], True)
    assert 'flambeau_refusals_total{model="digits"} 1.0' in shelf.metrics.exposition().decode()
    del shelf.faulty[1]
    assert await shelf.look() == (1, True, [], False)
    assert shelf.states() == {1: "ready"}


@pytest.mark.parametrize("where", ["store", "folder"])
async def test_what_cannot_be_read_now_changes_nothing(
    shelf: Shelf, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(*_: object) -> None:
        raise OSError(116, "Stale file handle")

    shelf.publish(1)
    await shelf.registry.refresh_all()
    with monkeypatch.context() as broken:
        broken.setattr(f"app.lifecycle.storage.list_{'models' if where == 'store' else 'versions'}", stale)
        await shelf.registry.refresh_all()
    assert shelf.served["digits"] == 1
    assert shelf.states() == {1: "ready"}
    shelf.publish(2)
    await shelf.registry.refresh_all()
    assert shelf.states() == {2: "ready", 1: "available"}


async def test_a_link_that_leads_to_itself_and_a_store_that_is_a_file_are_no_models(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.publish(1)
    (tmp_path / "loop").symlink_to("loop")
    await shelf.registry.refresh_all()
    assert list(shelf.served) == ["digits"]
    file = Shelf(tmp_path / "digits" / "1.safetensors")
    await file.registry.refresh_all()
    assert not file.registry.models


async def test_when_the_served_file_is_removed_the_highest_that_passes_takes_over(shelf: Shelf) -> None:
    for version in (1, 2):
        shelf.publish(version)
    path = shelf.publish(3)
    await shelf.look()
    shelf.faulty[2] = CheckpointError("no")
    path.unlink()
    assert await shelf.look() == (1, True, [2], True)


async def test_when_the_last_file_is_removed_it_serves_on(shelf: Shelf) -> None:
    path = shelf.publish(1)
    await shelf.look()
    path.unlink()
    assert await shelf.look() == (1, False, [], False)
    path.parent.rmdir()
    assert await shelf.look() == (1, False, [], False)
    assert shelf.states() == {1: "ready"}
    assert shelf.served["digits"] == 1


async def test_a_served_file_that_was_away_for_a_while_is_not_loaded_again(shelf: Shelf) -> None:
    path = shelf.publish(1)
    await shelf.look()
    path.rename(shelf.folder / "elsewhere")
    assert await shelf.look() == (1, False, [], False)
    (shelf.folder / "elsewhere").rename(path)
    assert await shelf.look() == (1, False, [], False)
    assert shelf.loads == [1]
    assert shelf.states() == {1: "ready"}


async def test_a_served_file_that_is_overwritten_is_checked_and_swapped(shelf: Shelf) -> None:
    shelf.publish(1)
    await shelf.look()
    shelf.publish(1, checkpoint(seed=1))
    assert await shelf.look() == (1, True, [], False)
    assert shelf.loads == [1, 1]


async def test_a_served_file_that_is_damaged_is_told_of_and_serves_on(shelf: Shelf) -> None:
    shelf.publish(1)
    shelf.publish(2)
    await shelf.look()
    shelf.publish(2, b"junk")
    assert await shelf.look() == (2, False, [2], True)
    assert shelf.states() == {2: "refused", 1: "available"}
    assert shelf.loads == [2]
    told = model_info(shelf.registry.models["digits"], device="cpu").versions[0]
    assert (told.version, told.device) == (2, "cpu")
    assert told.loaded_at is not None  # this number still answers


async def test_only_files_and_folders_that_are_named_right_count(shelf: Shelf) -> None:
    shelf.publish(1)
    for name in ("0.safetensors", "01.safetensors", "x.safetensors", "2.pth", "3.safetensors.part", ".4.safetensors"):
        (shelf.folder / "digits" / name).write_bytes(b"")
    for name in ("Upper", "-dash", "a" * 65):
        publish(shelf.folder, 1, b"", model=name)
    (shelf.folder / "a-file").write_bytes(b"")
    await shelf.registry.refresh_all()
    assert shelf.states() == {1: "ready"}


async def test_a_pipe_and_a_folder_in_place_of_a_file_are_passed_over(shelf: Shelf) -> None:
    shelf.publish(1)
    os.mkfifo(shelf.folder / "digits" / "2.safetensors")
    (shelf.folder / "digits" / "3.safetensors").mkdir()
    (shelf.folder / "digits" / "4.safetensors").symlink_to("nowhere")
    assert await shelf.look() == (1, True, [], False)


async def test_a_folder_that_a_link_leads_to_is_a_model(shelf: Shelf, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    publish(elsewhere, 1, SOUND)
    (shelf.folder / "digits").symlink_to(elsewhere / "digits")
    await shelf.registry.refresh_all()
    assert shelf.served["digits"] == 1


async def test_the_folder_names_the_model_not_the_manifest(shelf: Shelf) -> None:
    publish(shelf.folder, 1, SOUND, model="numbers")
    await shelf.registry.refresh_all()
    assert list(shelf.served) == ["numbers"]


async def test_a_model_that_is_not_there_is_not_found(shelf: Shelf) -> None:
    with pytest.raises(NotFound):
        await shelf.look()


async def test_a_model_whose_folder_is_passed_over_is_not_found_with_the_reason(shelf: Shelf) -> None:
    (shelf.folder / "ResNet50").mkdir()
    await shelf.registry.refresh_all()
    with pytest.raises(NotFound, match="call it resnet50"):
        await shelf.look("ResNet50")


async def test_a_model_whose_folder_went_before_it_was_served_is_forgotten(shelf: Shelf) -> None:
    path = shelf.publish(1, b"junk")
    await shelf.registry.refresh_all()
    assert shelf.states() == {1: "refused"}
    path.unlink()
    path.parent.rmdir()
    await shelf.registry.refresh_all()
    assert not shelf.registry.models


async def test_two_looks_at_once_load_a_file_once(shelf: Shelf) -> None:
    shelf.publish(1)
    reports = await asyncio.gather(shelf.look(), shelf.look())
    assert sorted(changed for _, changed, _, _ in reports) == [False, True]
    assert shelf.loads == [1]


async def test_a_look_at_one_model_does_not_wait_for_the_load_of_another(shelf: Shelf) -> None:
    publish(shelf.folder, 7, SOUND, model="letters")
    await shelf.look("letters")
    shelf.publish(1)
    loading, gate = shelf.gated()
    loads = asyncio.create_task(shelf.look())
    await loading.wait()
    assert await shelf.look("letters") == (7, False, [], False)
    publish(shelf.folder, 8, b"junk", model="letters")
    assert await shelf.look("letters") == (7, False, [8], True)
    assert not loads.done()
    gate.set()
    assert await loads == (1, True, [], False)


async def test_two_models_are_loaded_one_after_the_other(shelf: Shelf) -> None:
    shelf.publish(1)
    publish(shelf.folder, 2, SOUND, model="letters")
    loading, gate = shelf.gated()
    looks = [asyncio.create_task(shelf.look(name)) for name in ("digits", "letters")]
    await loading.wait()
    await until(lambda: "letters" in shelf.registry.models)
    assert len(shelf.loads) == 1
    gate.set()
    await asyncio.gather(*looks)
    assert sorted(shelf.loads) == [1, 2]


async def test_a_name_that_no_model_has_leaves_nothing_behind(shelf: Shelf) -> None:
    for number in range(3):
        with pytest.raises(NotFound):
            await shelf.look(f"nothing-{number}")
    assert not shelf.registry.models


async def test_a_look_that_waits_while_the_registry_is_closed_does_not_begin(shelf: Shelf) -> None:
    shelf.publish(1)
    loading, gate = shelf.gated()
    first, second = (asyncio.create_task(shelf.look()) for _ in range(2))
    await loading.wait()
    await shelf.registry.close()
    gate.set()
    with pytest.raises(asyncio.CancelledError):
        await first
    with pytest.raises(Draining):
        await second


async def test_a_version_that_was_replaced_may_be_loaded_again(shelf: Shelf) -> None:
    shelf.publish(1)
    await shelf.look()
    second = shelf.publish(2)
    await shelf.look()
    second.unlink()
    assert await shelf.look() == (1, True, [], False)
    assert shelf.loads == [1, 2, 1]


async def test_a_look_goes_on_when_nobody_waits_for_it_any_longer(shelf: Shelf) -> None:
    shelf.publish(1)
    loading, gate = shelf.gated()
    impatient = asyncio.create_task(shelf.look())
    await loading.wait()
    await cancelled(impatient)
    assert shelf.states() == {1: "loading"}
    patient = asyncio.create_task(shelf.look())
    await asyncio.sleep(0)
    gate.set()
    assert await patient == (1, False, [], False)  # there was nothing left to do
    assert shelf.loads == [1]


async def test_closing_ends_a_look_and_swaps_nothing_any_more(shelf: Shelf) -> None:
    shelf.publish(1)
    loading, gate = shelf.gated()
    looking = asyncio.create_task(shelf.look())
    await loading.wait()
    await shelf.registry.close()
    with pytest.raises(asyncio.CancelledError):
        await looking
    gate.set()
    assert not shelf.served


async def test_what_is_being_loaded_is_said_to_be_loading(shelf: Shelf) -> None:
    shelf.publish(1)
    seen: list[dict[int, str]] = []
    shelf.loading = lambda _: seen.append(shelf.states())
    await shelf.look()
    assert seen == [{1: "loading"}]


async def test_loads_and_refusals_are_counted_once_each(shelf: Shelf) -> None:
    shelf.publish(1)
    await shelf.look()
    shelf.publish(2, b"junk")
    await shelf.look()
    await shelf.look()
    text = shelf.metrics.exposition().decode()
    assert 'flambeau_loads_total{model="digits"} 1.0' in text
    assert 'flambeau_refusals_total{model="digits"} 1.0' in text
    assert 'flambeau_served_version{model="digits"} 1.0' in text


async def test_the_watcher_sees_a_new_version_a_new_model_and_a_store_that_comes_late(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path / "late")
    loop, loads = asyncio.get_running_loop(), asyncio.Queue[int]()
    shelf.loading = lambda version: loop.call_soon_threadsafe(loads.put_nowait, version)
    watching = asyncio.create_task(shelf.registry.watch(shelf.watcher))
    await shelf.registry.first_scan_done.wait()
    shelf.publish(1)
    assert await loads.get() == 1
    shelf.publish(2)
    assert await loads.get() == 2
    publish(shelf.folder, 7, SOUND, model="new")
    assert await loads.get() == 7
    await shelf.look("new")  # comes after the look that loaded
    assert shelf.served == {"digits": 2, "new": 7}
    await cancelled(watching)


@pytest.mark.parametrize(
    "error",
    [
        OSError("OS file watch limit reached."),
        # A RuntimeError: what comes where as many watchers run as one user may have.
        WatchfilesRustInternalError("Error creating recommended watcher: Too many open files (os error 24)"),
    ],
)
async def test_where_the_system_cannot_watch_it_looks_now_and_then(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, error: Exception
) -> None:
    def no_watches_left(*_: Any, **__: Any) -> None:
        raise error

    monkeypatch.setattr("app.lifecycle.watcher.awatch", no_watches_left)
    loop, loads = asyncio.get_running_loop(), asyncio.Queue[int]()
    shelf.loading = lambda version: loop.call_soon_threadsafe(loads.put_nowait, version)
    watching = asyncio.create_task(shelf.registry.watch(shelf.watcher))
    await shelf.registry.first_scan_done.wait()
    for version in (1, 2, 3):
        shelf.publish(version)
        assert await loads.get() == version
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == [
        "cannot watch the store; looking now and then"
    ]
    await cancelled(watching)


async def cancelled(task: "asyncio.Task[Any]") -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def test_while_a_store_cannot_be_read_a_name_that_nobody_has_seen_makes_no_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anybody may ask for any name."""
    shelf = Shelf(tmp_path)
    shelf.publish(1)
    await shelf.registry.refresh_all()

    def cut_off(*_: object) -> None:
        raise OSError("the network is gone")

    monkeypatch.setattr(shelf.disk, "versions", cut_off)
    for number in range(10):
        with pytest.raises(NotFound):
            await shelf.look(f"model-{number}")
    assert list(shelf.registry.models) == ["digits"]
    assert (await shelf.look())[0] == 1  # what is served is told of as before
    assert "the network is gone" in shelf.registry.models["digits"].passed_over[0].reason
