"""What tests of commands share."""

from pathlib import Path

import pytest

from tests.support.own_code import TRAINED


@pytest.fixture
def net(tmp_path: Path) -> str:
    """Somebody's own code, as a person names it."""
    (tmp_path / "my_net.py").write_text(TRAINED)
    return f"{tmp_path / 'my_net.py'}:Net"
