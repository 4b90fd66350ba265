"""Commands that read a checkpoint take its URL, too."""

from pathlib import Path

import pytest

from classifier.store.remote import RemoteStore
from tests.support.checkpoints import checkpoint
from tests.support.memory_store import memory_url
from tests.support.runs import Train
from training.__main__ import main
from training.errors import TrainingError
from training.publishing.fetched import fetched
from training.publishing.publish import publish
from training.recipes.recipe import Recipe


def test_a_path_is_taken_as_it_is(tmp_path: Path) -> None:
    with fetched(tmp_path / "1.safetensors") as path:
        assert path == tmp_path / "1.safetensors"


def test_the_copy_is_called_as_the_model_and_the_version_are_and_is_removed() -> None:
    url = publish(checkpoint(), memory_url())
    with fetched(url) as path:
        assert (path.parent.name, path.name) == ("digits", "1.safetensors")
        assert path.is_file()
    assert not path.parent.parent.exists()


@pytest.mark.parametrize("command", ["reproduce", "evaluate"])
def test_what_is_not_there_is_one_line_and_2(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"{memory_url()}/digits/1.safetensors"
    assert main([command, url]) == 2
    assert capsys.readouterr().err == f"python -m training: there is no such object ({url})\n"


@pytest.mark.slow
def test_a_checkpoint_behind_a_url_is_trained_on_evaluated_reproduced_and_exported(
    run: Train, tiny: Recipe, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = memory_url()
    url = str(run(tiny, store=store))
    assert url == f"{store}/strokes/1.safetensors"
    runs = ["--runs", str(tmp_path / "runs"), "--device", "cpu"]
    assert main(["evaluate", url, *runs]) == 0
    assert main(["reproduce", url]) == 0
    assert "strokes/1" not in capsys.readouterr().err
    assert main(["export", url, str(tmp_path / "net.pth")]) == 0
    assert (tmp_path / "net.pth").is_file()
    source = ["--set", "source.samples=700", "--set", "source.test_samples=150", "--set", "held_out=100"]
    again = ["strokes", "--from", url, "--store", store, "--epochs", "1", "--no-pictures", *source, *runs]
    assert main(again) == 0
    with fetched(f"{store}/strokes/2.safetensors") as path:
        assert main(["reproduce", str(path)]) == 0
    said = capsys.readouterr().out
    assert "# starts from strokes/1 " in said
    assert main(["prune", "strokes", "--store", store, "--keep", "1"]) == 0
    assert capsys.readouterr().out == f"removed {url}\n"


@pytest.mark.parametrize("url", ["ftp://host/models", "s3://"])
def test_a_url_that_is_no_store_is_one_line_and_2(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["strokes", "--store", url])
    assert ended.value.code == 2
    assert len(capsys.readouterr().err.splitlines()) == 1


@pytest.mark.slow
def test_where_the_store_is_gone_at_the_end_all_epochs_are_kept_and_resume_publishes_them(
    run: Train, tiny: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, recipe = memory_url(), tiny.replace(epochs=1)
    with monkeypatch.context() as patch:

        def gone(*_: object, **__: object) -> None:
            raise FileNotFoundError(2, "there is no such object", store)

        patch.setattr(RemoteStore, "create", gone)
        with pytest.raises(TrainingError, match=r"all epochs are kept in .*: the same command and --resume publishes"):
            run(recipe, store=store)
    assert str(run(recipe, store=store, resume=True)) == f"{store}/strokes/1.safetensors"
