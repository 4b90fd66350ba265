"""`python -m training`: what a person types, and the one line they get when it cannot be done."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from classifier.header import Header
from tests.server import PATIENCE, PROJECT
from tests.training.conftest import same_weights
from tests.training.digits import write_mnist
from training.__main__ import main


def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [sys.executable, "-m", "training", *arguments],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )


def folders(tmp_path: Path) -> list[str]:
    return ["--store", str(tmp_path / "store"), "--runs", str(tmp_path / "runs")]


@pytest.fixture
def mnist(tmp_path: Path) -> list[str]:
    """Flags of a run on a small MNIST."""
    return ["mnist", "--data", str(write_mnist(tmp_path, train=3600, test=50)), *folders(tmp_path), "--device", "cpu"]


def test_a_run_says_what_happens_and_publishes(mnist: list[str], tmp_path: Path) -> None:
    ended = run(*mnist, "--epochs", "2", "--name", "numbers", "--batch-size", "50", "--lr", "0.03", "--seed", "5")
    assert ended.returncode == 0, ended.stderr
    assert "epoch 1/2: loss" in ended.stdout
    assert "images/s" in ended.stdout
    path = tmp_path / "store" / "numbers" / "1.safetensors"
    assert f"published {path}" in ended.stdout.replace("\n", "")
    provenance = Header.read(path).manifest.provenance
    assert provenance is not None
    recipe = provenance.recipe
    assert (recipe["epochs"], recipe["batch_size"], recipe["lr"], recipe["seed"]) == (2, 50, 0.03, 5)


def test_a_run_that_is_killed_goes_on_after_its_last_epoch_bit_for_bit(mnist: list[str], tmp_path: Path) -> None:
    arguments = [*mnist, "--epochs", "3"]
    assert run(*arguments).returncode == 0
    whole = tmp_path / "store" / "mnist" / "1.safetensors"
    killed = subprocess.Popen(
        [sys.executable, "-u", "-m", "training", *arguments], cwd=PROJECT, stdout=subprocess.PIPE, text=True
    )
    assert killed.stdout is not None
    next(line for line in killed.stdout if line.startswith("epoch 2/3"))  # so epoch 3 has begun, or is about to
    killed.kill()
    killed.wait(PATIENCE)
    killed.stdout.close()
    assert run(*arguments, "--resume").returncode == 0
    assert same_weights(whole, tmp_path / "store" / "mnist" / "2.safetensors")


@pytest.fixture
def _ctrl_c_is_not_ignored() -> Iterator[None]:
    """A shell starts what runs in the background with Ctrl-C ignored, and processes inherit that."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("_ctrl_c_is_not_ignored")
def test_ctrl_c_is_one_line_and_130(mnist: list[str]) -> None:
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "training", *mnist, "--epochs", "50"],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    next(line for line in process.stdout if line.startswith("epoch 2/50"))
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert len(errors.splitlines()) == 1
    assert "--resume" in errors


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "required: COMMAND"),
        (["cifar"], "invalid choice: 'cifar'"),
        (["strokes", "--device", "abacus"], "'abacus'"),
        (["strokes", "--epochs", "0"], "epochs"),
        (["strokes", "--epochs", "many"], "invalid int value: 'many'"),
        (["strokes", "--batch-size", "0"], "batch_size"),
        (["strokes", "--lr", "nan"], "lr"),
        (["strokes", "--name", "../up"], "--name"),
        (["strokes", "--resume"], "nothing to resume"),
        (["strokes", "--from", "nowhere.safetensors"], "no such file"),
        (["mnist"], "MNIST cannot be had"),
        (["prune", "birds", "--keep", "1"], "no model 'birds'"),
    ],
)
def test_what_cannot_be_done_is_one_line_and_2(
    arguments: list[str], said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").touch()  # nothing can be downloaded into it
    try:
        code: int | str | None = main(arguments)
    except SystemExit as ended:
        code = ended.code
    errors = capsys.readouterr().err
    assert code == 2
    assert said in errors
    assert len(errors.splitlines()) == 1


def test_a_full_disk_is_one_line_and_2(
    mnist: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr("os.fsync", full)
    assert main([*mnist, "--epochs", "1"]) == 2
    errors = capsys.readouterr().err
    assert "the disk is full" in errors
    assert len(errors.splitlines()) == 1


def test_help_gives_the_defaults() -> None:
    ended = run("strokes", "--help")
    assert ended.returncode == 0
    assert "(default: 3)" in ended.stdout
    assert "(default: models_store)" in ended.stdout
