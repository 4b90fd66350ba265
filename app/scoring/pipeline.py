"""Reads and scores batches in threads, in order, a few ahead of whoever takes the rows."""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from app.scoring.rows import ScoredRow
from app.scoring.scorer import Scorer, read
from app.scoring.sources import Source

_READ_AT_ONCE = 16  # objects of a store, which come after a while; files are there at once


def scored(scorer: Scorer, sources: Sequence[Source]) -> Iterator[list[ScoredRow]]:
    """Gives the rows of each batch, in order, by as many threads as the scorer takes.

    An image is always computed beside the same others, so its numbers are always the same, to the last bit.
    """
    readers = ThreadPoolExecutor(_READ_AT_ONCE, thread_name_prefix="read")
    computers = ThreadPoolExecutor(scorer.threads, thread_name_prefix="score")

    def begun(group: Sequence[Source]) -> "Future[list[ScoredRow]]":
        if not any(source.key for source in group):
            return computers.submit(scorer.score, group)
        reading = [readers.submit(read, source) for source in group]
        return computers.submit(lambda: scorer.score(group, [each.result() for each in reading]))

    waiting: deque[Future[list[ScoredRow]]] = deque()
    try:
        for start in range(0, len(sources), scorer.batch):
            waiting.append(begun(sources[start : start + scorer.batch]))
            if len(waiting) > 2 * scorer.threads:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:  # after Ctrl-C too
        for pool in (readers, computers):
            pool.shutdown(wait=False, cancel_futures=True)
