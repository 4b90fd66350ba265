"""Opens a published checkpoint that a person named; what is wrong with it becomes one line. Imports no torch."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from classifier.header import CheckpointError, Header
from training.errors import TrainingError


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turns what goes wrong meanwhile with the checkpoint at `path` into a TrainingError of one line."""
    try:
        yield
    except FileNotFoundError as error:
        raise TrainingError(f"{path}: no such file; published ones are <store>/<model>/<n>.safetensors") from error
    except OSError as error:
        raise TrainingError(f"{path}: {error.strerror or error}") from error
    except CheckpointError as error:
        raise TrainingError(f"{path}: {error}") from error


def header_of(path: Path) -> Header:
    """Reads what a checkpoint says of itself, without its weights. Raises: TrainingError if it is no checkpoint."""
    with reading(path):
        return Header.read(path)
