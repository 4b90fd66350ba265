"""Networks of timm by their names: which there are, what shape they take, and how their images are prepared."""

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import JsonValue

from classifier.normalize import normalizer
from tests.support.images import noise
from training.errors import TrainingError
from training.networks import heads, timm_networks
from training.networks.spec import NetworkSpec

SMALL = (3, 160, 160)  # what timm's own networks for tests take


@pytest.fixture(autouse=True, scope="module")
def _timm() -> None:
    pytest.importorskip("timm", reason="timm is not installed: pip install 'flambeau[timm]'")


def refusal(architecture: str) -> str:
    with pytest.raises(TrainingError) as error:
        NetworkSpec(architecture).check()
    message = str(error.value)
    assert "\n" not in message
    return message


def test_a_network_is_made_by_its_name_with_or_without_the_tag_of_its_weights() -> None:
    for name in ("timm/test_resnet", "timm/test_resnet.r160_in1k"):
        spec = NetworkSpec(name, SMALL)
        spec.check()
        assert spec.is_timm
        assert not spec.is_built_in
        assert spec.build(3)(torch.zeros(2, *SMALL)).shape == (2, 3)


def test_a_folder_that_is_called_timm_is_a_persons_own() -> None:
    assert not NetworkSpec("timm/my_net.py:Net").is_timm


def test_the_meta_network_has_the_same_tensors_and_draws_no_random_number() -> None:
    spec = NetworkSpec("timm/test_vit", SMALL)
    before = torch.get_rng_state()
    meta = spec.meta(3).state_dict()
    assert torch.get_rng_state().equal(before)
    assert {tensor.device.type for tensor in meta.values()} == {"meta"}
    real = spec.build(3).state_dict()
    assert {name: (t.shape, t.dtype) for name, t in meta.items()} == {
        name: (t.shape, t.dtype) for name, t in real.items()
    }


@pytest.mark.parametrize(
    ("name", "shape"),
    [
        ("test_vit", (3, 96, 96)),  # has a position for each patch
        ("test_vit", (1, 96, 64)),
        ("test_convnext", (1, 64, 64)),  # takes any size, and knows no img_size
    ],
)
def test_a_network_is_made_for_the_size_and_the_channels_of_the_images(name: str, shape: tuple[int, int, int]) -> None:
    network = NetworkSpec(f"timm/{name}", shape).build(4).eval()
    assert network(torch.zeros(1, *shape)).shape == (1, 4)


def test_more_keywords_reach_timm() -> None:
    spec = NetworkSpec("timm/test_vit", SMALL, (("depth", 1),))
    assert not any(name.startswith("blocks.1.") for name in spec.meta(2).state_dict())


def test_a_keyword_or_a_size_that_timm_refuses_is_one_line() -> None:
    with pytest.raises(TrainingError, match=r"^timm cannot make test_vit for images of 160x160x3: .*'depht'"):
        NetworkSpec("timm/test_vit", SMALL, (("depht", 1),)).build(2)


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        (("num_classes", 5), "the data and the preprocess decide it"),
        (("pretrained", True), "the recipe and the name decide which weights"),
        (("checkpoint_path", "weights.pth"), "the recipe and the name decide which weights"),
        (("features_only", True), "a classifier is trained"),
    ],
)
def test_a_keyword_that_decides_what_is_decided_already_is_refused(option: tuple[str, JsonValue], reason: str) -> None:
    spec = NetworkSpec("timm/test_vit", SMALL, (option,))
    for use in (spec.check, lambda: spec.meta(2), lambda: spec.build(2)):
        with pytest.raises(TrainingError, match=f"^network.{option[0]}: {reason}.*; set other values only$"):
            use()


def test_a_misspelt_name_names_those_that_are_near() -> None:
    assert "no network 'convnext_ato': did you mean timm/convnext_atto or" in refusal("timm/convnext_ato")
    assert "no network 'hf-hub/someone/net': timm.list_models() has all" in refusal("timm/hf-hub/someone/net")


def test_an_old_name_of_timms_names_the_new_one() -> None:
    message = refusal("timm/tf_efficientnet_b0_ns")
    assert message.endswith("no network 'tf_efficientnet_b0_ns': it is called timm/tf_efficientnet_b0.ns_jft_in1k now")


def test_a_misspelt_tag_names_those_that_there_are() -> None:
    assert "no weights 'a9_in1k' of resnet18: it has a1_in1k, a2_in1k" in refusal("timm/resnet18.a9_in1k")
    assert "no weights '' of resnet18: it has a1_in1k, a2_in1k" in refusal("timm/resnet18.")


def test_a_network_that_is_no_classifier_is_refused() -> None:
    message = refusal("timm/qwen3_vit_88m_enc")
    assert message == ("timm/qwen3_vit_88m_enc is no classifier: nothing in it depends on how many classes there are")


def test_without_timm_a_line_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    assert refusal("timm/resnet18") == "timm is not installed: pip install 'flambeau[timm]'"


def test_timm_is_imported_by_nobody_until_it_is_needed() -> None:
    folder = Path(timm_networks.__file__).parents[2]
    for path in (*folder.glob("app/**/*.py"), *folder.glob("classifier/**/*.py"), *folder.glob("training/**/*.py")):
        lines = path.read_text().splitlines()
        assert not [line for line in lines if line.lstrip().startswith(("import timm", "from timm"))], path


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("test_vit", ("head",)),
        ("test_resnet", ("fc",)),
        ("test_convnext", ("head.fc",)),
        ("deit_tiny_distilled_patch16_224", ("head", "head_dist")),
        ("levit_128s", ("head.linear", "head_dist.linear")),
        ("efficientformer_l1", ("head", "head_dist")),
        ("vgg11", ("head.fc",)),
        ("crossvit_tiny_240", ("head.0", "head.1")),
        ("volo_d1_224", ("aux_head", "head")),
    ],
)
def test_the_head_is_what_depends_on_the_number_of_classes(name: str, head: tuple[str, ...]) -> None:
    spec = NetworkSpec(f"timm/{name}", tuple(timm_networks.configuration(f"timm/{name}").input_size))
    assert heads.parts(spec, "head") == head


@pytest.mark.parametrize(
    "name",
    [
        "resnet18.a1_in1k",  # bicubic, 0.95
        "regnetx_002.pycls_in1k",
        "inception_v3.tv_in1k",
        "mobilenetv4_conv_small.e2400_r224_in1k",
        "vit_base_patch16_clip_384.laion2b_ft_in12k_in1k",  # squash
        "convnext_atto.d2_in1k",
        "tf_efficientnet_b0.in1k",
        "test_vit.r160_in1k",
    ],
)
def test_pixels_and_floats_are_those_of_timms_own_transform(name: str, shared_data: Path) -> None:
    from timm.data import create_transform, resolve_data_config

    config = timm_networks.configuration(f"timm/{name}").to_dict()
    transform = create_transform(**resolve_data_config({}, pretrained_cfg=config))
    ours = timm_networks.preprocess_of(f"timm/{name}")
    images = [Image.fromarray(noise(300, 260)), Image.fromarray(noise(200, 431))]
    images += [Image.open(path).convert("RGB") for path in sorted((shared_data / "photos").iterdir())[::16]]
    for image in images:
        pixels = torch.from_numpy(np.stack([ours.to_pixels(image)]))
        floats = normalizer(ours, device=torch.device("cpu"))(pixels)[0]
        assert (floats - transform(image)).abs().max() < 1e-6


@pytest.mark.parametrize(
    ("unusual", "reason"),
    [
        ({"crop_mode": "border"}, "images of 224x224 by the crop mode border, which the server cannot do"),
        ({"input_size": (3, 96, 64)}, "images of 96x64 by the crop mode center, which the server cannot do"),
        ({"input_size": (1, 96, 96)}, "with 1 channels and interpolation bicubic, which the server cannot do"),
        ({"interpolation": "lanczos"}, "with 3 channels and interpolation lanczos, which the server cannot do"),
    ],
)
def test_a_way_to_prepare_images_that_cannot_be_said_here_is_refused(
    monkeypatch: pytest.MonkeyPatch, unusual: dict[str, object], reason: str
) -> None:
    from timm.models import PretrainedCfg

    monkeypatch.setattr(timm_networks, "configuration", lambda _: PretrainedCfg(**unusual))
    with pytest.raises(TrainingError, match=reason):
        timm_networks.preprocess_of("timm/resnet18")


def test_two_tags_of_one_network_have_the_same_tensors() -> None:
    assert timm_networks.without_tag("timm/resnet18.a1_in1k") == timm_networks.without_tag("timm/resnet18")
    assert timm_networks.without_tag("my.package:Net") == "my.package:Net"
