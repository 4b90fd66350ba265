"""`docs/bring-your-own.md` is true: its class is trained, served and asked, and its errors are printed as it says.

Beside it stand networks as tutorials have them, on real MNIST.
"""

import itertools
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from classifier.checkpoint import Checkpoint
from classifier.normalize import normalizer
from classifier.scores import SCORES
from tests.support.own_code import LOG_PROBABILITIES, TUTORIAL
from tests.support.server import PATIENCE, PROJECT, serving
from training.__main__ import main
from training.command_line import parser

pytestmark = [pytest.mark.slow, pytest.mark.process]

DOCUMENT = (PROJECT / "docs" / "bring-your-own.md").read_text()
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", DOCUMENT, re.DOTALL)
CLASS = next(text for language, text in BLOCKS if language == "python")
COMMANDS = [line for language, text in BLOCKS if language == "sh" for line in text.splitlines()]
# What goes wrong: a command or a change of the file, and the line that is printed.
MISTAKES = [
    (language, change, printed.strip())
    for (language, change), (after, printed) in itertools.pairwise(BLOCKS)
    if after == "text" and printed.startswith("python -m training: ")
]
FEW = ["--set", "source.samples=600", "--set", "source.test_samples=100", "--epochs", "1", "--no-pictures"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A new folder, in which a person works, with the class in a file. Digits are drawn once for all."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_net.py").write_text(CLASS)
    path = list(sys.path)
    yield tmp_path
    sys.path[:] = path


def test_the_class_is_a_tutorial_s() -> None:
    assert CLASS == TUTORIAL


@pytest.mark.parametrize("command", [command for command in COMMANDS if " training " in command])
def test_a_training_command_is_understood(command: str) -> None:
    assert parser().parse_args(shlex.split(command)[3:]).command in ("strokes", "mnist", "photos")


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_from_a_class_in_a_file_to_an_answer(folder: Path) -> None:
    train, serve, draw, ask = COMMANDS[:4]
    run = [sys.executable, *shlex.split(train)[1:], "--set", "source.samples=6000", *FEW[2:], "--device", "cpu"]
    subprocess.run([*run, "--epochs", "4"], cwd=folder, check=True, timeout=PATIENCE, env=_environment())
    (folder / "my_net.py").unlink()
    assert serve == "python -m app"
    with serving(folder / "models_store", "--device", "cpu") as server:
        subprocess.run([sys.executable, *shlex.split(draw)[1:]], cwd=folder, check=True, timeout=PATIENCE)
        words = shlex.split(ask.replace("http://127.0.0.1:8000", server.url))
        answer = json.loads(
            subprocess.run([*words, "--silent"], cwd=folder, check=True, capture_output=True, timeout=PATIENCE).stdout
        )
    assert answer["predictions"][0]["label"] == "7"


@pytest.mark.parametrize(("language", "change", "printed"), MISTAKES)
def test_a_mistake_is_answered_as_it_says(
    folder: Path, capfd: pytest.CaptureFixture[str], language: str, change: str, printed: str
) -> None:
    command = COMMANDS[0] if language == "diff" else change.strip()
    if language == "diff":
        before, after = (line[1:] for line in change.splitlines())
        assert CLASS.count(before) == 1
        (folder / "my_net.py").write_text(CLASS.replace(before, after))
    assert main([*shlex.split(command)[3:], *FEW]) == 2
    assert capfd.readouterr().err.splitlines()[-1] == printed
    assert not list(folder.glob("models_store/*/*"))


def test_there_are_as_many_mistakes_as_the_document_shows() -> None:
    assert len(MISTAKES) == DOCUMENT.count("python -m training: ") == 9


def mnist(folder: Path, shared_data: Path, text: str, name: str, *flags: str) -> Checkpoint:
    """What a network becomes on real digits."""
    (folder / "my_net.py").write_text(text)
    words = ["mnist", "--data", str(shared_data / "mnist"), "--network", f"my_net.py:{name}", "--no-pictures", *flags]
    assert main([*words, "--device", "cpu"]) == 0
    return Checkpoint.load(folder / "models_store" / "mnist" / "1.safetensors")


@pytest.mark.timeout(600)
def test_a_tutorial_s_class_reads_99_of_100_digits(folder: Path, shared_data: Path) -> None:
    metrics = mnist(folder, shared_data, TUTORIAL, "Net").manifest.metrics
    assert metrics is not None
    assert metrics.samples == 10_000
    assert metrics.accuracy >= 0.99


@pytest.mark.timeout(600)
def test_a_network_that_returns_log_probabilities_reads_digits_and_flags_noise(folder: Path, shared_data: Path) -> None:
    checkpoint = mnist(folder, shared_data, LOG_PROBABILITIES, "Digits", "--epochs", "3")
    manifest = checkpoint.manifest
    assert manifest.metrics is not None
    assert manifest.metrics.accuracy >= 0.99
    assert manifest.out_of_distribution is not None
    noise = torch.randint(0, 256, (500, 28, 28, 1), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        logits = checkpoint.build(len(noise))(normalizer(manifest.preprocess, device=torch.device("cpu"))(noise))
    flagged = SCORES["energy"](logits) < manifest.out_of_distribution.threshold
    assert float(flagged.float().mean()) >= 0.95


def _environment() -> dict[str, str]:
    """The tests' own code is what is run, wherever a person works."""
    return {**os.environ, "PYTHONPATH": str(PROJECT)}
