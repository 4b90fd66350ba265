"""Pruning removes old versions, and never the newest sound ones."""

from pathlib import Path

import pytest

from classifier.store.remote import RemoteStore
from tests.support.checkpoints import checkpoint
from tests.support.checkpoints import publish as put
from tests.support.memory_store import memory_url
from tests.support.program_checkpoints import program_checkpoint
from training.commands.prune import prune
from training.errors import TrainingError
from training.publishing.publish import publish, remote_versions, versions


def test_pruning_keeps_the_highest_that_are_sound(tmp_path: Path) -> None:
    for version in range(1, 6):
        put(tmp_path, version, b"junk" if version == 4 else checkpoint())
    removed = prune(tmp_path, "digits", keep=2)
    assert sorted(int(path.stem) for path in removed) == [1, 2]
    assert versions(tmp_path / "digits") == [5, 4, 3]


@pytest.mark.parametrize("keep", [1, 3])
def test_pruning_removes_nothing_where_too_few_are_sound(tmp_path: Path, keep: int) -> None:
    for version in (1, 2, 3):
        put(tmp_path, version, b"junk" if keep == 1 or version == 2 else checkpoint())
    assert prune(tmp_path, "digits", keep=keep) == []
    assert versions(tmp_path / "digits") == [3, 2, 1]


def test_pruning_leaves_what_others_are_writing(tmp_path: Path) -> None:
    for version in (1, 2):
        put(tmp_path, version, checkpoint())
    writing = tmp_path / "digits" / ".publishing.1.abc.tmp"
    writing.write_bytes(b"half")
    prune(tmp_path, "digits", keep=1)
    assert writing.exists()


def test_pruning_what_is_not_there_or_all_of_it_is_refused(tmp_path: Path) -> None:
    put(tmp_path, 1, checkpoint())
    with pytest.raises(TrainingError, match="no model 'birds'"):
        prune(tmp_path, "birds", keep=1)
    with pytest.raises(TrainingError, match="/late, which is not there"):
        prune(tmp_path / "late", "birds", keep=1)
    with pytest.raises(TrainingError, match="at least 1"):
        prune(tmp_path, "digits", keep=0)


@pytest.mark.slow
def test_a_version_with_a_program_is_sound_without_its_code_if_the_program_is(tmp_path: Path) -> None:
    own = program_checkpoint(tmp_path)
    (tmp_path / "store").mkdir()
    for version in range(1, 5):
        put(tmp_path / "store", version, own, model="own")
    damaged = tmp_path / "store" / "own" / "4.safetensors"
    content = damaged.read_bytes()
    assert content.count(b'"op":"conv2d"') == 1
    damaged.write_bytes(content.replace(b'"op":"conv2d"', b'"op":"conv2x"'))
    removed = prune(tmp_path / "store", "own", keep=2)
    assert [path.name for path in removed] == ["1.safetensors"]
    assert versions(tmp_path / "store" / "own") == [4, 3, 2]


class TestBehindAUrl:
    def test_pruning_keeps_the_highest_that_are_sound(self, tmp_path: Path) -> None:
        url = memory_url()
        for _ in range(3):
            publish(checkpoint(), url)
        (tmp_path / "junk").write_bytes(b"junk")
        RemoteStore(url).create("digits", "4.safetensors", content=tmp_path / "junk")
        publish(checkpoint(), url)
        assert prune(url, "digits", keep=2) == [f"{url}/digits/{number}.safetensors" for number in (2, 1)]
        assert remote_versions(RemoteStore(url), "digits") == [5, 4, 3]

    def test_a_model_that_is_not_there_is_refused(self) -> None:
        url = memory_url()
        for model in ("digits", "../digits"):
            with pytest.raises(TrainingError, match=r"no model '.*digits' in memory://"):
                prune(url, model, keep=1)
