"""Weights of others: what is read and under which names, what is refused and why, and how they are fitted."""

import argparse
import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn
from torchvision import models

from classifier.architectures import meta_network
from tests.support import hub
from tests.support.checkpoints import checkpoint
from training.errors import TrainingError
from training.networks.weights import adapt_state_dict, read

DIGITS = hub.random_weights(meta_network("mnist_cnn", 10))


def _saved(tmp_path: Path, content: Any, **options: Any) -> Path:
    path = tmp_path / "weights.pth"
    torch.save(content, path, **options)
    return path


def _same(ours: Mapping[str, torch.Tensor], theirs: Mapping[str, torch.Tensor]) -> bool:
    return ours.keys() == theirs.keys() and all(torch.equal(tensor, theirs[name]) for name, tensor in ours.items())


def _refusal(path: Path) -> str:
    with pytest.raises(TrainingError) as caught:
        read(path)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith(str(path))
    return message.removeprefix(str(path))


TUTORIAL = {"epoch": 3, "arch": "mnist_cnn", "best_prec1": torch.tensor(97.5), "optimizer": {"state": {}}}


@pytest.mark.parametrize("zipped", [True, False])
def test_a_training_state_of_the_tutorial_is_read_with_its_architecture(tmp_path: Path, zipped: bool) -> None:
    path = _saved(tmp_path, TUTORIAL | {"state_dict": DIGITS}, _use_new_zipfile_serialization=zipped)
    foreign = read(path)
    assert _same(foreign.state_dict, DIGITS)
    assert (foreign.architecture, foreign.labels, foreign.preprocess) == ("mnist_cnn", None, None)


def test_a_training_state_may_hold_more_than_is_known(tmp_path: Path) -> None:
    more = {"identity": {"seed": 0}, "random": [torch.get_rng_state()], "average": None, "curve": [{"epoch": 1}]}
    assert _same(read(_saved(tmp_path, TUTORIAL | more | {"state_dict": DIGITS})).state_dict, DIGITS)


def test_a_bare_state_dict_is_read(tmp_path: Path) -> None:
    network = nn.Linear(3, 2)
    foreign = read(_saved(tmp_path, network.state_dict()))
    assert _same(foreign.state_dict, network.state_dict())
    assert foreign.architecture is None


def test_a_bare_safetensors_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(DIGITS, path, metadata={"format": "pt"})
    foreign = read(path)
    assert _same(foreign.state_dict, DIGITS)
    assert foreign.architecture is None


def test_a_checkpoint_of_ours_brings_all_that_it_says_of_itself(tmp_path: Path) -> None:
    own = checkpoint()
    own.save(tmp_path / "1.safetensors")
    foreign = read(tmp_path / "1.safetensors")
    assert _same(foreign.state_dict, own.network)
    assert foreign.architecture == "mnist_cnn"
    assert (foreign.labels, foreign.preprocess) == (own.manifest.labels, own.manifest.preprocess)


@pytest.mark.parametrize(
    "wrapped",
    [
        "module.{}",
        "_orig_mod.{}",
        "module._orig_mod.{}",
        "_orig_mod.module.{}",
        "module.module.{}",
    ],
)
def test_prefixes_of_wrappers_are_taken_off(tmp_path: Path, wrapped: str) -> None:
    path = _saved(tmp_path, TUTORIAL | {"state_dict": {wrapped.format(name): t for name, t in DIGITS.items()}})
    assert _same(read(path).state_dict, DIGITS)


def test_what_a_real_wrapper_saves_is_read(tmp_path: Path) -> None:
    # As pytorch's ImageNet example wraps AlexNet: only its features.
    network = nn.Sequential(nn.Sequential(nn.Linear(3, 3)), nn.Linear(3, 2))
    plain = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    network[0] = nn.DataParallel(network[0])
    assert "0.module.0.weight" in network.state_dict()
    assert _same(read(_saved(tmp_path, network.state_dict())).state_dict, plain)


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


def test_two_sets_of_weights_in_one_file_are_refused(tmp_path: Path) -> None:
    path = _saved(tmp_path, DIGITS | {f"module.{name}": tensor for name, tensor in DIGITS.items()})
    assert "two sets of weights" in _refusal(path)


class _Runs:
    """What unpickling would run."""

    def __reduce__(self) -> Any:
        return Path.touch, (Path("was-run"),)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (nn.Linear(2, 2), "torch.nn.modules.linear.Linear"),
        ({"state_dict": DIGITS, "args": argparse.Namespace(lr=0.1)}, "argparse.Namespace"),
        ({"state_dict": DIGITS, "best_prec1": np.float64(97.5)}, "numpy._core.multiarray.scalar"),
        ({"state_dict": DIGITS, "more": _Runs()}, "pathlib.Path.touch|_Runs|getattr"),
    ],
    ids=["network", "arguments", "numpy", "code"],
)
@pytest.mark.parametrize("zipped", [True, False])
def test_what_would_run_code_is_refused_and_not_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: Any, named: str, zipped: bool
) -> None:
    monkeypatch.chdir(tmp_path)
    message = _refusal(_saved(tmp_path, content, _use_new_zipfile_serialization=zipped))
    assert "is refused: it holds" in message
    assert any(name in message for name in named.split("|"))
    assert "torch.save({'arch': ..., 'state_dict': network.state_dict()}, FILE)" in message
    assert not (tmp_path / "was-run").exists()


def test_a_plain_pickle_is_not_run_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for protocol in (2, 4, 5):
        path = tmp_path / "weights.pth"
        path.write_bytes(pickle.dumps({"state_dict": DIGITS, "more": _Runs()}, protocol=protocol))
        _refusal(path)
    assert not (tmp_path / "was-run").exists()


def _zip_of_something_else(path: Path) -> None:
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("readme.txt", "no weights")


def _cut_short(path: Path) -> None:
    torch.save(DIGITS, path)
    path.write_bytes(path.read_bytes()[:-2000])


def _damaged_safetensors(path: Path) -> None:
    path.write_bytes(safetensors.torch.save(DIGITS)[:-100])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_bytes(b""), "is damaged, or not a file of weights"),
        (lambda path: path.write_text("a text, not weights\n" * 20), "is damaged, or not a file of weights"),
        (
            lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(range(256))),
            "is damaged, or not a file of weights",
        ),
        (_zip_of_something_else, "is damaged, or not a file of weights"),
        (_cut_short, "is damaged, or not a file of weights"),
        (_damaged_safetensors, "is not a sound safetensors file"),
        (lambda path: path.write_bytes(b"12345678{} and more"), "is not a sound safetensors file"),
        (lambda path: torch.save(torch.ones(3), path), "it holds a tensor of [3]"),
        (lambda path: torch.save([torch.ones(3)], path), "it holds list"),
        (lambda path: torch.save({}, path), "it holds dict {}"),
        (lambda path: torch.save({"state_dict": {}}, path), "it is empty"),
        (lambda path: torch.save({"model": dict(DIGITS)}, path), "'model' is dict"),
        (lambda path: torch.save(DIGITS | {"epoch": 3}, path), "'epoch' is int 3"),
        (lambda path: torch.save({3: torch.ones(3)}, path), "3 is a tensor of [3]"),
        (lambda path: torch.save({"w": torch.eye(3).to_sparse()}, path), "torch.sparse_coo"),
        (lambda path: torch.save({"w": torch.ones(3, device="meta")}, path), "on meta"),
        (lambda path: path.mkdir(), "Is a directory"),
        (lambda _: None, "No such file or directory"),
    ],
)
def test_what_holds_no_weights_is_refused_in_one_line(tmp_path: Path, write: Any, message: str) -> None:
    path = tmp_path / "weights.pth"
    write(path)
    assert message in _refusal(path)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_torchscript_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "scripted.pt"
    torch.jit.script(nn.Linear(2, 2)).save(path)  # type: ignore[no-untyped-call]
    assert "TorchScript archive" in _refusal(path)


def _unfit(weights: Mapping[str, torch.Tensor], architecture: str = "mnist_cnn", num_classes: int = 10) -> str:
    with pytest.raises(TrainingError) as caught:
        adapt_state_dict(weights, architecture, num_classes)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_weights_that_fit_come_as_they_are() -> None:
    assert _same(adapt_state_dict(DIGITS, "mnist_cnn", 10), DIGITS)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_precisions_become_float32(dtype: torch.dtype) -> None:
    fitted = adapt_state_dict({name: tensor.to(dtype) for name, tensor in DIGITS.items()}, "mnist_cnn", 10)
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
    fitted = adapt_state_dict(weights, architecture, 4, note=notes.append)
    assert fitted.keys() == meta_network(architecture, 4).state_dict().keys()
    assert notes == [f"left out {len(weights) - len(fitted)} tensors of auxiliary heads, which only training needs"]


def test_norms_of_files_that_do_not_count_their_batches_start_at_zero() -> None:
    weights = hub.random_weights(meta_network("resnet18", 4))
    old = {name: tensor for name, tensor in weights.items() if not name.endswith("num_batches_tracked")}
    assert len(old) < len(weights)
    for name, tensor in adapt_state_dict(old, "resnet18", 4).items():
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
        adapt_state_dict(old, "densenet121", 1000), models.get_model("densenet121", weights="DEFAULT").state_dict()
    )


@pytest.mark.slow
def test_the_names_in_torchvisions_files_of_vit_are_read_as_torchvision_reads_them() -> None:
    new = hub.random_weights(meta_network("vit_b_32", 1000))
    old = {n.replace(".mlp.0.", ".mlp.linear_1.").replace(".mlp.3.", ".mlp.linear_2."): t for n, t in new.items()}
    assert "encoder.layers.encoder_layer_0.mlp.linear_2.bias" in old
    theirs = meta_network("vit_b_32", 1000)
    theirs.load_state_dict(old, assign=True)
    assert _same(adapt_state_dict(old, "vit_b_32", 1000), theirs.state_dict())
