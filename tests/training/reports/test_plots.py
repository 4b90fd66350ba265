"""The pictures of a run: they are there, whole, whatever the labels, and leave nothing behind in the process."""

import io
import subprocess
import sys
from pathlib import Path

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image

from classifier.manifest import EpochPoint
from tests.support.server import PROJECT
from tests.training.evaluation.test_metrics import sampled
from training.evaluation.metrics import EvaluationMetrics, Mistake
from training.reports.plots import confusion, curves, draw, missing, reliability

HISTORY = [
    EpochPoint(epoch=i, loss=2 / i, accuracy=1 - 0.5 / i, held_out_loss=1.8 / i, held_out_accuracy=1 - 0.4 / i)
    for i in range(1, 6)
]
LABELS = ("ant", "bee", "wasp")
MISTAKES = [(Mistake(index=0, target=0, predicted=1, confidence=0.9), np.zeros((28, 28, 1), np.uint8))]


def measured(classes: int, samples: int = 500) -> EvaluationMetrics:
    return EvaluationMetrics.of(*sampled(samples, classes), temperature=1.5)


def opened(png: bytes) -> npt.NDArray[np.uint8]:
    """[height, width, 3]."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGB"))


@pytest.mark.slow
def test_a_run_gets_four_pictures(tmp_path: Path) -> None:
    paths = draw(tmp_path / "run", history=HISTORY, evaluation=measured(3), labels=LABELS, mistakes=MISTAKES)
    names = ["confusion.png", "curves.png", "mistakes.png", "reliability.png"]
    assert [path.name for path in paths] == names
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == names  # no temporary file is left
    for path in paths:
        with Image.open(path) as image:
            image.load()
            assert image.format == "PNG"
            assert image.width == pytest.approx(1600, abs=10)


@pytest.mark.slow
def test_without_a_history_there_are_no_curves(tmp_path: Path) -> None:
    paths = draw(tmp_path, history=[], evaluation=measured(3), labels=LABELS, mistakes=[])
    assert [path.name for path in paths] == ["confusion.png", "mistakes.png", "reliability.png"]


@pytest.mark.slow
def test_without_matplotlib_the_contact_sheet_is_there_and_the_message_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert missing() is None
    for name in [name for name in sys.modules if name.partition(".")[0] == "matplotlib"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)  # as where it is not installed
    assert "pip install 'flambeau[pictures]'" in (missing() or "")
    paths = draw(tmp_path, history=HISTORY, evaluation=measured(3), labels=LABELS, mistakes=MISTAKES)
    assert paths == [tmp_path / "mistakes.png"]


@pytest.mark.slow
def test_matplotlib_is_imported_when_something_is_drawn_and_pyplot_and_windows_never() -> None:
    script = """
import sys
from training.reports.plots import confusion
from tests.training.reports.test_plots import measured
confusion(measured(3), ("a", "b", "c"))
print("matplotlib.pyplot" in sys.modules, "tkinter" in sys.modules)
"""
    alone = "import sys, training.reports.plots; print('matplotlib' in sys.modules)"
    for code, expected in ((script, "False False"), (alone, "False")):
        command = [sys.executable, "-W", "error", "-c", code]
        answer = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=True)
        assert answer.stdout.strip() == expected


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 10, 20, 21, 40, 41, 200, 201, 1000])
def test_a_confusion_matrix_of_any_number_of_classes_can_be_drawn(classes: int) -> None:
    drawn = opened(confusion(measured(classes), [f"the class no. {i}" for i in range(classes)]))
    assert drawn.shape[1] == 1600
    assert white_edges(drawn)


@pytest.mark.slow
@pytest.mark.parametrize("classes", [2, 15, 30, 60])
def test_labels_of_any_script_and_length_can_be_drawn_without_a_warning(classes: int) -> None:
    odd = ["猫", "$x^2", "$\\frac{1}$", "W" * 256, "\ud800", "\n", "قطة", "a_b", "🐈", "%d", "Katze ü", "{}", "\x00"]
    labels = [odd[i % len(odd)] for i in range(classes)]
    assert white_edges(opened(confusion(measured(classes), labels)))


def white_edges(drawn: npt.NDArray[np.uint8]) -> bool:
    """Nothing is cut off."""
    return all((edge == 255).all() for edge in (drawn[:4], drawn[-4:], drawn[:, :4], drawn[:, -4:]))


@pytest.mark.slow
def test_one_rare_confusion_among_1000_classes_can_be_seen() -> None:
    counts = 50 * torch.eye(1000, dtype=torch.int64)
    other = counts.clone()
    other[700, 700] -= 1
    other[700, 200] += 1
    drawn = [opened(confusion(with_counts(one), [str(i) for i in range(1000)])) for one in (counts, other)]
    matrix = slice(200, 1200)  # rows: above the list, below the title
    changed = np.abs(drawn[0][matrix].astype(int) - drawn[1][matrix].astype(int)).max(2)
    assert changed.max() >= 8  # of 255 levels
    rows, columns = changed.nonzero()
    assert 4 <= len(set(rows)) <= 16
    assert 4 <= len(set(columns)) <= 16
    assert columns.mean() < 800 < rows.mean() + 400  # left, and low


@pytest.mark.slow
def test_rows_are_the_true_classes() -> None:
    # All of class 0 are taken for 1: the dark cells are both in the right column.
    drawn = opened(confusion(with_counts(torch.tensor([[0, 50], [0, 50]])), ("ant", "bee"))).astype(int)
    dark = (drawn[..., 2] - drawn[..., 0] > 80).nonzero()
    assert dark[1].min() > 750
    assert np.ptp(dark[0]) > 1.8 * np.ptp(dark[1])


def with_counts(counts: torch.Tensor) -> EvaluationMetrics:
    there = measured(2)
    return EvaluationMetrics(
        accuracy=0.5,
        loss=1.0,
        per_class=(),
        confusion=counts,
        temperature=1.0,
        before=there.before,
        after=there.after,
    )


@pytest.mark.slow
@pytest.mark.parametrize("epochs", [1, 2, 31, 300])
def test_curves_of_any_length_can_be_drawn(epochs: int) -> None:
    history = [HISTORY[0].model_copy(update={"epoch": epoch}) for epoch in range(1, epochs + 1)]
    assert opened(curves(history)).shape[1] == 1600


@pytest.mark.slow
def test_the_reliability_of_one_sample_can_be_drawn() -> None:
    assert opened(reliability(measured(2, samples=1))).shape[1] == 1600


@pytest.mark.slow
def test_the_settings_of_the_process_change_nothing_and_are_not_changed() -> None:
    plain = confusion(measured(3), LABELS)
    with mpl.rc_context({"text.usetex": True, "font.size": 30, "savefig.dpi": 20, "font.family": ["no such font"]}):
        before = dict(mpl.rcParams)
        assert confusion(measured(3), LABELS) == plain
        assert dict(mpl.rcParams) == before


@pytest.mark.slow
def test_the_same_figures_make_the_same_files() -> None:
    assert confusion(measured(10), "0123456789") == confusion(measured(10), "0123456789")
    assert reliability(measured(10)) == reliability(measured(10))
    assert curves(HISTORY) == curves(HISTORY)
