"""timm's pretrained weights: found in a cache, adapted to the images, named, labelled; what if there are none."""

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from classifier.manifest import Manifest
from classifier.normalize import normalizer
from tests.support import timm_cache
from tests.support.images import noise
from training.errors import TrainingError
from training.networks import timm_networks, timm_weights
from training.networks.heads import head_weights, load_backbone
from training.networks.pretrained import preprocess_of, pretrained
from training.networks.spec import NetworkSpec

SMALL = (3, 160, 160)


@pytest.fixture(autouse=True, scope="module")
def _timm() -> None:
    pytest.importorskip("timm", reason="timm is not installed: pip install 'flambeau[timm]'")


@pytest.fixture(autouse=True)
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The client of the hub, with an empty cache, which reaches no network; and an empty cache of torch's."""
    import huggingface_hub
    from huggingface_hub import constants

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub cache"))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return huggingface_hub


def test_an_image_gets_the_logits_that_it_gets_by_timms_own_loading_and_transform() -> None:
    import timm
    from timm.data import create_transform, resolve_data_config

    file = timm_cache.cache("timm/test_resnet")
    theirs = timm.create_model("test_resnet", pretrained=True, pretrained_cfg_overlay={"file": str(file)}).eval()
    transform = create_transform(**resolve_data_config({}, model=theirs))
    ours = pretrained(NetworkSpec("timm/test_resnet", SMALL))
    assert (ours.library, ours.name, ours.source) == ("timm", "test_resnet.r160_in1k", "timm test_resnet.r160_in1k")
    assert (ours.architecture, ours.file) == ("timm/test_resnet", file)
    network = NetworkSpec("timm/test_resnet", SMALL).build(1000).eval()
    network.load_state_dict(ours.weights)
    image = Image.fromarray(noise(300, 260))
    pixels = torch.from_numpy(np.stack([ours.preprocess.to_pixels(image)]))
    with torch.inference_mode():
        expected = theirs(transform(image)[None])
        logits = network(normalizer(ours.preprocess, device=torch.device("cpu"))(pixels))
    assert (logits - expected).abs().max() < 1e-4 * expected.abs().max()


def test_a_file_in_the_cache_of_the_hub_is_found_without_asking_anybody(hub: Any, tmp_path: Path) -> None:
    file = timm_cache.cache("timm/test_resnet")
    folder = tmp_path / "hub cache" / "models--timm--test_resnet.r160_in1k"
    snapshot = folder / "snapshots" / ("0" * 40) / "model.safetensors"
    snapshot.parent.mkdir(parents=True)
    file.rename(snapshot)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    assert timm_weights.file_of("timm/test_resnet") == snapshot


def test_without_the_file_a_line_says_which_one_to_put_where(tmp_path: Path) -> None:
    with pytest.raises(TrainingError) as error:
        pretrained(NetworkSpec("timm/resnet18"))
    message = str(error.value)
    assert message.startswith("the weights resnet18.a1_in1k cannot be downloaded: ")
    place = tmp_path / "hub" / "checkpoints" / "resnet18.a1_in1k.safetensors"
    assert (
        f"fetch model.safetensors of timm/resnet18.a1_in1k from the Hugging Face hub and put it at {place}," in message
    )
    assert message.count("\n") == 0


def test_a_hub_that_cannot_be_reached_is_asked_once(hub: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []

    def no_answer(_: str, *, timeout: float) -> None:
        asked.append(timeout)
        raise OSError("[Errno -2] Name or service not known")

    monkeypatch.setattr(hub, "get_hf_file_metadata", no_answer)
    monkeypatch.setattr(hub, "hf_hub_download", lambda *_, **__: pytest.fail("it would ask for minutes"))
    with pytest.raises(TrainingError, match=r"cannot be downloaded: .* Name or service not known; fetch model"):
        timm_weights.file_of("timm/resnet18")
    assert len(asked) == 1
    assert asked[0] <= 10


def test_a_download_shows_no_bars_unless_somebody_looks(
    hub: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from huggingface_hub.utils import are_progress_bars_disabled

    bars: list[bool] = []

    def download(*_: Any, **__: Any) -> str:
        bars.append(not are_progress_bars_disabled())
        return str(tmp_path / "model.safetensors")

    monkeypatch.setattr(hub, "get_hf_file_metadata", lambda *_, **__: None)
    monkeypatch.setattr(hub, "hf_hub_download", download)
    for progress in (False, True):
        assert timm_weights.file_of("timm/resnet18", progress=progress) == tmp_path / "model.safetensors"
    assert bars == [False, True]
    assert not are_progress_bars_disabled()


def test_a_damaged_file_is_named() -> None:
    file = timm_cache.cache("timm/test_resnet")
    file.write_bytes(b"no weights")
    with pytest.raises(TrainingError, match=rf"^{file} cannot be read: .*; remove it"):
        pretrained(NetworkSpec("timm/test_resnet", SMALL))


def test_a_file_of_another_network_is_named() -> None:
    file = timm_cache.cache("timm/test_resnet")
    timm_cache.cache("timm/test_vit").rename(file)
    with pytest.raises(
        TrainingError, match=rf"^{file}: timm cannot make test_resnet for images of 160x160x3: "
    ) as error:
        pretrained(NetworkSpec("timm/test_resnet", SMALL))
    assert "\n" not in str(error.value)


def test_weights_that_would_have_to_be_unpickled_are_not_read() -> None:
    with pytest.raises(TrainingError, match=r"as a pickle only, at https://.*\.pth: fetch it, and import --arch"):
        timm_weights.tag_of("timm/gcvit_tiny")


def test_a_network_without_weights_says_so() -> None:
    import timm

    without = next(name for name in timm.list_models("resnet*") if not timm.is_model_pretrained(name))
    with pytest.raises(TrainingError, match=f"no pretrained weights for timm/{without}: .*scratch:timm/{without}"):
        timm_weights.tag_of(f"timm/{without}")


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 160, 160), (3, 96, 96), (1, 64, 96)])
@pytest.mark.parametrize("name", ["test_vit", "test_convnext"])
def test_weights_are_adapted_to_the_size_and_the_channels_of_the_images(name: str, shape: tuple[int, int, int]) -> None:
    timm_cache.cache(f"timm/{name}")
    spec = NetworkSpec(f"timm/{name}", shape)
    ours = pretrained(spec)
    network = spec.build(3)
    load_backbone(network, spec, ours.weights, ours.architecture)
    loaded, head = network.state_dict(), head_weights(spec)
    assert head
    assert all(loaded[key].equal(tensor) for key, tensor in ours.weights.items() if key not in head)


def test_loading_draws_no_random_number() -> None:
    timm_cache.cache("timm/test_vit")
    before = torch.get_rng_state()
    pretrained(NetworkSpec("timm/test_vit", SMALL))
    assert torch.get_rng_state().equal(before)


def test_weights_of_one_tag_fit_the_network_of_another() -> None:
    spec = NetworkSpec("timm/test_vit", SMALL)
    weights = spec.build(5).state_dict()
    network = spec.build(3)
    load_backbone(network, spec, weights, "timm/test_vit.r160_in1k")
    assert network.state_dict()["pos_embed"].equal(weights["pos_embed"])


@pytest.mark.parametrize(
    ("architecture", "count", "some"),
    [
        ("timm/resnet18", 1000, {0: "tench, Tinca tinca", 134: "crane (n02012849)", 517: "crane (n03126707)"}),
        ("timm/convnext_nano.in12k", 11821, {}),
        ("timm/beit_base_patch16_224.in22k_ft_in22k", 21841, {}),
    ],
)
def test_labels_are_imagenets_and_differ_as_a_manifest_wants(
    architecture: str, count: int, some: dict[int, str]
) -> None:
    labels = timm_weights.labels_of(architecture)
    assert labels is not None
    assert len(labels) == count == timm_weights.classes_of(architecture)
    assert {index: labels[index] for index in some} == some
    preprocess = preprocess_of(architecture)
    assert preprocess is not None
    Manifest(model="m", architecture=architecture, labels=labels, preprocess=preprocess)


def test_weights_for_other_classes_have_no_labels() -> None:
    assert timm_weights.labels_of("timm/vit_base_patch16_clip_224.openai") is None
    assert timm_weights.classes_of("timm/vit_base_patch16_clip_224.openai") == 512
    assert timm_weights.labels_of("timm/vit_small_patch14_dinov2") is None
    assert timm_weights.classes_of("timm/vit_small_patch14_dinov2") == 0


@pytest.mark.slow
def test_weights_without_a_head_are_a_backbone() -> None:
    import timm

    name = "vit_tiny_patch16_dinov3_qkvb"
    if not timm.is_model(name):
        pytest.skip(f"this version of timm has no {name}")
    options = (("depth", 1),)
    tag = timm_weights.tag_of(f"timm/{name}")
    spec = NetworkSpec(f"timm/{name}", (3, 64, 64), options)
    file = Path(os.environ["TORCH_HOME"]) / "hub" / "checkpoints" / f"{tag}.safetensors"
    file.parent.mkdir(parents=True)
    backbone = timm_networks.build(spec.architecture, 0, spec.shape, options)
    safetensors.torch.save_file(backbone.state_dict(), file)
    network = spec.build(3)
    ours = pretrained(spec)
    load_backbone(network, spec, ours.weights, ours.architecture)
    assert ours.labels is None
    assert head_weights(spec) == {"head.weight", "head.bias"}
    assert all(network.state_dict()[key].equal(tensor) for key, tensor in ours.weights.items())
