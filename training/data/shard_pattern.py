"""Says what a pattern of shards means, such as `data-{000..099}.tar`, among the files or objects that there are."""

import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from training.errors import TrainingError

T = TypeVar("T")

_MOST_SHARDS = 1_000_000
_BRACES = re.compile(r"\{([^{}]*)\}")
_RANGE = re.compile(r"(\d+)\.\.(\d+)")


def matching(pattern: str, find: Callable[[str], Sequence[T]]) -> list[T]:
    """Returns what a pattern means, in its order, and each once.

    `{000..099}` stands for each number, with as many digits; `{train,val}` for each word.

    Args:
        find: returns what there is of one text without braces; it may hold `*`, `?` and `[...]`.

    Raises: TrainingError if one of them is not there.
    """
    found: list[T] = []
    for text in itertools.islice(_expanded(pattern), _MOST_SHARDS + 1):
        there = find(text)
        if not there:
            raise TrainingError(f"{text}: there is no such shard (of {pattern}); put the pattern into quotes")
        found += there
    if len(found) > _MOST_SHARDS:
        raise TrainingError(f"{pattern} means more than {_MOST_SHARDS:,} shards")
    if not found:
        raise TrainingError(f"{pattern} means no shard: is the first number larger than the last?")
    return list(dict.fromkeys(found))


def _expanded(text: str) -> Iterator[str]:
    braces = _BRACES.search(text)
    if braces is None:
        yield text
        return
    before, after = text[: braces.start()], text[braces.end() :]
    numbers = _RANGE.fullmatch(braces[1])
    if numbers:
        first, last = int(numbers[1]), int(numbers[2])
        words: Iterator[str] = (str(each).zfill(len(numbers[1])) for each in range(first, last + 1))
    else:
        words = iter(braces[1].split(","))
    for word in words:
        yield from _expanded(f"{before}{word}{after}")
