"""Pretrained weights are published with their labels and their preprocess."""

import hashlib
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision import models

from app.inference.verification import verify
from classifier.architectures import meta_network
from tests.support import hub
from tests.support.images import noise
from training.commands.import_pretrained import import_pretrained
from training.errors import TrainingError
from training.networks.pretrained import preprocess_of


@pytest.mark.slow
def test_torchvisions_weights_are_published_with_their_labels_and_preprocess(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    file = hub.cache("shufflenet_v2_x0_5", hub.random_weights(meta_network("shufflenet_v2_x0_5", 1000)))
    published = import_pretrained("shufflenet_v2_x0_5", store=tmp_path / "store")
    assert published == tmp_path / "store" / "shufflenet_v2_x0_5" / "1.safetensors"
    predictor = verify(published, device=torch.device("cpu"), max_items=2)
    assert predictor.manifest.labels[:2] == ("tench", "goldfish")
    assert predictor.manifest.preprocess == preprocess_of("shufflenet_v2_x0_5")
    assert predictor.manifest.imported is not None
    assert predictor.manifest.imported.source == "torchvision ShuffleNet_V2_X0_5_Weights.IMAGENET1K_V1"
    assert predictor.manifest.imported.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    # What the server answers is what torchvision itself would say.
    weights = models.ShuffleNet_V2_X0_5_Weights.DEFAULT
    image = Image.fromarray(noise(250, 320))
    network = models.get_model("shufflenet_v2_x0_5", weights=weights).eval()
    with torch.inference_mode():
        expected = network(weights.transforms()(image)[None])
    logits = predictor.logits([predictor.manifest.preprocess.to_pixels(image)])
    assert (logits - expected).abs().max() < 1e-4 * expected.abs().max()


def test_a_head_that_nobody_has_trained_is_not_even_downloaded(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="alexnet_transfer begins with alexnet's features, but nobody has trained"):
        import_pretrained("alexnet_transfer", store=tmp_path / "store")
    assert not (tmp_path / "store").exists()
