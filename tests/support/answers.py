"""What the answers of any server are checked by."""

from collections.abc import Callable
from typing import Any, Protocol

MAX_FILES = 4  # in one request to the server that all tests share


class Answer(Protocol):
    """What the HTTP client's and our own raw answers have in common."""

    @property
    def status_code(self) -> int: ...
    @property
    def headers(self) -> Any: ...
    def json(self) -> Any: ...


CheckProblem = Callable[[Answer, str], str]
