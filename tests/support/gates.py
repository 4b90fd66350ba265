"""A preprocessing that waits: an image is being decoded for exactly as long as a test wants."""

import threading

from PIL import Image
from pydantic import PrivateAttr

from classifier.preprocess import Pixels, Preprocess
from tests.support.checkpoints import DIGITS


class Gated(Preprocess):
    """Prepares an image once its gate is open, and counts the images that have come as far as the gate."""

    _gate: threading.Event = PrivateAttr(default_factory=threading.Event)
    _begun: threading.Semaphore = PrivateAttr(default_factory=lambda: threading.Semaphore(0))

    def to_pixels(self, image: Image.Image) -> Pixels:
        self._begun.release()
        assert self._gate.wait(60)
        return super().to_pixels(image)


def gated() -> tuple[Gated, threading.Event, threading.Semaphore]:
    preprocess = Gated(**DIGITS.model_dump())
    return preprocess, preprocess._gate, preprocess._begun
