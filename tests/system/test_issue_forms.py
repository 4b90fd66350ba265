"""The forms for issues are what the repository's host reads, and name nobody."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.server import PROJECT

FORMS = sorted((PROJECT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))


@pytest.mark.process
@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_a_form_follows_the_schema_of_its_kind(form: Path) -> None:
    schema = "vendor.github-issue-config" if form.name == "config.yml" else "vendor.github-issue-forms"
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(form)]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stdout + ended.stderr


@pytest.mark.parametrize(
    "path", [*(PROJECT / ".github").rglob("*.*"), PROJECT / "SECURITY.md"], ids=lambda path: path.name
)
def test_no_address_and_no_person_is_named(path: Path) -> None:
    assert re.findall(r"https?://\S+|\S*@\S+", path.read_text()) == []
