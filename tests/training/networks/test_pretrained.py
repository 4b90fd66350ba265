"""torchvision's own weights, from files of their names in a cache: loaded, named, labelled; what if there are none."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import models

from classifier.architectures import known, load_weights, meta_network
from classifier.manifest import Manifest
from classifier.normalize import normalizer
from tests.support import hub
from tests.support.images import noise
from training.errors import TrainingError
from training.networks.pretrained import preprocess_of, pretrained
from training.networks.spec import NetworkSpec


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty one, and no network."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    return tmp_path / "hub" / "checkpoints"


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["shufflenet_v2_x0_5", "mobilenet_v3_small", "mnasnet0_5"])
def test_an_image_gets_the_logits_that_it_gets_by_torchvisions_own_loading_and_transform(architecture: str) -> None:
    hub.cache(architecture, hub.random_weights(meta_network(architecture, 1000)))
    ours = pretrained(NetworkSpec(architecture))
    weights = models.get_model_weights(architecture).DEFAULT
    image = Image.fromarray(noise(300, 260))
    theirs = models.get_model(architecture, weights=weights).eval()
    network = meta_network(architecture, 1000).eval()
    load_weights(network, ours.weights, share=True)
    pixels = torch.from_numpy(np.stack([ours.preprocess.to_pixels(image)]))
    with torch.inference_mode():
        expected = theirs(weights.transforms()(image)[None])
        logits = network(normalizer(ours.preprocess, device=torch.device("cpu"))(pixels).contiguous())
    assert (logits - expected).abs().max() < 1e-4 * expected.abs().max()
    assert ours.name == str(weights)
    assert ours.architecture == architecture
    assert ours.file.is_file()


@pytest.mark.slow
def test_what_the_file_has_more_or_less_than_the_network_is_put_right() -> None:
    with torch.device("meta"):
        whole = models.get_model("googlenet", weights=None, aux_logits=True, init_weights=False)
    weights = hub.random_weights(whole)
    hub.cache("googlenet", {name: t for name, t in weights.items() if not name.endswith("num_batches_tracked")})
    assert pretrained(NetworkSpec("googlenet")).weights.keys() == meta_network("googlenet", 1000).state_dict().keys()


@pytest.mark.slow
def test_alexnet_with_another_head_begins_with_alexnets_weights() -> None:
    whole = hub.random_weights(meta_network("alexnet", 1000))
    hub.cache("alexnet", whole)
    for architecture in ("alexnet_transfer", "alexnet_finetune"):
        ours = pretrained(NetworkSpec(architecture))
        assert (ours.architecture, ours.name) == ("alexnet", "AlexNet_Weights.IMAGENET1K_V1")
        assert ours.weights.keys() == whole.keys()


def test_labels_are_imagenets_and_differ_as_a_manifest_wants() -> None:
    hub.cache("shufflenet_v2_x0_5", hub.random_weights(meta_network("shufflenet_v2_x0_5", 1000)))
    ours = pretrained(NetworkSpec("shufflenet_v2_x0_5"))
    assert ours.labels is not None
    assert ours.labels[:2] == ("tench", "goldfish")
    assert ours.labels[134] == "crane bird"  # ImageNet's own list has two cranes and two maillots
    Manifest(model="m", architecture=ours.architecture, labels=ours.labels, preprocess=ours.preprocess)
    for architecture in models.list_models(module=models):
        assert tuple(models.get_model_weights(architecture).DEFAULT.meta["categories"]) == ours.labels


def test_every_architecture_of_torchvisions_has_a_preprocess() -> None:
    for architecture in known():
        preprocess = preprocess_of(architecture)
        if architecture == "mnist_cnn":
            assert preprocess is None
        else:
            assert preprocess is not None
            height, width, channels = preprocess.shape
            assert height == width >= 224
            assert channels == 3


@pytest.mark.parametrize("architecture", ["vit_b_16", "vit_b_32", "vit_h_14", "vit_l_16", "vit_l_32"])
def test_vision_transformers_get_the_weights_for_the_image_size_they_are_built_for(architecture: str) -> None:
    preprocess = preprocess_of(architecture)
    assert preprocess is not None
    edge = vars(meta_network(architecture, 2))["image_size"]
    assert preprocess.shape == (edge, edge, 3)  # the default of vit_h_14 is for 518x518


def test_the_preprocess_is_that_of_the_default_weights() -> None:
    preprocess = preprocess_of("efficientnet_b1")
    assert preprocess is not None
    assert preprocess.model_dump(include={"mode", "resize", "crop", "interpolation", "resizing"}) == {
        "mode": "RGB",
        "resize": 255,
        "crop": (240, 240),
        "interpolation": "bilinear",
        "resizing": "exact",
    }
    assert preprocess_of("alexnet_transfer") == preprocess_of("alexnet_finetune") == preprocess_of("alexnet")


def _refusal(architecture: str) -> str:
    with pytest.raises(TrainingError) as caught:
        pretrained(NetworkSpec(architecture))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_a_network_it_says_which_file_goes_where(cache: Path) -> None:
    message = _refusal("alexnet_transfer")
    assert message.startswith("https://download.pytorch.org/models/alexnet-owt-7be5be79.pth cannot be downloaded: ")
    assert message.endswith(
        f"; put alexnet-owt-7be5be79.pth into {cache}, or start from a checkpoint of your own (--from)"
    )
    assert not list(cache.iterdir())


@pytest.mark.slow
def test_a_damaged_file_in_the_cache_is_named(cache: Path) -> None:
    path = hub.cache("resnet18", hub.random_weights(meta_network("resnet18", 1000)))
    path.write_bytes(path.read_bytes()[:-5000])
    message = _refusal("resnet18")
    assert message.startswith(f"{path} cannot be read: ")
    assert message.endswith("; remove it, and it will be downloaded again")


@pytest.mark.slow
def test_a_file_of_another_networks_weights_is_refused() -> None:
    hub.cache("resnet18", hub.random_weights(meta_network("resnet34", 1000)))
    assert "the weights do not fit resnet18" in _refusal("resnet18")


def test_what_torchvision_has_no_weights_for_is_refused() -> None:
    assert (
        _refusal("mnist_cnn")
        == "torchvision has no weights for mnist_cnn: start from a checkpoint of your own (--from)"
    )
    assert "did you mean resnet50" in _refusal("resnet_50")
    with pytest.raises(TrainingError, match="did you mean resnet50"):
        preprocess_of("resnet_50")
