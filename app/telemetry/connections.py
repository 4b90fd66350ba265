"""How many connections there are, added up from what each process counts. Imports no torch."""

from collections.abc import Mapping
from typing import NamedTuple

from app.telemetry.counters import series

OPEN = "flambeau_open_connections"
OPENED = "flambeau_connections"


class Connections(NamedTuple):
    """So many are open now, and so many have been opened ever since."""

    open: float
    opened: float


def connections(numbers: Mapping[str, float]) -> Connections:
    """Returns those of numbers as `app.telemetry.counters.total` gives them."""
    return Connections(numbers.get(series(OPEN), 0.0), numbers.get(series(OPENED), 0.0))
