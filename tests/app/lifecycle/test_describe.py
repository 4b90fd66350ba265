"""Why nothing is served, in words that say what to do."""

import os
from pathlib import Path

import pytest

from classifier.checkpoint import CheckpointError
from tests.support.checkpoints import publish
from tests.support.shelf import SOUND, Shelf

pytestmark = pytest.mark.anyio


async def why(shelf: Shelf, default_model: str | None = None) -> str:
    await shelf.registry.refresh_all()
    return shelf.catalogue(default_model).why_not_ready or ""


async def test_where_something_is_served_nothing_is_missing(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    publish(tmp_path, 1, SOUND, model="ResNet50")
    shelf.publish(1)
    assert await why(shelf) == ""
    assert await why(shelf, "digits") == ""


async def test_an_empty_store_is_called_empty_with_the_command_that_fills_it(tmp_path: Path) -> None:
    (tmp_path / "my store").mkdir()
    assert await why(Shelf(tmp_path / "my store")) == (
        f"the store {tmp_path}/my store is empty; train and publish a model: "
        f"python -m training strokes --store '{tmp_path}/my store'"
    )


async def test_a_store_whose_models_have_no_version_holds_no_checkpoint(tmp_path: Path) -> None:
    (tmp_path / "digits").mkdir()
    assert (await why(Shelf(tmp_path))).startswith(f"the store {tmp_path} holds no checkpoint; train")


@pytest.mark.parametrize("default_model", [None, "digits"])
async def test_a_store_that_is_not_there_is_said_to_be_not_there_and_where_it_was_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, default_model: str | None
) -> None:
    monkeypatch.chdir(tmp_path)
    shelf = Shelf(Path("late"))
    said = await why(shelf, default_model)
    assert said.startswith(f"the store {tmp_path}/late is not there; the server keeps looking for it; train")
    shelf.publish(1)
    assert await why(shelf, default_model) == ""


async def test_a_store_that_is_a_file_cannot_be_read(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    assert f"the store {tmp_path}/file cannot be read: Not a directory" in await why(Shelf(tmp_path / "file"))


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
async def test_a_store_that_may_not_be_read_is_not_called_empty(tmp_path: Path) -> None:
    (tmp_path / "store").mkdir(mode=0)
    assert "cannot be read: Permission denied" in await why(Shelf(tmp_path / "store"))


async def test_what_is_passed_over_is_named_where_nothing_is_served(tmp_path: Path) -> None:
    publish(tmp_path, 1, SOUND, model="ResNet50")
    (tmp_path / "mnist" / "1").mkdir(parents=True)
    (tmp_path / "mnist" / "1" / "model.safetensors").touch()
    said = await why(Shelf(tmp_path))
    assert said == (
        "no checkpoint in the store can be served: ResNet50 is passed over: the names of models are lower-case: call "
        "it resnet50; mnist/1/model.safetensors is passed over: a version is a file in the folder of its model, as "
        "mnist/1.safetensors"
    )
    assert "is empty" not in said


async def test_of_many_reasons_a_few_are_named_and_the_rest_are_counted(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    for version in range(1, 6):
        shelf.publish(version, b"junk")
    assert (await why(shelf)).endswith("; and 2 more, see GET /models")


async def test_a_default_model_that_is_not_there_is_told_with_what_is_passed_over(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.publish(1)
    publish(tmp_path, 1, SOUND, model="ResNet50")
    said = await why(shelf, "resnet50")
    assert said.startswith(f"there is no model 'resnet50' in the store {tmp_path}: ResNet50 is passed over")


async def test_a_default_model_without_a_version_is_told_with_what_is_wrong_in_its_folder(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    publish(tmp_path, 1, SOUND, model="letters")
    shelf.faulty[2] = CheckpointError("no")
    path = shelf.publish(2)
    path.with_name("best.pth").touch()
    assert await why(shelf, "digits") == (
        "no version of 'digits' can be served: version 2: no; digits/best.pth is passed over: a version is a "
        ".safetensors file; python -m training import makes one of other weights"
    )
