"""Training in tests: in one thread, whoever runs it."""

import pytest


@pytest.fixture(autouse=True)
def _in_one_thread(one_thread: None) -> None:
    """Batches this small gain nothing by threads that wait for each other."""
