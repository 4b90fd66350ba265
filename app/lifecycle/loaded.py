"""LoadedVersions: the one owner of what is on the device.

It knows which versions can answer, how many submissions each of them still has to answer, and when a version that was
replaced may leave.
"""

from collections.abc import Callable, Sequence

from app.batching.batcher import Lane, Submission
from app.engine.catalogue import Entry
from app.engine.errors import EngineError, Stale
from app.engine.interface import Cancelable
from app.engine.rows import Item, Row, Table, stack_rows
from classifier.preprocess import Pixels

# Is called once with the rows of a submission, in the order of its items, or with the reason why there are none.
OnRows = Callable[[Table | EngineError], None]


class LoadedVersion:
    """A version on the device: what the catalogue says of it, its queue, and how many submissions use it."""

    __slots__ = ("_in_use", "_on_retired", "entry", "lane")

    def __init__(self, entry: Entry, lane: Lane[Item, Row]) -> None:
        self.entry = entry
        self.lane = lane
        self._in_use = 0
        self._on_retired: Callable[[], None] | None = None

    def retain(self) -> None:
        """Counts a submission that has to be answered by this version."""
        self._in_use += 1

    def release(self) -> None:
        """Counts a submission as answered or cancelled. After the last one a replaced version leaves."""
        self._in_use -= 1
        self._leave_if_unused()

    def retire(self, on_retired: Callable[[], None]) -> None:
        """Takes no more submissions. Calls `on_retired` once, when nothing uses the version any more."""
        self._on_retired = on_retired
        self._leave_if_unused()

    def _leave_if_unused(self) -> None:
        if self._on_retired is not None and not self._in_use:
            on_retired, self._on_retired = self._on_retired, None
            on_retired()


class LoadedVersions:
    """All loaded versions, by the ids of their entries. Every method is called on the event loop."""

    def __init__(self) -> None:
        self._ready: dict[int, LoadedVersion] = {}

    def add(self, loaded: LoadedVersion) -> None:
        """Lets a version answer from now on."""
        self._ready[loaded.entry.id] = loaded

    def retire(self, loaded: LoadedVersion, on_retired: Callable[[], None]) -> None:
        """Ends a version that was replaced: what was submitted to it is answered, and nothing is added.

        Args:
            on_retired: is called once, when the last submission has been answered; perhaps at once.
        """
        del self._ready[loaded.entry.id]
        loaded.retire(on_retired)

    def entry(self, number: int) -> Entry:
        """Gives the entry of a version that answers. Raises: Stale, if it has been replaced."""
        return self._answering(number).entry

    def submit(
        self, entry: int, pixels: Sequence[Pixels], *, top_k: int, deadline: float, on_rows: OnRows
    ) -> Cancelable:
        """Asks the version with that entry for the rows of at least one image.

        Args:
            entry: the id of its entry.
            pixels: the images, each as the version's preprocess makes them.
            top_k: how many predictions an item gets, at the most; from 1.
            deadline: a time of `time.monotonic()`.
            on_rows: is called once, later.

        Raises: Stale, if the version has been replaced; DeadlineExceeded, Overloaded, Draining. `on_rows` is not called
            then.
        """
        work = _Work(self._answering(entry), top_k, on_rows)
        work.begin([Item(image, top_k) for image in pixels], deadline)
        return work

    def _answering(self, entry: int) -> LoadedVersion:
        loaded = self._ready.get(entry)
        if loaded is None:
            raise Stale("the version has been replaced")
        return loaded


class _Work:
    """A submission in a version's queue, until it is answered or cancelled."""

    __slots__ = ("_loaded", "_on_rows", "_submission", "_top_k")

    def __init__(self, loaded: LoadedVersion, top_k: int, on_rows: OnRows) -> None:
        self._loaded = loaded
        self._top_k = top_k
        self._on_rows = on_rows
        self._submission: Submission[Item, Row] | None = None

    def begin(self, items: Sequence[Item], deadline: float) -> None:
        self._submission = self._loaded.lane.submit_nowait(items, deadline=deadline, on_done=self._done)
        self._loaded.retain()

    def cancel(self) -> None:
        if self._submission is not None:
            submission, self._submission = self._submission, None
            self._loaded.lane.cancel(submission)
            self._loaded.release()

    def _done(self, outcome: list[Row | Exception] | EngineError) -> None:
        self._submission = None  # which refers to this object
        try:
            self._on_rows(outcome if isinstance(outcome, EngineError) else stack_rows(outcome, self._top_k))
        finally:
            self._loaded.release()
