"""The document: what may be said in it, and how everything else is refused in one line."""

import json
import subprocess
import sys
from typing import Any

import pytest

from classifier.header import CheckpointError
from classifier.program.document import MAX_BYTES, MAX_NODES, Program
from tests.support import programs
from tests.support.programs import IMAGES, node, value

SMALL: dict[str, Any] = {"tensors": {}, "nodes": [{"op": "relu", "args": [{"value": 0}]}], "output": 1}


def _refusal(data: bytes | dict[str, Any]) -> str:
    with pytest.raises(CheckpointError) as caught:
        Program.from_json(data if isinstance(data, bytes) else json.dumps(data).encode())
    message = str(caught.value)
    assert message.isprintable()
    return message


def test_a_program_comes_back_from_its_text() -> None:
    program = programs.checkpoint().program
    assert program is not None
    assert Program.from_json(program.to_json()) == program


@pytest.mark.parametrize(
    "argument",
    [
        None,
        True,
        False,
        0,
        -1,
        (1 << 63) - 1,
        0.5,
        1e30,
        [],
        [1, 2],
        [None, {"value": 0}],
        {"value": 0},
        {"dtype": "int64"},
        {"memory_format": "channels_last"},
        {"word": "floor"},
        {"infinity": "-inf"},
    ],
)
def test_every_kind_of_argument_comes_back_as_what_it_was(argument: object) -> None:
    text = json.dumps(SMALL | {"nodes": [{"op": "relu", "args": [argument], "kwargs": {"dim": argument}}]})
    (made,) = json.loads(Program.from_json(text.encode()).to_json())["nodes"]
    assert made["args"] == [argument]
    assert type(made["args"][0]) is type(argument)
    assert made["kwargs"] == {"dim": argument}


@pytest.mark.parametrize(
    "argument",
    [
        "text",
        1 << 63,
        {},
        {"value": 0, "tensor": "network.a"},
        {"value": "0"},
        {"value": 0.0},
        {"value": True},
        {"value": -1},
        {"dtype": "float16x"},
        {"word": "__import__('os')"},
        {"infinity": "nan"},
        {"code": "1"},
        [[1]],
        {"tensor": "figures.a"},
        {"tensor": "network.a\n"},
        {"tensor": "network."},
        [0] * 1025,
        {"memory_format": "x"},
    ],
)
def test_any_other_argument_is_refused(argument: object) -> None:
    assert "nodes.0.args" in _refusal(SMALL | {"nodes": [{"op": "relu", "args": [argument]}]})


@pytest.mark.parametrize(
    "changes",
    [
        {"more": 1},
        {"format": "flambeau-program/2"},
        {"output": 0},
        {"output": 2},
        {"output": True},
        {"output": 1.0},
        {"nodes": []},
        {"nodes": [{"op": "relu", "args": [], "trace": ""}]},
        {"nodes": [{"op": "", "args": []}]},
        {"nodes": [{"op": "r" * 65, "args": []}]},
        {"nodes": [{"op": "relu", "args": [], "kwargs": {"__class__": 1, "A": 2}}]},
        {"nodes": [{"op": "relu", "args": [1] * 33}]},
        {"nodes": [{"op": "relu", "args": [{"value": 1}]}]},
        {"nodes": [{"op": "relu", "args": [[{"value": 7}]]}]},
        {"nodes": [{"op": "relu", "args": [{"tensor": "network.none"}]}]},
        {"tensors": {"network.a": {"dtype": "float32", "shape": [1] * 17}}},
        {"tensors": {"network.a": {"dtype": "float32", "shape": [-1]}}},
        {"tensors": {"network.a": {"dtype": "complex64", "shape": [1]}}},
        {"tensors": {"program": {"dtype": "float32", "shape": [1]}}},
        {"nodes": [SMALL["nodes"][0]] * (MAX_NODES + 1)},
    ],
)
def test_what_is_not_exactly_right_is_refused(changes: dict[str, Any]) -> None:
    assert "the program cannot be read" in _refusal(SMALL | changes)


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "no sound JSON"),
        (b"{", "no sound JSON"),
        (b"\xff\xfe", "no sound JSON"),
        (b"[" * 100_000, "no sound JSON"),
        (b'{"a":' * 100_000, "no sound JSON"),
        (b"[]", "document: Input should be an object"),
        (b'{"tensors":{},"nodes":[],"nodes":[{"op":"relu","args":[]}],"output":1}', "a key stands twice"),
        (b'{"tensors":{},"nodes":[{"op":"relu","args":[{"value":0,"value":0}]}],"output":1}', "a key stands twice"),
        (b'{"tensors":{},"nodes":[{"op":"relu","args":[NaN]}],"output":1}', "args"),
        (b'{"tensors":{},"nodes":[{"op":"relu","args":[1e999]}],"output":1}', "args"),
        (b'{"tensors":{},"nodes":[{"op":"relu","args":[' + b"1" * 5000 + b']}],"output":1}', "no sound JSON"),
        (b" " * (MAX_BYTES + 1), f"at most {MAX_BYTES:,} are read"),
    ],
)
def test_what_is_no_such_document_is_refused(data: bytes, reason: str) -> None:
    assert reason in _refusal(data)


@pytest.mark.slow
@pytest.mark.parametrize("argument", ["a", {"a": 1}, {"value": -1}, 1 << 63])
def test_a_document_full_of_faults_takes_no_more_memory_than_another(argument: object) -> None:
    """Each fault noted takes memory, once for each kind of argument that it could have been."""
    nodes = [{"op": "cat", "args": [[argument] * 1000] * 6}] * (MAX_BYTES // 2 // len(json.dumps([argument] * 6000)))
    code = (
        "import sys, resource; from classifier.program.document import Program, CheckpointError\n"
        "data, before = sys.stdin.buffer.read(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "try: Program.from_json(data)\n"
        "except CheckpointError: print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    text = json.dumps(SMALL | {"nodes": nodes}).encode()
    grown = subprocess.run([sys.executable, "-c", code], input=text, capture_output=True, check=True).stdout
    assert int(grown) < 200_000  # kilobytes


@pytest.mark.slow
def test_what_is_too_long_to_be_read_is_not_written() -> None:
    nodes = [node("cat", *[tuple([IMAGES] * 1000)] * 30)] * 20
    with pytest.raises(CheckpointError, match="at most"):
        programs.program(nodes).to_json()


def test_the_operators_are_named_once_and_in_order() -> None:
    program = programs.program([node("relu", IMAGES), node("abs", value(1)), node("relu", value(2))])
    assert program.operators == ("abs", "relu")
