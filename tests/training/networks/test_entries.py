"""In what scripts save, the weights are found, and all else that the file says of them."""

import argparse
from typing import Any

import numpy as np
import pytest
import torch

from training.errors import TrainingError
from training.networks.entries import architecture_of, find, labels_in, state_dict_of
from training.networks.stand_ins import Array, StandIn

WEIGHTS = {"fc.weight": torch.ones(3, 2), "fc.bias": torch.zeros(3)}
MEAN = {name: tensor * 2 for name, tensor in WEIGHTS.items()}
OPTIMIZER = {"state": {0: {"momentum_buffer": torch.ones(3, 2)}}, "param_groups": [{"lr": 0.1}]}


def _arguments(**fields: Any) -> StandIn:
    stand_in: StandIn = StandIn()
    stand_in.__setstate__(vars(argparse.Namespace(**fields)))
    return stand_in


USUAL = ["model", "state_dict", "model_state_dict", "net", "network", "weights", "params", "model_state", "module"]


@pytest.mark.parametrize("key", USUAL)
def test_weights_are_found_under_the_usual_keys_and_one_level_deeper(key: str) -> None:
    flat = {"epoch": 3, key: WEIGHTS, "optimizer": OPTIMIZER}
    entry = find(flat, None)
    assert (entry.weights, entry.path) == (WEIGHTS, (key,))
    assert entry.notes == (f"took the weights under {key!r}; left out 'epoch', 'optimizer'",)
    entry = find({"best": 0.9, "checkpoint": flat}, None)
    assert (entry.weights, entry.path) == (WEIGHTS, ("checkpoint", key))
    assert entry.notes == (
        f"took the weights under 'checkpoint.{key}'; left out 'best', 'checkpoint.epoch', 'checkpoint.optimizer'",
    )


def test_a_key_inside_a_usual_key_is_found() -> None:
    assert find({"model": {"state_dict": WEIGHTS, "depth": 18}}, None).path == ("model", "state_dict")


AVERAGED = ["model_ema", "ema", "ema_state_dict", "state_dict_ema", "params_ema", "ema_model", "swa_model"]
AVERAGED += ["EMA", "modelEMA", "model_avg", "averaged_model", "average", "shadow", "polyak_weights"]


@pytest.mark.parametrize("key", AVERAGED)
def test_a_running_mean_beside_the_weights_is_named_and_can_be_chosen(key: str) -> None:
    content = {"model": WEIGHTS, key: MEAN, "epoch": 3}
    entry = find(content, None)
    assert entry.weights == WEIGHTS
    assert entry.notes == (
        f"took the weights under 'model'; left out {key!r}, 'epoch'",
        f"it holds a running mean of the weights, too: --weights {key} takes that",
    )
    chosen = find(content, key)
    assert chosen.weights == MEAN
    assert chosen.notes == (f"took the weights under {key!r}, which are a running mean; left out 'model', 'epoch'",)
    assert find({key: MEAN, "epoch": 3}, None).weights == MEAN


def test_a_running_mean_one_level_deeper_is_named_and_can_be_chosen() -> None:
    content = {"model": WEIGHTS, "ema": {"module": MEAN, "updates": 7}}
    assert "--weights ema.module takes that" in find(content, None).notes[1]
    assert find(content, "ema.module").weights == MEAN
    assert find({"run": {"model": WEIGHTS, "model_ema": MEAN}}, None).path == ("run", "model")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({"model": WEIGHTS, "net": MEAN}, "several sets of weights, under 'model', 'net': choose by --weights KEY"),
        ({"a": {"model": WEIGHTS}, "b": {"model": MEAN}}, "several sets of weights, under 'a.model', 'b.model'"),
        ({"ema": WEIGHTS, "swa_model": MEAN}, "several sets of weights, under 'ema', 'swa_model'"),
        ({"generator": WEIGHTS, "discriminator": MEAN}, "tensors under 'generator', 'discriminator': choose by"),
        ({"mine": WEIGHTS, "epoch": 3}, "no weights under a usual key, but tensors under 'mine'"),
    ],
)
def test_what_is_not_certain_is_refused_and_can_be_chosen(content: dict[str, Any], said: str) -> None:
    with pytest.raises(TrainingError) as caught:
        find(content, None)
    assert said in str(caught.value)
    key = str(caught.value).split("under ")[-1].split("'")[1]
    assert find(content, key).weights in (WEIGHTS, MEAN)


def test_a_key_that_is_not_there_is_refused_with_those_that_are() -> None:
    with pytest.raises(TrainingError, match="no weights under --weights 'ema': weights are under 'model'"):
        find({"model": WEIGHTS}, "ema")
    with pytest.raises(TrainingError, match=r"no weights under --weights 'ema': its entries are 'fc\.weight'"):
        find(WEIGHTS, "ema")


def test_settings_that_are_called_as_weights_are_not_taken_for_them() -> None:
    content = {
        "params": {"lr": 0.1},
        "weights": {"ant": torch.tensor(0.3)},
        "model": "resnet18",
        "net": None,
        "state_dict": WEIGHTS,
        "module": torch.ones(3, 3),
        "ema": 0.99,
    }
    assert find(content, None).path == ("state_dict",)


def test_a_state_dict_alone_is_the_whole_file() -> None:
    entry = find(WEIGHTS, None)
    assert (entry.weights, entry.path, entry.notes) == (WEIGHTS, (), ())
    assert state_dict_of(entry) == WEIGHTS


@pytest.mark.parametrize(
    ("content", "path"),
    [
        ({"arch": "resnet18", "state_dict": WEIGHTS}, ("state_dict",)),
        ({"args": _arguments(model="resnet18", lr=0.1), "model": WEIGHTS}, ("model",)),
        ({"args": _arguments(arch="resnet18"), "model": WEIGHTS}, ("model",)),
        ({"hyper_parameters": {"model_name": "resnet18"}, "state_dict": WEIGHTS}, ("state_dict",)),
        ({"model": "resnet18", "state_dict": WEIGHTS}, ("state_dict",)),
        ({"run": {"config": {"architecture": "resnet18"}, "model": WEIGHTS}}, ("run", "model")),
    ],
)
def test_the_network_is_named_by_the_file_or_its_settings(content: dict[str, Any], path: tuple[str, ...]) -> None:
    assert architecture_of(content, path) == "resnet18"


def test_a_network_that_nobody_knows_or_that_is_named_twice_is_not_named() -> None:
    assert architecture_of({"args": {"model": "mine"}, "model": WEIGHTS}, ("model",)) is None
    assert architecture_of({"args": {"model": "resnet18"}, "config": {"model": "resnet34"}}, ()) is None
    assert architecture_of({"arch": "x" * 1000, "state_dict": WEIGHTS}, ("state_dict",)) is None
    assert architecture_of({"arch": 3, "args": {"arch": ["resnet18"]}}, ()) is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("class_to_idx", {"bees": 1, "ants": 0}),
        ("idx_to_class", {0: "ants", 1: "bees"}),
        ("id2label", {"0": "ants", "1": "bees"}),
        ("classes", ["ants", "bees"]),
        ("class_names", ("ants", "bees")),
        ("CLASSES", ("ants", "bees")),
    ],
)
def test_labels_in_a_file_are_found(key: str, value: Any) -> None:
    assert labels_in({key: value, "model": WEIGHTS}, ("model",)) == ({key: ("ants", "bees")}, [])
    inside = {"args": _arguments(**{key: value}), "model": WEIGHTS}
    assert labels_in(inside, ("model",)) == ({f"args.{key}": ("ants", "bees")}, [])
    for settings in ("meta", "datamodule_hyper_parameters"):  # of OpenMMLab, of Lightning
        assert labels_in({settings: {key: value}, "model": WEIGHTS}, ("model",))[0] == {
            f"{settings}.{key}": ("ants", "bees")
        }
    assert labels_in({"run": {key: value, "model": WEIGHTS}}, ("run", "model"))[0] == {f"run.{key}": ("ants", "bees")}


def test_labels_in_an_array_are_found() -> None:
    array: Array = Array()
    array.values = np.array(["ants", "bees"])
    assert labels_in({"classes": array}, ())[0] == {"classes": ("ants", "bees")}


def test_what_cannot_be_labels_is_passed_over_with_a_word() -> None:
    found, notes = labels_in({"class_to_idx": {"ants": 1, "bees": 2}, "classes": 2, "labels": [0, 1]}, ())
    assert found == {}
    assert notes == ["its class_to_idx cannot be used: its 2 entries are not one label for each index from 0 to 1"]
