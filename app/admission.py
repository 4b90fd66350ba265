"""What this process may hold at once: requests and bytes, before a body is read; items and pixels, before decoding."""

from typing import Self

from app.engine.errors import Overloaded


class Budget:
    """So much of one thing, for one event loop. An amount above the whole limit gets in while nothing else is held."""

    def __init__(self, name: str, limit: float) -> None:
        self.name = name
        self.limit = limit
        self.held = 0
        self._refused = False  # an amount, since something was given back

    def acquire(self, amount: int) -> None:
        """Takes an amount.

        Raises: Overloaded; then nothing was taken.
        """
        if self.held and self.held + amount > self.limit:
            self._refused = True
            raise self._overloaded()
        self.held += amount

    def release(self, amount: int) -> None:
        """Gives an amount back that was acquired."""
        self.held -= amount
        self._refused = False

    def check(self) -> None:
        """Refuses an amount that is not known yet, if another was refused and nothing was given back since.

        Raises: Overloaded.
        """
        if self._refused:
            raise self._overloaded()

    def _overloaded(self) -> Overloaded:
        return Overloaded(f"the server holds as many {self.name} as it may ({self.limit:,.0f}); try again")


class Admission:
    """The budgets of one process. They live on one event loop, and so need no locks.

    Args:
        small_body: the bytes up to which a body needs no pixels of the budget.
    """

    def __init__(self, *, requests: int, body_bytes: float, items: int, pixels: float, small_body: int) -> None:
        self.small_body = small_body
        self.requests = Budget("requests", requests)
        self.body_bytes = Budget("bytes of uploads", body_bytes)
        self.items = Budget("images", items)
        self.pixels = Budget("pixels", pixels)

    def check(self, body_bytes: int) -> None:
        """Refuses a large body while there is no room for pixels, although it is not known how many pixels it has.

        That is known once the body was read and the image was opened. Under overload both would be done for nothing,
        and would take the time of those images that are decoded.

        Raises: Overloaded.
        """
        if body_bytes > self.small_body:
            self.pixels.check()

    def permit(self, body_bytes: int) -> "Permit":
        """Returns the permit of one request with a body of so many bytes; nothing is taken yet."""
        return Permit(self, body_bytes)


class Permit:
    """What one request holds: itself, the bytes of its body, and its images. Everything is given back at once.

    It is used in a `with`, or by its methods. (As a generator it would cost four times as much.)
    """

    __slots__ = ("_acquired", "_admission", "_body_bytes", "_items")

    def __init__(self, admission: Admission, body_bytes: int) -> None:
        self._admission = admission
        self._body_bytes = body_bytes
        self._items = 0
        self._acquired = False

    def acquire(self) -> None:
        """Takes a place for the request, and the bytes of its body.

        Raises: Overloaded; then nothing was taken.
        """
        admission = self._admission
        admission.check(self._body_bytes)
        admission.requests.acquire(1)
        try:
            admission.body_bytes.acquire(self._body_bytes)
        except Overloaded:
            admission.requests.release(1)
            raise
        self._acquired = True

    def acquire_items(self, count: int) -> None:
        """Takes places for the request's images. Called once, after `acquire`.

        Raises: Overloaded.
        """
        self._admission.items.acquire(count)
        self._items = count

    def release(self) -> None:
        """Gives back whatever was taken and was not given back."""
        if self._acquired:
            admission, self._acquired = self._admission, False
            admission.items.release(self._items)
            admission.body_bytes.release(self._body_bytes)
            admission.requests.release(1)

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
