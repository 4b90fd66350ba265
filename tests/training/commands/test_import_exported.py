"""A .pt2 file is published as a server takes it, and nothing of it is run."""

import io
import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from rich.console import Console
from torch import nn

from app.inference.verification import verify
from classifier.checkpoint import Checkpoint
from classifier.manifest import Calibration, OutOfDistribution
from classifier.normalize import normalizer
from classifier.progress import Progress
from tests.support.checkpoints import DIGITS
from tests.support.exports import Meshes, Small, saved, seeded, write
from training.__main__ import main
from training.commands.import_exported import GOOD_FILE, GOOD_FILE_OF_SIMPLE_OPERATORS, import_exported
from training.commands.import_weights import import_weights
from training.errors import TrainingError
from training.publishing import sidecar

pytestmark = pytest.mark.slow  # torch.export takes a second

LABELS = ("ants", "bees", "wasps")


def _said_of(path: Path, **options: Any) -> tuple[Path, list[str]]:
    """The version that is published of a file, and what was said meanwhile."""
    console = Console(file=io.StringIO(), width=500)
    given = {"labels": LABELS} | options
    published = import_exported(path, store=path.parent / "store", progress=Progress(console), **given)
    assert isinstance(console.file, io.StringIO)
    return published, console.file.getvalue().splitlines()


def test_a_file_as_people_save_it_is_published_and_a_server_takes_it(tmp_path: Path) -> None:
    network = seeded(Small)
    published, said = _said_of(write(tmp_path, saved(network)), settings=["preprocess.mean=[0.5]"])
    assert published == tmp_path / "store" / "model" / "1.safetensors"
    (guessed,) = said
    assert guessed == (
        "model.pt2: does not say how its images were prepared. Guessed, as is usual for images of 12x12x1: mode=L, "
        "resize=[12, 12], std=[0.3081], interpolation=bilinear, background=128. --set preprocess.KEY=VALUE or "
        "--preprocess-from CHECKPOINT says it"
    )
    predictor = verify(published, device=torch.device("cpu"), max_items=4)
    manifest = predictor.manifest
    assert (manifest.format, manifest.labels, manifest.architecture) == (2, LABELS, "exported:model")
    assert (manifest.preprocess.shape, manifest.preprocess.ink_on_paper) == ((12, 12, 1), False)
    assert manifest.program is not None
    assert manifest.program.torch == torch.__version__
    assert manifest.imported is not None
    assert manifest.imported.sha256 == sidecar.sha256_of(tmp_path / "model.pt2")
    pixels = manifest.preprocess.to_pixels(Image.linear_gradient("L"))
    normalize = normalizer(manifest.preprocess, device=torch.device("cpu"))
    with torch.inference_mode():
        expected = network(normalize(torch.from_numpy(pixels.copy())[None]))
    assert torch.allclose(predictor.logits([pixels]), expected, atol=1e-4)


def test_constants_that_would_take_all_memory_are_refused_before_they_are_computed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Huge(Small):
        def forward(self, x: torch.Tensor) -> Any:
            return self.fc(self.features(x)) + torch.zeros(1 << 30).sum()

    computed: list[object] = []
    monkeypatch.setattr("training.commands.import_exported.with_logits", lambda *given: computed.append(given))
    with pytest.raises(TrainingError, match="the program is too large"):
        _said_of(write(tmp_path, saved(seeded(Huge))))
    assert not computed


def test_a_log_softmax_is_taken_off_with_a_word(tmp_path: Path) -> None:
    class LogSoftmax(Small):
        def forward(self, x: torch.Tensor) -> Any:
            return F.log_softmax(self.fc(self.features(x)), dim=1)

    published, said = _said_of(write(tmp_path, saved(seeded(LogSoftmax))))
    assert said[1].startswith("model.pt2: left out the log_softmax at its end")
    assert "log_softmax.int" not in (Checkpoint.load(published).manifest.program or said).operators  # type: ignore[union-attr]


def test_what_lies_beside_the_file_is_taken(tmp_path: Path) -> None:
    path = write(tmp_path, saved(seeded(Small)))
    said = sidecar.Sidecar(
        architecture="mine",
        labels=LABELS,
        preprocess=DIGITS.model_copy(update={"resize": (12, 12)}),
        calibration=Calibration(temperature=2.0),
        out_of_distribution=OutOfDistribution(method="energy", threshold=1.0),
        sha256=sidecar.sha256_of(path),
    )
    sidecar.write(path, said)
    published, lines = _said_of(path, labels=None, name="again")
    manifest = Checkpoint.load(published).manifest
    assert (manifest.model, manifest.architecture, manifest.labels) == ("again", "mine", LABELS)
    assert (manifest.calibration, manifest.out_of_distribution) == (said.calibration, said.out_of_distribution)
    assert (manifest.preprocess, lines) == (said.preprocess, [])
    other, lines = _said_of(path, settings=["preprocess.mean=[0.5]"])
    manifest = Checkpoint.load(other).manifest
    assert (manifest.calibration, manifest.out_of_distribution) == (None, None)
    assert any("left out the temperature and the threshold for strange images" in line for line in lines)


def test_what_does_not_fit_is_refused_and_leaves_nothing_in_the_store(tmp_path: Path) -> None:
    path = write(tmp_path, saved(seeded(Small)))
    with pytest.raises(TrainingError, match=r"model\.pt2 does not say what its classes are called: --labels is needed"):
        _said_of(path, labels=None)
    with pytest.raises(TrainingError, match=r"makes \[64, 3\] of .*, where \[64, 2\] .*\(2 labels were given\)"):
        _said_of(path, labels=LABELS[:2])
    with pytest.raises(
        TrainingError, match=r"takes images of 12x12x1, and the preprocess makes some of 28x28x1: say by"
    ):
        _said_of(path, preprocess=DIGITS)
    with pytest.raises(TrainingError, match="--name 'Not A Name'"):
        _said_of(path, name="Not A Name")
    (tmp_path / "empty").mkdir()
    with pytest.raises(TrainingError, match="there is no image in"):
        _said_of(path, examples=tmp_path / "empty")
    assert not (tmp_path / "store").exists()


def test_a_file_that_cannot_be_used_is_refused_with_the_line_that_makes_a_good_one(tmp_path: Path) -> None:
    path = write(tmp_path, saved(seeded(Small), dynamic=False))
    with pytest.raises(TrainingError, match=r"its first dimension is not dynamic\. A good file is made by") as refusal:
        _said_of(path)
    assert str(refusal.value).endswith(GOOD_FILE)
    with pytest.raises(TrainingError, match="it uses meshgrid") as refusal:
        _said_of(write(tmp_path, saved(seeded(Meshes))))
    assert str(refusal.value).endswith(GOOD_FILE_OF_SIMPLE_OPERATORS)
    torch.save(seeded(Small).state_dict(), path)
    with pytest.raises(
        TrainingError, match=r"it holds weights as torch\.save wrote them: import it without --exported"
    ):
        _said_of(path)


def test_the_line_that_makes_a_good_file_makes_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    net = nn.Sequential(
        nn.Conv2d(3, 4, 16, 16), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)
    )
    exec(GOOD_FILE, {"torch": torch, "net": net})  # noqa: S102  our own line
    published, said = _said_of(tmp_path / "model.pt2")
    assert Checkpoint.load(published).manifest.preprocess.shape == (224, 224, 3)
    assert "resize=256, crop=[224, 224]" in said[0]


def test_logits_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    class Log(Small):
        def forward(self, x: torch.Tensor) -> Any:
            return (self.fc(self.features(x)) - 99).log()

    with pytest.raises(TrainingError, match="its logits of the example images are not finite"):
        _said_of(write(tmp_path, saved(seeded(Log))))


def test_the_command_publishes_and_says_what_is_wrong_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path, saved(seeded(Small)))
    (tmp_path / "labels.json").write_text(json.dumps(LABELS))
    command = ["import", "--exported", str(path), "--labels", str(tmp_path / "labels.json"), "--store", str(tmp_path)]
    assert main(command) == 0
    assert (tmp_path / "model" / "1.safetensors").is_file()
    capsys.readouterr()
    assert main([*command, "--weights", "ema"]) == 2
    assert "--weights: --exported brings its own" in capsys.readouterr().err
    assert main(["import", "--exported", str(tmp_path / "none.pt2")]) == 2
    assert capsys.readouterr().err == f"python -m training: No such file or directory ({tmp_path / 'none.pt2'})\n"


def test_who_forgets_the_flag_is_told(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"model\.pt2 is an exported program: name it by --exported"):
        import_weights(write(tmp_path, saved(seeded(Small))), labels=LABELS, store=tmp_path / "store")
