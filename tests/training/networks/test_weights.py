"""Weights of others are fitted to a network: under which names, in which types, and what is refused."""

import re
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch
from torchvision import models

from classifier.architectures import meta_network
from tests.support import hub
from training.errors import TrainingError
from training.networks.spec import NetworkSpec
from training.networks.weights import adapt_state_dict, without_wrappers

DIGITS = hub.random_weights(meta_network("mnist_cnn", 10))


def _same(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


FAMILIES = [
    *("mnist_cnn", "alexnet", "alexnet_transfer", "alexnet_finetune", "convnext_tiny", "densenet121", "googlenet"),
    *("efficientnet_b0", "efficientnet_v2_s", "inception_v3", "maxvit_t", "mnasnet0_5", "mobilenet_v2", "swin_t"),
    *("mobilenet_v3_small", "regnet_y_400mf", "resnet50", "shufflenet_v2_x0_5", "squeezenet1_0", "swin_v2_t"),
    *("vgg11_bn", "vit_b_32"),
]


@pytest.mark.slow
def test_no_architecture_has_parts_that_are_called_like_wrappers() -> None:
    parts = {part for family in FAMILIES for name in meta_network(family, 2).state_dict() for part in name.split(".")}
    assert not parts & {"module", "_orig_mod"}


def _unfit(weights: Mapping[str, torch.Tensor], architecture: str = "mnist_cnn", num_classes: int = 10) -> str:
    with pytest.raises(TrainingError) as caught:
        adapt_state_dict(weights, NetworkSpec(architecture), num_classes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_weights_that_fit_come_as_they_are() -> None:
    assert _same(adapt_state_dict(DIGITS, NetworkSpec("mnist_cnn"), 10), DIGITS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(dtype: torch.dtype) -> None:
    fitted = adapt_state_dict({name: tensor.to(dtype) for name, tensor in DIGITS.items()}, NetworkSpec("mnist_cnn"), 10)
    assert all(tensor.dtype == torch.float32 for tensor in fitted.values())
    assert _same(fitted, {name: tensor.to(dtype).float() for name, tensor in DIGITS.items()})


def test_names_that_are_missing_or_too_many_are_named_and_counted() -> None:
    weights = {name: tensor for name, tensor in DIGITS.items() if name != "fc1.bias"}
    weights |= {f"extra{i}.weight": torch.ones(1) for i in range(7)}
    assert _unfit(weights) == (
        "the weights do not fit mnist_cnn: 1 missing: 'fc1.bias'; 7 unexpected: "
        "'extra0.weight', 'extra1.weight', 'extra2.weight', 'extra3.weight', 'extra4.weight', …"
    )


@pytest.mark.parametrize("real", ["alexnet_transfer", "alexnet_finetune"])
def test_alexnets_weights_under_a_wrong_name_are_told_by_their_own(real: str) -> None:
    assert f"--architecture {real}" in _unfit(meta_network(real, 10).state_dict(), "alexnet", 10)


def test_another_number_of_classes_is_said_in_these_words() -> None:
    assert _unfit(DIGITS, num_classes=7) == "the network in the file has 10 classes, 7 labels were given"
    assert "has 10 classes" in _unfit(hub.random_weights(meta_network("squeezenet1_1", 10)), "squeezenet1_1", 3)


def test_another_shape_is_named() -> None:
    message = _unfit(DIGITS | {"conv1.weight": torch.ones(16, 3, 5, 5)})
    assert "1 of another shape, such as conv1.weight, which is [16, 3, 5, 5] where [16, 1, 5, 5] is needed" in message
    assert "such as fc2.weight" in _unfit(DIGITS | {"fc2.weight": torch.ones(7, 128)})  # its bias still has 10
    assert "such as fc2.weight" in _unfit(DIGITS | {"fc2.weight": torch.ones(())})
    assert "such as fc2.bias" in _unfit(DIGITS | {"fc2.bias": torch.ones(())})


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])
def test_values_that_are_not_finite_in_float32_are_refused(value: float) -> None:
    weights = {name: tensor.double() for name, tensor in DIGITS.items()}
    weights["fc1.weight"][3, 4] = value
    assert _unfit(weights) == "fc1.weight holds values that are not finite"


@pytest.mark.parametrize("dtype", [torch.int8, torch.complex64, torch.bool])
def test_values_that_are_no_real_numbers_are_refused(dtype: torch.dtype) -> None:
    assert _unfit(DIGITS | {"fc1.bias": torch.ones(128, dtype=dtype)}) == (
        f"fc1.bias holds {dtype} where torch.float32 is needed"
    )


def test_an_unknown_architecture_is_refused_with_near_names() -> None:
    assert "did you mean mnist_cnn" in _unfit(DIGITS, "mnistcnn")


@pytest.mark.slow
@pytest.mark.parametrize("architecture", ["googlenet", "inception_v3"])
def test_auxiliary_heads_are_left_out_with_a_note(architecture: str) -> None:
    with torch.device("meta"):
        whole = models.get_model(architecture, weights=None, num_classes=4, aux_logits=True, init_weights=False)
    notes: list[str] = []
    weights = hub.random_weights(whole)
    fitted = adapt_state_dict(weights, NetworkSpec(architecture), 4, note=notes.append)
    assert fitted.keys() == meta_network(architecture, 4).state_dict().keys()
    assert notes == [f"left out {len(weights) - len(fitted)} tensors of auxiliary heads, which only training needs"]


def test_norms_of_files_that_do_not_count_their_batches_start_at_zero() -> None:
    weights = hub.random_weights(meta_network("resnet18", 4))
    old = {name: tensor for name, tensor in weights.items() if not name.endswith("num_batches_tracked")}
    assert len(old) < len(weights)
    for name, tensor in adapt_state_dict(old, NetworkSpec("resnet18"), 4).items():
        assert torch.equal(tensor, old[name] if name in old else torch.tensor(0)), name


@pytest.mark.slow
def test_the_names_in_torchvisions_file_of_densenet_are_read_as_torchvision_reads_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    new = hub.random_weights(meta_network("densenet121", 1000))
    # norm1.weight was norm.1.weight, and nothing was counted.
    pattern = re.compile(r"(denselayer\d+\.)(norm|conv)([12])\.")
    old = {pattern.sub(r"\1\2.\3.", name): t for name, t in new.items() if not name.endswith("num_batches_tracked")}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    hub.cache("densenet121", old)
    assert _same(
        adapt_state_dict(old, NetworkSpec("densenet121"), 1000),
        models.get_model("densenet121", weights="DEFAULT").state_dict(),
    )


@pytest.mark.slow
def test_the_names_in_torchvisions_files_of_vit_are_read_as_torchvision_reads_them() -> None:
    new = hub.random_weights(meta_network("vit_b_32", 1000))
    old = {n.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): t for n, t in new.items()}
    assert "encoder.layers.encoder_layer_0.mlp.linear_2.bias" in old
    theirs = meta_network("vit_b_32", 1000)
    theirs.load_state_dict(old, assign=True)
    assert _same(adapt_state_dict(old, NetworkSpec("vit_b_32"), 1000), theirs.state_dict())


@pytest.mark.slow
@pytest.mark.parametrize(
    "architecture", ["alexnet_transfer", "densenet121", "googlenet", "mobilenet_v3_small", "squeezenet1_0", "swin_t"]
)
def test_a_prefix_is_found_for_each_kind_of_network(architecture: str) -> None:
    weights = meta_network(architecture, 2).state_dict()
    real = {name: torch.zeros(tensor.shape, dtype=tensor.dtype) for name, tensor in weights.items()}
    notes: list[str] = []
    given = {f"model.{name}": tensor for name, tensor in real.items()} | {"criterion.weight": torch.ones(2)}
    assert adapt_state_dict(given, NetworkSpec(architecture), 2, note=notes.append).keys() == weights.keys()
    assert notes == [
        "took off the prefix 'model.' of the names",
        "left out 'criterion.weight': 1 tensors that are not of the network",
    ]
    assert adapt_state_dict(real, NetworkSpec(architecture), 2, note=notes.append).keys() == weights.keys()
    assert len(notes) == 2


def _under(prefix: str, weights: Mapping[str, torch.Tensor] = DIGITS) -> dict[str, torch.Tensor]:
    return {prefix + name: tensor for name, tensor in weights.items()}


DOUBLED = {name: tensor * 2 for name, tensor in DIGITS.items()}


def _adapted(weights: Mapping[str, torch.Tensor]) -> tuple[Mapping[str, torch.Tensor], list[str]]:
    notes: list[str] = []
    return adapt_state_dict(without_wrappers(weights), NetworkSpec("mnist_cnn"), 10, note=notes.append), notes


@pytest.mark.parametrize(
    "prefix",
    [
        "model.",
        "net.",
        "backbone.",
        "encoder.net.",
        "_orig_mod.model.",
        "model._orig_mod.",
        "module.model.module.",
        "a.",
    ],
)
def test_a_prefix_that_all_names_of_the_network_share_is_taken_off(prefix: str) -> None:
    fitted, notes = _adapted(_under(prefix))
    assert _same(fitted, DIGITS)
    assert len(notes) == 1
    assert notes[0].startswith("took off the prefix")


@pytest.mark.parametrize("wrapped", ["module.{}", "_orig_mod.{}", "module._orig_mod.{}", "module.module.{}"])
def test_prefixes_of_wrappers_are_taken_off_without_a_word(wrapped: str) -> None:
    fitted, notes = _adapted({wrapped.format(name): tensor for name, tensor in DIGITS.items()})
    assert (_same(fitted, DIGITS), notes) == (True, [])


@pytest.mark.parametrize(
    "beside",
    ["criterion.weight", "loss_fn.pos_weight", "loss.weight", "train_acc.count", "val_loss.total", "n_averaged"],
)
@pytest.mark.parametrize("prefix", ["", "model."])
def test_what_trainers_keep_beside_a_network_is_left_out_with_a_word(prefix: str, beside: str) -> None:
    fitted, notes = _adapted(_under(prefix) | {beside: torch.ones(10)})
    assert _same(fitted, DIGITS)
    assert notes[-1] == f"left out {beside!r}: 1 tensors that are not of the network"


def test_what_averaged_model_saves_is_read() -> None:
    averaged = torch.optim.swa_utils.AveragedModel(torch.nn.Sequential(torch.nn.Linear(2, 2)))
    assert set(averaged.state_dict()) == {"n_averaged", "module.0.weight", "module.0.bias"}
    fitted, notes = _adapted(_under("module.") | {"n_averaged": torch.tensor(3)})
    assert _same(fitted, DIGITS)
    assert notes == ["left out 'n_averaged': 1 tensors that are not of the network"]


@pytest.mark.parametrize("averaged", ["ema_model.", "model_ema.", "ema.module.", "swa."])
@pytest.mark.parametrize("prefix", ["", "model."])
def test_a_running_mean_beside_the_weights_is_named_and_not_taken(prefix: str, averaged: str) -> None:
    fitted, notes = _adapted(_under(prefix) | _under(averaged, DOUBLED))
    assert _same(fitted, DIGITS)
    name = averaged.replace("module.", "").removesuffix(".")
    assert f"--weights {name} takes that" in notes[-1]


def test_a_running_mean_alone_is_taken() -> None:
    assert _same(_adapted(_under("ema_model.", DOUBLED))[0], DOUBLED)


@pytest.mark.parametrize("prefixes", [("student.", "teacher."), ("", "teacher."), ("a.", "b.", "c.")])
def test_a_network_that_is_there_more_than_once_is_refused(prefixes: tuple[str, ...]) -> None:
    weights: dict[str, torch.Tensor] = {}
    for prefix in prefixes:
        weights |= _under(prefix)
    message = _unfit(weights)
    assert f"the network is there {len(prefixes)} times" in message
    assert all(repr(prefix) in message for prefix in prefixes)
    assert "choose by --weights" in message


@pytest.mark.slow
def test_layers_that_the_network_does_not_have_are_never_left_out() -> None:
    # All of resnet18's names and shapes are in resnet34, too; and an unknown head may be a part of the network.
    larger = {
        name: torch.zeros(t.shape, dtype=t.dtype) for name, t in meta_network("resnet34", 10).state_dict().items()
    }
    for prefix in ("", "model."):
        assert " unexpected: 'layer1.2." in _unfit(_under(prefix, larger), "resnet18", 10)
    assert "1 unexpected: 'head.weight'" in _unfit(DIGITS | {"head.weight": torch.ones(10, 10)})
    assert "1 unexpected: 'fc3.weight'" in _unfit(_under("model.") | {"model.fc3.weight": torch.ones(10, 10)})


def test_a_network_of_which_a_part_is_missing_is_named_without_its_prefix() -> None:
    weights = {name: tensor for name, tensor in _under("model.").items() if name != "model.fc2.bias"}
    assert _unfit(weights) == "the weights do not fit mnist_cnn: 1 missing: 'fc2.bias'"
