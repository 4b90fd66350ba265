"""A spec names a network, whoever has written it, and makes it."""

from pathlib import Path

import pytest
import torch

from classifier.manifest import Manifest
from tests.support.checkpoints import checkpoint
from tests.support.own_code import SMALL
from training.errors import TrainingError
from training.networks import own_code
from training.networks.spec import NetworkSpec
from training.recipes.dataset_table import DIGIT


@pytest.fixture
def small(tmp_path: Path) -> NetworkSpec:
    (tmp_path / "my_net.py").write_text(SMALL)
    return NetworkSpec.of(own_code.load(f"{tmp_path}/my_net.py:Small").architecture, DIGIT, {"width": 6})


def test_own_code_is_built_with_the_shape_of_the_images_and_the_options(small: NetworkSpec) -> None:
    assert not small.is_built_in
    assert str(small) == "my_net.py:Small"
    assert small.shape == (1, 28, 28)
    network = small.build(3)
    assert network.state_dict()["body.0.weight"].shape == (6, 1, 5, 5)
    assert network(torch.zeros(2, 1, 28, 28)).shape == (2, 3)
    assert small.meta(4).state_dict()["fc.weight"].shape == (4, 54)
    assert small.code is own_code.known("my_net.py:Small")


def test_a_built_in_network_is_no_code_of_a_person_s(small: NetworkSpec) -> None:
    built_in = NetworkSpec("mnist_cnn")
    assert built_in.is_built_in
    assert built_in.code is None
    built_in.check()


def test_a_built_in_network_takes_no_options() -> None:
    with pytest.raises(TrainingError, match=r"network\.width: mnist_cnn takes no such values"):
        NetworkSpec.of("mnist_cnn", DIGIT, {"width": 3}).check()


def test_options_are_checked_before_anything_is_built(small: NetworkSpec) -> None:
    small.check()
    with pytest.raises(TrainingError, match=r"network\.depth: .*my_net\.py:5: my_net\.py:Small takes num_c"):
        NetworkSpec.of("my_net.py:Small", DIGIT, {"depth": 3}).check()


def test_a_manifest_without_code_is_what_it_was(small: NetworkSpec) -> None:
    manifest = checkpoint().manifest
    assert "code" not in manifest.to_json()
    code = own_code.known("my_net.py:Small").manifest()
    with_code = manifest.model_copy(update={"code": code})
    assert Manifest.model_validate_json(with_code.to_json()) == with_code
