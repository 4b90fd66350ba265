"""Writes a run's curves and pictures for TensorBoard, where it is installed. `log.jsonl` stays the truth."""

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from PIL import Image

from classifier.progress import Progress
from training.errors import type_and_line

FOLDER = "tensorboard"  # in the run's folder
_PICTURES = ("confusion", "confused", "mistakes", "reliability")
# By a name in the log: what TensorBoard calls it. What is before the slash shares a row of charts.
_CURVES = {
    "loss": "loss/training",
    "held_out_loss": "loss/held out",
    "accuracy": "accuracy/training",
    "held_out_accuracy": "accuracy/held out",
    "images_per_second": "pace/images per second",
}


class EventFiles:
    """Writes what TensorBoard shows of a run, or nothing if it is not installed.

    What goes wrong here is said once, in a line, and raises nothing: nobody trains for the sake of these files.
    """

    def __init__(self, folder: Path, progress: Progress, *, after: int = 0) -> None:
        """Begins.

        Args:
            folder: the run's.
            after: the epochs that are kept of an earlier process. 0: it is a new run, and older files are removed.
        """
        self._folder = folder / FOLDER
        self._progress = progress
        self._after = after
        self._writer: Any = None
        self._works = importlib.util.find_spec("tensorboard") is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._writer is not None:
            self._try(self._writer.close)

    def add_epoch(self, record: Mapping[str, float]) -> None:
        """Adds the record of an epoch, as `log.jsonl` has it."""
        self._try(self._add_epoch, record)

    def add_pictures(self, folder: Path, epoch: int) -> None:
        """Adds the pictures in a run's folder.

        Args:
            epoch: that they are of.
        """
        self._try(self._add_pictures, folder, epoch)

    def _try(self, write: Any, *arguments: Any) -> None:
        if not self._works:
            return
        try:
            write(*arguments)
        except Exception as error:  # noqa: BLE001  a full disk, or whatever a library raises
            self._works = False
            self._progress.say(f"the files for TensorBoard could not be written: {type_and_line(error)}")

    def _open(self) -> Any:
        if self._writer is None:
            # Here, not above: it is an extra.
            from torch.utils.tensorboard import SummaryWriter

            if not self._after:
                for old in self._folder.glob("events.out.tfevents.*"):
                    old.unlink()
            self._writer = SummaryWriter(str(self._folder), purge_step=self._after + 1 if self._after else None)
        return self._writer

    def _add_epoch(self, record: Mapping[str, float]) -> None:
        writer = self._open()
        for name, title in _CURVES.items():
            writer.add_scalar(title, record[name], int(record["epoch"]))
        writer.flush()

    def _add_pictures(self, folder: Path, epoch: int) -> None:
        writer = self._open()
        for name in _PICTURES:
            if (folder / f"{name}.png").is_file():
                with Image.open(folder / f"{name}.png") as picture:
                    writer.add_image(name, np.asarray(picture.convert("RGB")), epoch, dataformats="HWC")
        writer.flush()
