"""Variables of the environment, for one test."""

from collections.abc import Mapping

import pytest


def set_variables(monkeypatch: pytest.MonkeyPatch, variables: Mapping[str, str]) -> None:
    """Sets them for this process and what it starts, until the test ends."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
