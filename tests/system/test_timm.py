"""Networks of timm from end to end: a command trains and publishes one; a server that has no timm answers."""

import sys
from pathlib import Path

import pytest
import safetensors.torch
from starlette.testclient import TestClient

from app.api.application import create_app
from app.inference.local_engine import LocalEngine
from app.settings import Settings
from app.telemetry.metrics import Metrics
from classifier.checkpoint import Checkpoint
from classifier.header import Header
from tests.support import timm_cache
from tests.support.photo_files import write_folder
from training.__main__ import main

pytestmark = pytest.mark.usefixtures("one_thread", "torch_as_it_was")

# Too small to be good, so that a run takes seconds.
CONVNEXT = ("depths=[1,1,1,1]", "dims=[8,16,24,32]")
VIT = ("depth=1", "embed_dim=48")
SWIN = ("embed_dim=16", "depths=[1,1,1,1]", "num_heads=[1,2,2,2]")


@pytest.fixture(autouse=True, scope="module")
def _timm() -> None:
    pytest.importorskip("timm", reason="timm is not installed: pip install 'flambeau[timm]'")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "insects", ants=10, bees=10)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty one, and a hub that is not asked."""
    from huggingface_hub import constants

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)


def folders(tmp_path: Path) -> list[str]:
    return ["--store", str(tmp_path / "store"), "--runs", str(tmp_path / "runs"), "--device", "cpu", "--no-pictures"]


def trained(photos: Path, tmp_path: Path, recipe: str, size: int, *settings: str) -> Path:
    """The published version after one epoch."""
    small = (f"preprocess.resize={size}", f"preprocess.crop=[{size},{size}]", *settings)
    words = [word for setting in small for word in ("--set", setting)]
    command = ["photos", str(photos), "--recipe", recipe, "--epochs", "1", "--batch-size", "4", "--workers", "0"]
    assert main([*command, *words, *folders(tmp_path)]) == 0
    return tmp_path / "store" / "insects" / "1.safetensors"


def labels_answered(store: Path, photo: Path, monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """What a server in this process, where timm cannot be imported, calls the classes of a photo."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "timm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "timm", None)
    settings, metrics = Settings(store=store, device="cpu"), Metrics()
    engine = LocalEngine(settings, metrics, owns_loop=True)
    with TestClient(create_app(engine, settings, metrics).asgi) as client:
        assert client.portal is not None
        assert client.portal.call(engine.started).ready
        answer = client.post("/predict", files={"file": photo.read_bytes()})
        assert answer.status_code == 200, answer.text
        return {row["label"] for row in answer.json()["predictions"]}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "options"),
    [
        ("convnext_atto", 32, CONVNEXT),
        ("vit_tiny_patch16_224", 32, VIT),
        ("test_efficientnet", 32, ()),
        ("mobilenetv4_conv_small_035", 32, ()),
        ("swin_tiny_patch4_window7_224", 64, SWIN),
    ],
)
def test_a_network_is_trained_from_scratch_published_and_served_without_timm(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, size: int, options: tuple[str, ...]
) -> None:
    path = trained(photos, tmp_path, f"scratch:timm/{name}", size, *(f"network.{option}" for option in options))
    manifest = Checkpoint.load(path).manifest
    assert (manifest.architecture, manifest.format) == (f"timm/{name}", 2)
    assert manifest.program is not None
    assert manifest.provenance is not None
    assert "timm" in manifest.provenance.versions
    assert labels_answered(tmp_path / "store", next(photos.glob("bees/*")), monkeypatch) == {"ants", "bees"}


@pytest.mark.slow
def test_transfer_trains_a_head_on_pretrained_features(photos: Path, tmp_path: Path) -> None:
    file = timm_cache.cache("timm/test_resnet")
    path = trained(photos, tmp_path, "transfer:timm/test_resnet", 64)
    before, after = safetensors.torch.load_file(file), Checkpoint.load(path).network
    assert {name for name in after if name not in before or not before[name].equal(after[name])} == {
        "fc.weight",
        "fc.bias",
    }
    provenance = Header.read(path).manifest.provenance
    assert provenance is not None
    assert provenance.parent == "timm test_resnet.r160_in1k"


@pytest.mark.slow
def test_pretrained_weights_are_published_with_the_labels_of_imagenet(tmp_path: Path) -> None:
    timm_cache.cache("timm/test_vit")
    assert main(["import", "--pretrained", "timm/test_vit", "--store", str(tmp_path / "store")]) == 0
    manifest = Checkpoint.load(tmp_path / "store" / "test_vit" / "1.safetensors").manifest
    assert manifest.labels[:2] == ("tench, Tinca tinca", "goldfish, Carassius auratus")
    assert manifest.imported is not None
    assert manifest.imported.source == "timm test_vit.r160_in1k"


@pytest.mark.slow
def test_weights_in_a_file_are_published(tmp_path: Path) -> None:
    file = timm_cache.cache("timm/test_resnet")
    labels = tmp_path / "labels.txt"
    labels.write_text("\n".join(map(str, range(1000))))
    command = ["import", str(file), "--architecture", "timm/test_resnet", "--labels", str(labels)]
    assert main([*command, "--store", str(tmp_path / "store"), "--name", "mine"]) == 0
    manifest = Header.read(tmp_path / "store" / "mine" / "1.safetensors").manifest
    assert (manifest.architecture, manifest.format) == ("timm/test_resnet", 2)


def refusal(capsys: pytest.CaptureFixture[str], tmp_path: Path, *arguments: str) -> str:
    """The one line on stderr of a command that publishes nothing."""
    assert main([*arguments, "--store", str(tmp_path / "store")]) == 2
    assert not list((tmp_path / "store").rglob("*.safetensors"))
    line = capsys.readouterr().err
    assert line.count("\n") == 1
    return line.removeprefix("python -m training: ").rstrip("\n")


def test_a_misspelt_name_is_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path, photos: Path) -> None:
    for arguments in (
        ("photos", str(photos), "--recipe", "scratch:timm/resnt18"),
        ("import", "--pretrained", "timm/resnt18"),
    ):
        assert "no network 'resnt18': did you mean timm/resnet18" in refusal(capsys, tmp_path, *arguments)


def test_a_missing_timm_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    for arguments in (
        ("photos", str(photos), "--recipe", "transfer:timm/resnet18"),
        ("import", "--pretrained", "timm/resnet18"),
    ):
        assert refusal(capsys, tmp_path, *arguments) == "timm is not installed: pip install 'flambeau[timm]'"


@pytest.mark.slow
def test_weights_that_are_not_at_hand_are_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, photos: Path
) -> None:
    for arguments in (
        (
            "photos",
            str(photos),
            "--recipe",
            "transfer:timm/test_vit",
            "--runs",
            str(tmp_path / "runs"),
            "--workers",
            "0",
        ),
        ("import", "--pretrained", "timm/test_vit"),
    ):
        message = refusal(capsys, tmp_path, *arguments)
        assert message.startswith("the weights test_vit.r160_in1k cannot be downloaded: ")
        assert f"put it at {tmp_path}" in message


def test_weights_for_another_number_of_classes_are_one_line(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    file = timm_cache.cache("timm/test_resnet")
    labels = tmp_path / "labels.txt"
    labels.write_text("ants\nbees\n")
    command = ("import", str(file), "--architecture", "timm/test_resnet", "--labels", str(labels))
    assert refusal(capsys, tmp_path, *command) == "the network in the file has 1000 classes, 2 labels were given"


def test_labels_are_named_exactly_where_the_weights_bring_none(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    labels = tmp_path / "labels.txt"
    labels.write_text("ants\nbees\n")
    clip = ("import", "--pretrained", "timm/vit_base_patch16_clip_224.openai")
    nothing = "the 512 outputs of timm/vit_base_patch16_clip_224.openai are no classes of ImageNet: "
    assert refusal(capsys, tmp_path, *clip) == f"{nothing}--labels has to name them"
    assert refusal(capsys, tmp_path, *clip, "--labels", str(labels)) == f"{nothing}--labels names 2"
    own = ("import", "--pretrained", "timm/test_vit", "--labels", str(labels))
    assert refusal(capsys, tmp_path, *own) == "--labels: timm/test_vit brings those of ImageNet"
    backbone = ("import", "--pretrained", "timm/vit_small_patch14_dinov2")
    assert "have no head: train one by --recipe transfer:timm/vit_small_patch14_dinov2" in refusal(
        capsys, tmp_path, *backbone
    )


@pytest.mark.slow
def test_a_size_that_the_network_refuses_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, photos: Path
) -> None:
    size = ("--set", "preprocess.resize=70", "--set", "preprocess.crop=[70,70]", "--workers", "0")
    command = ("photos", str(photos), "--recipe", "scratch:timm/test_vit", "--runs", str(tmp_path / "runs"), *size)
    assert "test_vit cannot take images of 70x70x3 (" in refusal(capsys, tmp_path, *command)


def test_a_network_that_is_no_classifier_is_one_line(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, photos: Path
) -> None:
    command = ("photos", str(photos), "--recipe", "scratch:timm/qwen3_vit_88m_enc")
    assert "is no classifier: nothing in it depends on how many classes there are" in refusal(
        capsys, tmp_path, *command
    )
