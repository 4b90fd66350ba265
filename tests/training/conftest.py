"""Training in tests: in one thread, whoever runs it; and what one test imports, no other one finds."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _in_one_thread(one_thread: None) -> None:
    """Batches this small gain nothing by threads that wait for each other."""


@pytest.fixture(autouse=True)
def _own_code_is_forgotten(tmp_path: Path) -> Iterator[None]:
    """Python looks for modules where it did before, and forgets those of the test's folder."""
    before = list(sys.path)
    yield
    sys.path[:] = before
    for name, module in list(sys.modules.items()):
        if str(getattr(module, "__file__", None)).startswith(str(tmp_path)):
            del sys.modules[name]
