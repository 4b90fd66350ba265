"""The README is true: its commands parse, its paths exist, its curl lines are answered as it says."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from app.scoring.command import parser as scoring_parser
from classifier.manifest import OutOfDistribution
from tests.support.checkpoints import checkpoint, png, publish, saying
from tests.support.own_code import TUTORIAL
from tests.support.server import PATIENCE, PROJECT, serving
from training.command_line import parser

README = (PROJECT / "README.md").read_text()
MAKEFILE = (PROJECT / "Makefile").read_text()
COMMANDS = [
    line.split("  #")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
    if line.strip()
]


def those_with(prefix: str) -> list[str]:
    return [command for command in COMMANDS if command.startswith(prefix)]


def test_every_command_is_of_a_kind_that_is_tested_here() -> None:
    kinds = ("make ", ".venv/bin/python -m training ", ".venv/bin/python -m app", "curl ", "python3 -m venv ")
    assert [command for command in COMMANDS if not command.startswith(kinds)] == []
    assert all(those_with(kind) for kind in kinds)


@pytest.mark.parametrize("command", those_with("make "))
def test_a_make_target_exists(command: str) -> None:
    assert f"\n{command.split()[1]}:" in MAKEFILE


def test_the_line_without_make_does_what_make_demo_does() -> None:
    (line,) = those_with("python3 -m venv ")
    steps = [shlex.split(step) for step in line.split("&&")]
    assert steps[0] == ["python3", "-m", "venv", ".venv"]
    assert steps[1][1:] == ["install", "--no-cache-dir", "-c", "constraints.txt", "-e", ".[dev]"]
    assert "--no-cache-dir --constraint constraints.txt --editable '.[dev]'" in MAKEFILE
    assert "$(BIN)/python examples/demo.py" in MAKEFILE
    assert steps[2] == [".venv/bin/python", "examples/demo.py"]
    assert (PROJECT / "constraints.txt").is_file()
    assert (PROJECT / "examples" / "demo.py").is_file()


@pytest.mark.parametrize("command", those_with(".venv/bin/python -m training "))
def test_a_training_command_is_understood(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = shlex.split(command)[3:]
    if "--help" in arguments:
        with pytest.raises(SystemExit) as ended:
            parser().parse_args(arguments)
        assert ended.value.code == 0
        assert "python -m training photos" in capsys.readouterr().out
    else:
        assert parser().parse_args(arguments).command == arguments[0]


@pytest.mark.parametrize("command", those_with(".venv/bin/python -m app score "))
def test_a_scoring_command_is_understood(command: str) -> None:
    parsed = scoring_parser().parse_args(shlex.split(command)[4:])
    assert parsed.out.suffix in (".csv", ".jsonl", ".parquet")


def test_the_network_of_one_s_own_is_the_one_that_is_tried() -> None:
    """In `test_bring_your_own`, on real digits."""
    assert re.findall(r"```python\n(.*?)```", README, re.DOTALL) == [TUTORIAL]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl here")
def test_the_curl_lines_are_answered_as_the_readme_says(tmp_path: Path) -> None:
    threshold = OutOfDistribution(method="energy", threshold=0)
    publish(tmp_path / "store", 1, saying(checkpoint(), out_of_distribution=threshold), model="strokes")
    (tmp_path / "seven.png").write_bytes(png())
    with serving(tmp_path / "store") as server:
        answers = {
            command: curl(command.replace("http://127.0.0.1:8000", server.url), tmp_path)
            for command in those_with("curl ")
        }
    said = json.loads(re.findall(r"```json\n(.*?)```", README, re.DOTALL)[0])
    predicted = next(answer for command, answer in answers.items() if "/predict" in command)
    assert shape(predicted) == shape(said)
    assert any(answer.get("served_version") == 1 for answer in answers.values())
    assert any("models" in answer for answer in answers.values())


def curl(command: str, folder: Path) -> dict[str, object]:
    output = subprocess.run(
        [*shlex.split(command), "--silent", "--fail"], cwd=folder, capture_output=True, timeout=PATIENCE, check=True
    ).stdout
    answer: dict[str, object] = json.loads(output)
    return answer


def shape(value: object) -> object:
    """The keys and the types, without the values."""
    if isinstance(value, dict):
        return {key: shape(each) for key, each in value.items()}
    if isinstance(value, list):
        return [shape(each) for each in value]
    return type(value)


@pytest.mark.parametrize(
    "path", sorted(set(re.findall(r"`((?:docs|models_store|[A-Z]+\.md)[a-z/]*)/?`", README)) - {"models_store/"})
)
def test_a_path_that_it_names_exists(path: str) -> None:
    assert (PROJECT / path).exists()
