"""The hooks before a commit: they let the project pass, and each stops what it is there for."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from tests.support.server import PATIENCE, PROJECT

CONFIG = ".pre-commit-config.yaml"
# One file for each hook that it alone stops. They are put together here, or the hooks would stop this file.
WRONG = {
    "ruff-check": ("wrong.py", "import os\n"),
    "ruff-format": ("wrong.py", "x  =  1\n"),
    "typos": ("wrong.md", "Te" + "h quick brown fox\n"),
    "large-files": ("wrong.bin", "0" * 300_000),
    "private-keys": ("wrong.pem", "-----BEGIN RSA " + "PRIVATE KEY-----\n"),
}


@pytest.mark.process
def test_the_project_passes_its_own_hooks(tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    git = _git(GIT_DIR=str(tmp_path / "index"), GIT_WORK_TREE=str(PROJECT))
    for command in (["init", "--quiet"], ["add", "--all"], ["checkout-index", "--all", f"--prefix={copy}/"]):
        subprocess.run(["git", *command], cwd=PROJECT, env=git, timeout=PATIENCE, check=True)
    ended = _run_hooks(copy)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stdout.count("Passed") == len(WRONG)


@pytest.mark.process
@pytest.mark.parametrize("hook", WRONG)
def test_a_hook_stops_what_it_is_there_for_and_no_other_does(hook: str, tmp_path: Path) -> None:
    for name in (CONFIG, "pyproject.toml", ".gitignore"):
        shutil.copy(PROJECT / name, tmp_path)
    name, content = WRONG[hook]
    (tmp_path / name).write_text(content)
    ended = _run_hooks(tmp_path)
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert ended.stdout.count("Failed") == 1
    assert f"- hook id: {hook}\n" in ended.stdout


def test_every_hook_is_tested_and_none_is_downloaded() -> None:
    (repository,) = yaml.safe_load((PROJECT / CONFIG).read_text())["repos"]
    assert repository["repo"] == "local"
    assert {hook["id"] for hook in repository["hooks"]} == WRONG.keys()
    assert {hook["language"] for hook in repository["hooks"]} == {"system", "pygrep"}


def _git(**more: str) -> dict[str, str]:
    """The environment of a git that knows neither the repository around it nor whose machine it is on."""
    ours = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    return ours | {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_SYSTEM": os.devnull} | more


def _run_hooks(folder: Path) -> "subprocess.CompletedProcess[str]":
    """Over all files of a folder that becomes a repository, with the tools of this environment."""
    (folder / ".venv").symlink_to(sys.prefix)
    environment = _git(PRE_COMMIT_HOME=str(folder.parent / f"{folder.name}-home"))
    for command in (["git", "init", "--quiet"], ["git", "add", "--all"]):
        subprocess.run(command, cwd=folder, env=environment, timeout=PATIENCE, check=True)
    return subprocess.run(
        [sys.executable, "-m", "pre_commit", "run", "--all-files"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
