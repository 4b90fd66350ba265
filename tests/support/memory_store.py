"""Stores behind URLs of this process's memory, one for each test."""

import itertools

_NUMBERS = itertools.count()


def memory_url() -> str:
    """Returns the URL of a store that is not there yet."""
    return f"memory://store-{next(_NUMBERS)}/models"
