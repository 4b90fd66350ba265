"""What this process may hold at once: requests and bytes, before a body is read; items and pixels, before decoding."""

from typing import Self

from app.engine.errors import Overloaded


class Budget:
    """So much of one thing. What is more than all of it gets in alone."""

    def __init__(self, name: str, limit: float) -> None:
        self.name = name
        self.limit = limit
        self.held = 0

    def take(self, amount: int) -> None:
        """Raises: Overloaded; then nothing was taken."""
        if self.held and self.held + amount > self.limit:
            raise Overloaded(f"the server holds as many {self.name} as it may ({self.limit:g}); try again")
        self.held += amount

    def give_back(self, amount: int) -> None:
        self.held -= amount


class Admission:
    """The budgets of one process; on one event loop, so without locks."""

    def __init__(self, *, requests: int, body_bytes: float, items: int, pixels: float) -> None:
        self.requests = Budget("requests", requests)
        self.body_bytes = Budget("bytes of uploads", body_bytes)
        self.items = Budget("images", items)
        self.pixels = Budget("pixels", pixels)

    def request(self, body_bytes: int) -> "Held":
        """For one request; nothing is taken yet."""
        return Held(self, body_bytes)


class Held:
    """What one request holds: itself, the bytes of its body, and its images. Everything is given back at once.

    In a `with`, or by its methods. (As a generator it would cost four times as much.)
    """

    __slots__ = ("_admission", "_body_bytes", "_items", "_taken")

    def __init__(self, admission: Admission, body_bytes: int) -> None:
        self._admission = admission
        self._body_bytes = body_bytes
        self._items = 0
        self._taken = False

    def take(self) -> None:
        """Raises: Overloaded; then nothing was taken."""
        admission = self._admission
        admission.requests.take(1)
        try:
            admission.body_bytes.take(self._body_bytes)
        except Overloaded:
            admission.requests.give_back(1)
            raise
        self._taken = True

    def take_items(self, count: int) -> None:
        """Once. Raises: Overloaded."""
        self._admission.items.take(count)
        self._items = count

    def give_back(self) -> None:
        """Whatever was taken, and was not given back."""
        if self._taken:
            admission, self._taken = self._admission, False
            admission.items.give_back(self._items)
            admission.body_bytes.give_back(self._body_bytes)
            admission.requests.give_back(1)

    def __enter__(self) -> Self:
        self.take()
        return self

    def __exit__(self, *_: object) -> None:
        self.give_back()
