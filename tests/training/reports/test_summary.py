"""What a run tells people at its end: a picture that cannot be drawn is one line, for the version is published."""

import errno
import io
from pathlib import Path

import pytest
import torch
from rich.console import Console

from classifier.progress import Progress
from tests.support.checkpoints import checkpoint
from tests.training.evaluation.test_metrics import sampled
from training.data.batches import InMemorySplit
from training.evaluation.measure import Measured
from training.evaluation.metrics import EvaluationMetrics
from training.reports import summary


def drawn(folder: Path) -> list[str]:
    """What a person is told."""
    logits, targets = sampled(50, 10)
    measured = Measured("test", logits, targets, EvaluationMetrics.of(logits, targets, temperature=1.0))
    said = io.StringIO()
    summary.draw(
        folder,
        checkpoint().manifest,
        measured,
        InMemorySplit(torch.zeros(50, 28, 28, 1, dtype=torch.uint8), targets),
        progress=Progress(Console(file=said, width=300)),
    )
    return said.getvalue().splitlines()


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), "could not be written to {}: No space left on device"),
        (ValueError("a font\nis broken"), "could not be drawn: ValueError: a font is broken"),
        (RuntimeError(), "could not be drawn: RuntimeError"),
    ],
)
def test_whatever_goes_wrong_with_a_picture_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr("PIL.ImageFont.truetype", fail)
    assert drawn(tmp_path) == [f"the pictures {told.format(tmp_path)}"]
