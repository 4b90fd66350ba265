"""Scores images as the server does: the same decoder, the same verification, the same predictor."""

import stat
from collections.abc import Sequence
from functools import cache
from pathlib import Path

import torch

from app.decoding.formats import ImageProblem
from app.decoding.image import open_image, to_pixels
from app.engine.predictions import ItemAnswer, ItemError
from app.engine.rows import Item
from app.inference.predictor import Predictor
from app.inference.verification import verify
from app.scoring.rows import ScoredRow, row_of
from app.scoring.setup import Setup
from app.scoring.sources import Source
from classifier.device import select_device
from classifier.preprocess import Pixels
from classifier.store.remote import RemoteStore

_MOST_BYTES = 1 << 29  # of one image file


class Scorer:
    """Scores batches with one version. As many threads as it was told may call it at the same time.

    Args:
        checkpoint: the version's file on this machine. It is verified first.
        threads: how many batches may be computed at the same time.

    Raises: what `verify` raises; ValueError or ImportError, if the device is not there.
    """

    def __init__(self, checkpoint: Path, setup: Setup, *, threads: int) -> None:
        self.batch = setup.batch
        self.threads = threads
        self._setup = setup
        device = select_device(setup.device)
        # Each thread computes a batch of its own. Then a row is the same, to the last bit, however many there are.
        self._threads_of_torch = 1 if device.type == "cpu" else torch.get_num_threads()
        self._prepare_thread()
        self.predictor: Predictor = verify(
            checkpoint,
            device=device,
            max_items=setup.batch,
            precision=setup.precision,
            slots=threads,
            compile_with="inductor" if setup.compiled else None,
        )

    def score(self, sources: Sequence[Source], contents: Sequence[bytes | OSError] | None = None) -> list[ScoredRow]:
        """Returns a row for each image, in their order. Raises nothing for what is wrong with an image.

        Args:
            contents: what the sources hold, if somebody has read them.
        """
        self._prepare_thread()
        found = [read(source) for source in sources] if contents is None else contents
        decoded = [self._decoded(each) for each in found]
        pixels = [each for each in decoded if not isinstance(each, ItemError)]
        answers = iter(self._predicted(pixels))
        items = [each if isinstance(each, ItemError) else next(answers) for each in decoded]
        version = self._setup.version
        return [row_of(source.name, version, item) for source, item in zip(sources, items, strict=True)]

    def _prepare_thread(self) -> None:
        if torch.get_num_threads() != self._threads_of_torch:
            torch.set_num_threads(self._threads_of_torch)  # torch keeps the number by thread

    def _decoded(self, data: bytes | OSError) -> Pixels | ItemError:
        if isinstance(data, OSError):
            return ItemError("cannot_be_read", data.strerror or str(data))
        setup = self._setup
        try:
            image = open_image(data, max_pixels=setup.max_pixels)
            return to_pixels(image, self.predictor.manifest.preprocess, draft=setup.draft)
        except ImageProblem as problem:
            return ItemError(problem.code, str(problem))
        except MemoryError:
            return ItemError("out_of_memory", "there is no memory left for this image")

    def _predicted(self, pixels: Sequence[Pixels]) -> list[ItemAnswer | ItemError]:
        if not pixels:
            return []
        top_k, decode = self._setup.top_k, self.predictor.row_decoder.decode
        try:
            rows = self.predictor.predict([Item(each, top_k) for each in pixels])
        except RuntimeError as error:
            if len(pixels) > 1:  # perhaps one of them alone is to blame
                answers = [answer for each in pixels for answer in self._predicted([each])]
                if self.predictor.device.type != "cpu" and all(isinstance(each, ItemError) for each in answers):
                    raise  # the device itself fails, and would fail on all that come
                return answers
            return [ItemError("prediction_failed", str(error).partition("\n")[0])]
        return [decode(row.tolist(), top_k) for row in rows]


def read(source: Source) -> bytes | OSError:
    """Returns what a source holds, or why it cannot be read."""
    try:
        return _store(source.place).read_all(source.key) if source.key else _content(source)
    except OSError as error:
        return error
    except ValueError:
        return OSError("its name is no name of a file")


@cache
def _store(url: str) -> RemoteStore:
    return RemoteStore(url)


def _content(source: Source) -> bytes:
    """Returns what a file of this machine holds, or a part of it. Raises: OSError."""
    path = Path(source.place)
    status = path.stat()
    if not stat.S_ISREG(status.st_mode):  # to open a pipe would wait for somebody who writes
        raise OSError("it is no file")
    size = status.st_size if source.size < 0 else source.size
    if size > _MOST_BYTES:
        raise OSError(f"it has {size:,} bytes, and an image may have {_MOST_BYTES:,}")
    with path.open("rb") as file:
        file.seek(source.offset)
        data = file.read(size)
    if len(data) != size:
        raise OSError("it was cut off")
    return data
