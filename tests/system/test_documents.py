"""The documents are true: the rooms are those that the contracts know, and every file that is named is there."""

import re
import tomllib
from itertools import groupby
from pathlib import Path

import pytest

from tests.support.server import PROJECT

DOCUMENTS = [*PROJECT.glob("*.md"), *(PROJECT / "docs").rglob("*.md"), *(PROJECT / "benchmarks").rglob("*.md")]
ARCHITECTURE = (PROJECT / "ARCHITECTURE.md").read_text()
CONTRACTS = tomllib.loads((PROJECT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


@pytest.mark.parametrize("package", ["app", "training"])
def test_the_rooms_stand_in_the_order_of_the_contract(package: str) -> None:
    (layers,) = (contract["layers"] for contract in CONTRACTS if contract.get("containers") == [package])
    table = ARCHITECTURE.partition(f"| | `{package}/` |")[2].partition("\n\n")[0]
    rooms = re.findall(r"^\| (\d+) \| `(\w+)` \|", table, re.MULTILINE)
    written = [{name for _, name in group} for _, group in groupby(rooms, key=lambda room: room[0])]
    assert written == [set(layer.split(" | ")) for layer in layers]


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_every_file_that_a_document_names_is_there(document: Path) -> None:
    named = re.findall(
        r"`((?:app|benchmarks|classifier|docs|examples|tests|training)/[\w./-]*|[\w./-]+\.(?:md|toml))`",
        document.read_text(),
    )
    missing = [name for name in named if not any((folder / name).exists() for folder in (PROJECT, document.parent))]
    assert missing == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(PROJECT)))
def test_every_module_that_a_document_runs_is_there(document: Path) -> None:
    modules = re.findall(r"python -m ((?:app|benchmarks|training)[\w.]*)", document.read_text())
    files = [PROJECT / module.rstrip(".").replace(".", "/") for module in modules]
    assert [file for file in files if not (file.with_suffix(".py").is_file() or (file / "__main__.py").is_file())] == []


def test_each_decision_is_in_the_index_and_has_its_number() -> None:
    folder = PROJECT / "docs" / "decisions"
    files = sorted(path for path in folder.glob("*.md") if path.name != "README.md")
    listed = re.findall(r"^- \[(\d+)\. (.+)\]\((.+)\): .", (folder / "README.md").read_text(), re.MULTILINE)
    assert [name for _, _, name in listed] == [path.name for path in files]
    for (number, title, name), path in zip(listed, files, strict=True):
        assert name.startswith(f"{int(number):04}-")
        assert path.read_text().startswith(f"# {number}. {title}\n")
