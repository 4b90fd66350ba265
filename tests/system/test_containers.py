"""The container files: linted, and every path, command, port and variable they name is the project's."""

import ast
import fnmatch
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from app.settings import PREFIX, Settings
from tests.support.server import PROJECT

DOCKERFILE = (PROJECT / "Dockerfile").read_text()
COMPOSE_TEXT = (PROJECT / "docker-compose.yml").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(COMPOSE_TEXT)
IGNORED = (PROJECT / ".dockerignore").read_text()
PYPROJECT = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]


def _instructions() -> list[tuple[str, str]]:
    """(name, arguments) of each, with its lines joined and comments left out."""
    lines = [line for line in DOCKERFILE.splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", "", "\n".join(lines))
    return [
        (name, rest.strip()) for name, _, rest in (line.partition(" ") for line in joined.splitlines() if line.strip())
    ]


def _arguments(name: str) -> list[str]:
    return [rest for instruction, rest in _instructions() if instruction == name]


def _environment() -> dict[str, str]:
    return dict(pair.split("=", 1) for rest in _arguments("ENV") for pair in shlex.split(rest))


def _copied_from_the_project() -> list[str]:
    return [source for rest in _arguments("COPY") if "--from=" not in rest for source in rest.split()[:-1]]


def _health_command() -> list[str]:
    (rest,) = _arguments("HEALTHCHECK")
    command: list[str] = json.loads(rest.partition("CMD ")[2])
    return command


def _tool(name: str) -> str:
    return str(Path(sys.executable).with_name(name))  # beside the Python that runs the tests


@pytest.mark.process
@pytest.mark.parametrize("file", ["Dockerfile", "deploy/training/Dockerfile"])
def test_hadolint_finds_nothing_in_the_dockerfiles(file: str) -> None:
    ended = subprocess.run([_tool("hadolint"), file], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.process
def test_the_compose_file_follows_the_compose_schema() -> None:
    command = [_tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", "docker-compose.yml"]
    ended = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_every_setting_that_is_named_is_one() -> None:
    known = {PREFIX + name.upper() for name in Settings.model_fields}
    named = set(re.findall(rf"{PREFIX}[A-Z0-9_]+", DOCKERFILE + COMPOSE_TEXT))
    assert named
    assert named <= known


def test_the_settings_of_the_image_can_be_read(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in _environment().items():
        if name.startswith(PREFIX):
            monkeypatch.setenv(name, value)
    settings = Settings.read([])
    assert settings.host == "0.0.0.0"  # noqa: S104  or nothing outside of the container would reach it
    assert settings.store == Path("/models_store")


@pytest.mark.parametrize("service", COMPOSE["services"])
def test_the_settings_of_each_service_can_be_read(
    service: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    for name, value in COMPOSE["services"][service]["environment"].items():
        monkeypatch.setenv(name, re.sub(r"\$\{\w+:-(.*?)\}", r"\1", value))  # what it is if nobody sets it
    assert Settings.read([]).device == ("cuda" if service.endswith("gpu") else "cpu")
    assert Settings.read([]).model is None


def test_what_the_dockerfile_copies_exists_and_is_not_ignored() -> None:
    patterns = [line for line in IGNORED.splitlines() if line and not line.startswith("#")]
    copied = _copied_from_the_project()
    assert copied
    for source in copied:
        path = PROJECT / source
        assert path.exists(), source
        files = (
            [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file() and "__pycache__" not in p.parts]
        )
        for file in files:
            assert not _is_ignored(file.relative_to(PROJECT), patterns), file


def test_what_the_dockerfile_does_not_copy_is_ignored() -> None:
    patterns = [line for line in IGNORED.splitlines() if line and not line.startswith("#")]
    copied = set(_copied_from_the_project())
    for path in (".git", ".env", ".venv", "models_store", "runs", "tests", "training", "app/__pycache__"):
        assert path not in copied
        assert _is_ignored(Path(path), patterns), path


def _is_ignored(path: Path, patterns: list[str]) -> bool:
    """As Docker reads .dockerignore: the last line that fits the path or a folder above it decides."""
    ignored = False
    for pattern in patterns:
        bare = pattern.removeprefix("!")
        above = [path, *path.parents][:-1]
        if any(fnmatch.fnmatch(str(p), bare) or fnmatch.fnmatch(p.name, bare.removeprefix("**/")) for p in above):
            ignored = not pattern.startswith("!")
    return ignored


def test_the_image_holds_every_package_that_the_server_imports() -> None:
    ours = {path.parent.name for path in PROJECT.glob("*/__init__.py")}
    imported = set()
    for package in ("app", "classifier"):
        for file in (PROJECT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(file.read_text())):
                names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
                names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                imported |= {name.partition(".")[0] for name in names}
    assert {"app", "classifier"} <= imported & ours <= set(_copied_from_the_project())


def test_it_starts_a_module_that_is_there_as_a_user_that_is_not_root() -> None:
    (command,) = _arguments("CMD")
    assert json.loads(command) == ["python", "-m", "app"]
    assert importlib.util.find_spec("app.__main__") is not None
    assert int(_arguments("USER")[-1]) > 0
    created = next(rest for rest in _arguments("RUN") if rest.startswith("useradd"))
    assert f"--uid {_arguments('USER')[-1]} " in created


@pytest.mark.process
def test_the_dependencies_installed_are_the_projects_and_each_has_a_pinned_version() -> None:
    (run,) = (rest for rest in _arguments("RUN") if "tomllib" in rest)
    command, _, install = run.partition(" > dependencies.txt && ")
    extra = PYPROJECT["optional-dependencies"]
    for extras, more in {"": [], "s3": extra["s3"], "s3 gcs": [*extra["s3"], *extra["gcs"]]}.items():
        written = subprocess.run(
            [sys.executable, *shlex.split(command)[1:]],
            cwd=PROJECT,
            env={**os.environ, "EXTRAS": extras},
            capture_output=True,
            text=True,
            check=True,
        )
        assert written.stdout.splitlines() == [*PYPROJECT["dependencies"], *more]
    assert "--constraint constraints.txt --requirement dependencies.txt" in install
    pinned = {canonicalize_name(Requirement(line).name) for line in (PROJECT / "constraints.txt").read_text().split()}
    assert {canonicalize_name(Requirement(line).name) for line in PYPROJECT["dependencies"]} <= pinned


def test_the_image_keeps_no_downloads_and_nothing_for_development() -> None:
    installs = [rest for rest in _arguments("RUN") if "pip install" in rest]
    assert installs
    assert all("--no-cache-dir" in install and "[" not in install.partition("pip install")[2] for install in installs)


def test_each_pinned_version_is_exact() -> None:
    for line in (PROJECT / "constraints.txt").read_text().split():
        requirement = Requirement(line)
        assert re.fullmatch(r"==[0-9][\w.]*", str(requirement.specifier)), line  # exact, and no index addresses


def test_the_python_of_the_image_is_one_that_the_project_supports() -> None:
    bases = {rest.split()[0] for rest in _arguments("FROM")}
    assert len(bases) == 1  # what is installed in one stage runs in the other
    match = re.fullmatch(r"python:(3\.\d+)-slim-\w+", bases.pop())
    assert match is not None
    assert SpecifierSet(PYPROJECT["requires-python"]).contains(match[1])


def test_a_builder_may_choose_a_package_index_and_none_is_named() -> None:
    arguments = ["PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "EXTRAS"]
    assert _arguments("ARG") == arguments
    assert COMPOSE["services"]["app"]["build"]["args"] == {name: f"${{{name}:-}}" for name in arguments}
    addresses = set(re.findall(r"https?://[^\s\"\\]+", DOCKERFILE + COMPOSE_TEXT))
    assert {address.split("//")[1].partition(":")[0] for address in addresses} <= {"127.0.0.1"}


def test_image_and_compose_file_agree_on_port_store_and_time_to_stop() -> None:
    environment, app = _environment(), COMPOSE["services"]["app"]
    default = Settings.model_fields
    assert _arguments("EXPOSE") == [environment["FLAMBEAU_PORT"]] == [str(default["port"].default)]
    (port,) = app["ports"]
    assert port == f"127.0.0.1:${{FLAMBEAU_PORT:-{default['port'].default}}}:{environment['FLAMBEAU_PORT']}"
    (volume,) = app["volumes"]
    source, target, mode = volume.split(":")
    assert (PROJECT / source).resolve() == PROJECT / default["store"].default
    assert (PROJECT / source / "README.md").is_file()
    assert (target, mode) == (environment["FLAMBEAU_STORE"], "ro")
    assert int(app["stop_grace_period"].removesuffix("s")) > default["grace_seconds"].default + 5


def test_the_gpu_service_is_the_same_with_a_gpu_and_only_on_request() -> None:
    assert COMPOSE["services"].keys() == {"app", "app-gpu"}
    gpu = COMPOSE["services"]["app-gpu"]
    assert gpu["extends"] == {"service": "app"}
    assert gpu["profiles"] == ["gpu"]
    (device,) = gpu["deploy"]["resources"]["reservations"]["devices"]
    assert device == {"driver": "nvidia", "count": 1, "capabilities": ["gpu"]}
    assert "profiles" not in COMPOSE["services"]["app"]


def test_the_health_check_is_a_module_of_the_image() -> None:
    assert _health_command() == ["python", "-m", "app.processes.healthcheck"]
    assert importlib.util.find_spec("app.processes.healthcheck") is not None


def test_the_image_that_trains_is_the_server_s_with_training_beside_it() -> None:
    folder = PROJECT / "deploy" / "training"
    lines = [line for line in (folder / "Dockerfile").read_text().splitlines() if not line.startswith("#")]
    assert lines[:4] == ["ARG SERVER=flambeau:latest", "FROM ${SERVER}", "WORKDIR /srv", "COPY training training"]
    patterns = (folder / "Dockerfile.dockerignore").read_text().split("\n")
    patterns = [line for line in patterns if line and not line.startswith("#")]
    for path, ignored in {"training/__main__.py": False, "app/settings.py": True, "training/__pycache__": True}.items():
        assert _is_ignored(Path(path), patterns) == ignored
