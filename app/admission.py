"""What this process may hold at once: requests and bytes, before a body is read; items and pixels, before decoding."""

from app.engine import Overloaded


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
