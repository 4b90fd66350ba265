"""What all tests share."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.server import PROJECT


@pytest.fixture
def anyio_backend() -> tuple[str, dict[str, bool]]:
    """Async tests run on the loop that serves."""
    return "asyncio", {"use_uvloop": True}


@pytest.fixture(autouse=True)
def _no_settings_from_outside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests say what they set."""
    for name in list(os.environ):
        if name.upper().startswith("FLAMBEAU_"):
            monkeypatch.delenv(name)


@pytest.fixture(autouse=True, scope="session")
def _matplotlib_keeps_its_fonts_in_the_project() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MPLCONFIGDIR", str(PROJECT / "runs" / "matplotlib"))
        yield


@pytest.fixture
def shared_data() -> Path:
    """Real images, where they are at hand; the project holds none of them."""
    folder = PROJECT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("there is no ../shared/data here")
    return folder
