"""Brings a published checkpoint that a person named by a URL to this machine. Imports no torch."""

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from classifier.store.remote import RemoteStore


@contextlib.contextmanager
def fetched(checkpoint: Path | str) -> Iterator[Path]:
    """Gives a path of the checkpoint: a path that is given as it is, or that of a copy, which is removed afterwards.

    The copy is called as the object is, in a folder that is called as its model is.

    Args:
        checkpoint: a path, or a URL such as `s3://bucket/mnist/1.safetensors`.

    Raises: FileNotFoundError; StoreError.
    """
    if isinstance(checkpoint, Path):
        yield checkpoint
        return
    url, _, name = checkpoint.rpartition("/")
    with tempfile.TemporaryDirectory(prefix="flambeau-") as folder:
        path = Path(folder) / (url.rpartition("/")[2] or "model") / name
        path.parent.mkdir()
        RemoteStore(url).fetch(name, to=path)
        yield path
