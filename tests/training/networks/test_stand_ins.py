"""Harmless things beside weights are read by their names, as stand-ins: nothing of them is called."""

import argparse
import collections
import datetime
import decimal
import io
import pathlib
import types
import uuid
from typing import Any

import numpy as np
import pytest
import torch
from torchvision.transforms import InterpolationMode

from training.networks import stand_ins
from training.networks.stand_ins import Array, StandIn


def _read(content: Any, **options: Any) -> Any:
    file = io.BytesIO()
    torch.save(content, file, **options)
    file.seek(0)
    with stand_ins.allowed():
        return torch.load(file, weights_only=True)


HARMLESS = {
    "arguments": argparse.Namespace(lr=0.1, output=pathlib.Path("out"), type=int),
    "namespace": types.SimpleNamespace(a=1),
    "path": pathlib.Path("out/run"),
    "windows": pathlib.PureWindowsPath("C:/out"),
    "date": datetime.date(2026, 1, 2),
    "time": datetime.datetime(2026, 1, 2, 3, 4, tzinfo=datetime.UTC),
    "duration": datetime.timedelta(seconds=3),
    "counts": collections.Counter("abba"),
    "queue": collections.deque([1, 2, 3], maxlen=2),
    "default": collections.defaultdict(list, {"loss": [0.1, 0.2]}),
    "nested default": collections.defaultdict(float, a=1.0),
    "ordered": collections.OrderedDict(a=1),
    "id": uuid.UUID(int=5),
    "decimal": decimal.Decimal("1.5"),
    "complex": 1 + 2j,
    "bytes": (b"ab", b""),
    "frozen": frozenset({1}),
    "slice": slice(3),
    "version": torch.__version__,
    "interpolation": InterpolationMode.BILINEAR,
    "type": np.float32,
    "dtype": np.dtype("float64"),
    "objects": np.array([None, "a"], dtype=object),
    "times": np.array(["2026-01-02"], dtype="datetime64[D]"),
    "generator": np.random.default_rng(0),
    "state": np.random.RandomState(0).get_state(),
    "random": np.random.RandomState(0),
}


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("name", HARMLESS)
def test_what_is_harmless_does_not_keep_the_weights_from_being_read(name: str, zipped: bool) -> None:
    content = {"state_dict": {"w": torch.ones(2, 2)}, "beside": HARMLESS[name], "epoch": 3}
    read = _read(content, _use_new_zipfile_serialization=zipped)
    assert read["state_dict"]["w"].equal(torch.ones(2, 2))
    assert read["epoch"] == 3


def test_fields_of_objects_and_entries_of_dictionaries_are_kept() -> None:
    read = _read({"args": argparse.Namespace(model="resnet18"), "log": collections.defaultdict(list, {"a": [1]})})
    assert isinstance(read["args"], StandIn)
    assert read["args"].fields == {"model": "resnet18"}
    assert repr(read["args"]) == "<Namespace>"
    assert dict(read["log"]) == {"a": [1]}


@pytest.mark.parametrize(
    "value", [np.float64(97.5), np.float32(0.5), np.int64(-3), np.uint8(7), np.bool_(True), np.str_("ants")]
)
def test_a_scalar_of_numpy_becomes_a_plain_value(value: Any) -> None:
    read = _read({"best": value})["best"]
    assert (type(read), read) == (type(value.item()), value.item())


@pytest.mark.parametrize(
    "array",
    [
        np.arange(6.0).reshape(2, 3),
        np.asfortranarray(np.arange(6).reshape(2, 3)),
        np.array(["ants", "bees"]),
        np.array([1, 2], dtype=">i4"),
        np.zeros((0, 3)),
    ],
    ids=["rows", "columns", "texts", "other byte order", "empty"],
)
def test_an_array_of_numpy_keeps_its_values(array: Any) -> None:
    read = _read({"array": array})["array"]
    assert isinstance(read, Array)
    assert read.values is not None
    assert read.values.shape == array.shape
    assert (read.values == array).all()
    assert read.values.dtype.isnative


def test_an_array_of_objects_has_no_values() -> None:
    assert _read({"array": np.array([None, 3], dtype=object)})["array"].values is None


def test_no_stand_in_is_or_calls_the_real_thing() -> None:
    real = [HARMLESS[name] for name in ("arguments", "path", "date", "time", "id", "decimal", "generator")]
    for value, read in zip(real, _read(real), strict=True):
        assert isinstance(read, StandIn)
        assert not isinstance(read, type(value))


def test_afterwards_torch_reads_no_more_than_before() -> None:
    before = set(torch.serialization.get_safe_globals())
    _read({"args": argparse.Namespace()})
    assert set(torch.serialization.get_safe_globals()) == before
