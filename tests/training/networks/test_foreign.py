"""Files of weights of others: what is read, where the weights are found, and what is refused and why."""

import argparse
import os
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import nn

from classifier.architectures import meta_network
from tests.support import hub
from tests.support.checkpoints import checkpoint
from training.errors import TrainingError
from training.networks.foreign import read

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
    assert (foreign.architecture, foreign.labels, foreign.manifest) == ("mnist_cnn", {}, None)


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
    assert foreign.manifest == own.manifest


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
        ({"model": nn.Linear(2, 2), "epoch": 3}, "torch.nn.modules.linear.Linear"),
        ({"state_dict": DIGITS, "args": argparse.Namespace(more=_Runs())}, "pathlib.Path.touch|_Runs|getattr"),
        ({"state_dict": DIGITS, "more": _Runs()}, "pathlib.Path.touch|_Runs|getattr"),
    ],
    ids=["network", "network in a dictionary", "code in arguments", "code"],
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


def _wrong_sum(path: Path) -> None:
    torch.save(DIGITS, path)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _damaged_safetensors(path: Path) -> None:
    path.write_bytes(safetensors.torch.save(DIGITS)[:-100])


@pytest.mark.parametrize(
    ("write", "message"),
    [
        (lambda path: path.write_text("a text, not weights\n" * 20), "is damaged, or not a file of weights"),
        (_damaged_safetensors, "is not a sound safetensors file"),
        (lambda path: path.write_bytes((2).to_bytes(8, "little") + b"{} and more"), "is not a sound safetensors file"),
        (lambda path: path.write_bytes(b"12345678{} and more"), "is damaged, or not a file of weights"),
        (_wrong_sum, "is damaged, or not a file of weights"),
        (lambda path: torch.save(torch.ones(3), path), "it holds a tensor of [3]"),
        (lambda path: torch.save([torch.ones(3)], path), "it holds list"),
        (lambda path: torch.save({}, path), "it holds dict {}"),
        (lambda path: torch.save({"state_dict": {}}, path), "'state_dict' is dict {}"),
        (lambda path: torch.save({"model": {"depth": 18}}, path), "'model' is dict {'depth': 18}"),
        (lambda path: torch.save({"model": DIGITS | {"epoch": 3}}, path), "under 'model': 'epoch' is int 3"),
        (lambda path: torch.save({"state_dict": DIGITS}, path, pickle_protocol=4), "torch's own pickle protocol"),
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


def test_a_pipe_is_refused_before_anything_is_read_of_it(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "weights.pth")
    assert "is no file that can be read twice" in _refusal(tmp_path / "weights.pth")


def test_a_file_that_a_script_saved_says_where_its_weights_were_and_what_was_left_out(tmp_path: Path) -> None:
    arguments = argparse.Namespace(model="mnist_cnn", lr=0.1, output=Path())
    path = _saved(tmp_path, {"model": DIGITS, "optimizer": {"state": {}}, "epoch": 3, "args": arguments})
    foreign = read(path)
    assert _same(foreign.state_dict, DIGITS)
    assert foreign.architecture == "mnist_cnn"
    assert foreign.notes == ("took the weights under 'model'; left out 'optimizer', 'epoch', 'args'",)


def test_labels_and_the_network_that_were_used_are_not_called_left_out(tmp_path: Path) -> None:
    content = {"arch": "mnist_cnn", "model": DIGITS, "class_to_idx": {str(i): i for i in range(10)}, "epoch": 3}
    foreign = read(_saved(tmp_path, content))
    assert foreign.labels == {"class_to_idx": tuple("0123456789")}
    assert foreign.notes == ("took the weights under 'model'; left out 'epoch'", "took the labels under 'class_to_idx'")


def test_weights_as_arrays_of_numpy_are_read(tmp_path: Path) -> None:
    arrays = {name: tensor.numpy() for name, tensor in DIGITS.items()}
    assert _same(read(_saved(tmp_path, {"model": arrays})).state_dict, DIGITS)
    swapped = {name: array.astype(array.dtype.newbyteorder(">")) for name, array in arrays.items()}
    assert _same(read(_saved(tmp_path, swapped)).state_dict, DIGITS)


def test_a_prefix_of_the_names_can_be_chosen_in_any_kind_of_file(tmp_path: Path) -> None:
    both = {f"net.{n}": t for n, t in DIGITS.items()} | {f"net_ema.{n}": t.clone() * 2 for n, t in DIGITS.items()}
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file(both, path)
    for foreign in (read(path, "net_ema"), read(_saved(tmp_path, both), "net_ema.")):
        assert _same(foreign.state_dict, {name: tensor * 2 for name, tensor in DIGITS.items()})
        assert foreign.notes == ("took the 8 of 16 weights under 'net_ema.'",)


def test_a_checkpoint_of_ours_has_nothing_to_choose(tmp_path: Path) -> None:
    checkpoint().save(tmp_path / "1.safetensors")
    with pytest.raises(TrainingError, match="leave out --weights"):
        read(tmp_path / "1.safetensors", "model")


class _Hiding:
    """An OrderedDict in a file, with attributes of the names of its methods."""

    def __init__(self, **items: Any) -> None:
        self.content = items

    def __reduce__(self) -> Any:
        names = ("items", "keys", "values", "get", "__iter__", "__len__")
        return OrderedDict, (), dict.fromkeys(names, "hidden"), None, iter(self.content.items())


def test_attributes_that_hide_the_methods_of_a_dictionary_do_no_harm(tmp_path: Path) -> None:
    for content in (_Hiding(**DIGITS), _Hiding(state_dict=_Hiding(**DIGITS), arch="mnist_cnn", args=_Hiding(a=1))):
        assert _same(read(_saved(tmp_path, content)).state_dict, DIGITS)


def test_a_value_that_would_take_for_ever_to_write_out_is_named_in_a_few_words(tmp_path: Path) -> None:
    def nested(kind: Callable[[Any], Any]) -> Any:
        deep = kind(0)
        for _ in range(40):
            deep = kind(deep)  # 10**40 words, if each was written
        return deep

    for kind in (lambda x: [x] * 10, lambda x: OrderedDict.fromkeys(range(10), x), lambda x: (x,) * 10):
        assert len(_refusal(_saved(tmp_path, {"w": nested(kind)}))) < 300
