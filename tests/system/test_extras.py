"""Every extra can be installed as the constraints say, all of them together."""

import json
import os
import re
import subprocess
import sys
import tomllib

import pytest

from tests.support.server import PROJECT

EXTRAS = tomllib.loads((PROJECT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
PINNED = [line for line in (PROJECT / "constraints.txt").read_text().splitlines() if line]


def test_the_constraints_name_each_package_once_and_in_order() -> None:
    names = [re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() for line in PINNED]
    assert names == sorted(set(names))


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.skipif("NEEDS_CLUSTER" not in os.environ, reason="asks the package index: make test-cluster")
def test_all_extras_resolve_together_and_nothing_that_they_bring_is_without_a_pin() -> None:
    command = [sys.executable, "-m", "pip", "install", "--dry-run", "--quiet", "--report", "-"]
    wanted = f".[{','.join(EXTRAS)}]"
    ended = subprocess.run(
        [*command, "--constraint", "constraints.txt", wanted], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    brought = {each["metadata"]["name"] for each in json.loads(ended.stdout)["install"]} - {"flambeau"}
    pinned = {re.sub(r"[-_.]+", "-", line.partition("==")[0]).lower() for line in PINNED}
    assert {name for name in brought if re.sub(r"[-_.]+", "-", name).lower() not in pinned} == set()
