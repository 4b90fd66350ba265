"""Checkpoints that hold a program, and files with any document in them."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import safetensors.torch
import torch

from classifier.checkpoint import Checkpoint
from classifier.header import content_hash
from classifier.manifest import ProgramInfo
from classifier.program.document import Argument, Node, Program, TensorRef, TensorSpec, ValueRef
from classifier.program.network import ProgramNetwork
from classifier.program.operators import OPERATORS
from tests.support import checkpoints

IMAGES = ValueRef(value=0)


def value(number: int) -> ValueRef:
    return ValueRef(value=number)


def weight(name: str) -> TensorRef:
    return TensorRef(tensor=name)


def node(op: str, *args: Argument, **kwargs: Argument) -> Node:
    return Node(op=op, args=args, kwargs=kwargs)


def program(nodes: Sequence[Node], tensors: Mapping[str, torch.Tensor] | None = None) -> Program:
    """A program whose last node makes the logits."""
    specs = {
        name: TensorSpec.model_validate({"dtype": str(each.dtype).removeprefix("torch."), "shape": tuple(each.shape)})
        for name, each in (tensors or {}).items()
    }
    return Program(tensors=specs, nodes=tuple(nodes), output=len(nodes))


# What `mnist_cnn` computes, node by node.
DIGITS_NODES = (
    node("conv2d", IMAGES, weight("network.conv1.weight"), weight("network.conv1.bias"), (1, 1), (2, 2)),
    node("max_pool2d", value(1), (2, 2)),
    node("relu", value(2)),
    node("conv2d", value(3), weight("network.conv2.weight"), weight("network.conv2.bias"), (1, 1), (2, 2)),
    node("max_pool2d", value(4), (2, 2)),
    node("relu", value(5)),
    node("sym_size", IMAGES, 0),
    node("view", value(6), (value(7), 1568)),
    node("linear", value(8), weight("network.fc1.weight"), weight("network.fc1.bias")),
    node("relu", value(9)),
    node("linear", value(10), weight("network.fc2.weight"), weight("network.fc2.bias")),
)


def checkpoint(
    nodes: Sequence[Node] = DIGITS_NODES, constants: Mapping[str, torch.Tensor] | None = None, *, seed: int = 0
) -> Checkpoint:
    """The digits' checkpoint with its network as a program; or with other nodes, and the logits that they make."""
    content, constants = checkpoints.checkpoint(seed), dict(constants or {})
    tensors = {f"network.{name}": tensor for name, tensor in content.network.items()}
    tensors |= {f"constant.{name}": tensor for name, tensor in constants.items()}
    document = program(nodes, tensors)
    logits = checkpoints.logits(
        ProgramNetwork(document, tensors), content.manifest.preprocess, content.reference.pixels
    )
    return replace(
        content,
        manifest=manifest_for(content, document),
        reference=replace(content.reference, logits=logits),
        program=document,
        constants=constants,
    )


def manifest_for(content: Checkpoint, document: Program) -> Any:
    info = ProgramInfo(torch="2.15.0", operators=document.operators)
    return content.manifest.model_copy(update={"format": 2, "program": info, "architecture": "own.py:Net"})


def file_with(content: Checkpoint, document: bytes, operators: Sequence[str] | None = None) -> bytes:
    """A file whose hash is right, with any bytes as its document, which `save` would refuse."""
    info = ProgramInfo(torch="2.15.0", operators=tuple(operators or content.manifest.program.operators))  # type: ignore[union-attr]
    manifest = content.manifest.model_copy(update={"program": info}).to_json()
    tensors = content._tensors() | {"program": torch.from_numpy(np.frombuffer(document, np.uint8).copy())}
    zeros = "0" * 64
    data = safetensors.torch.save(tensors, metadata={"manifest": manifest, "sha256": zeros})
    body = 8 + int.from_bytes(data[:8], "little")
    return data.replace(zeros.encode(), content_hash(manifest, [data[body:]]).encode(), 1)


# fmt: off
_NASTY: list[Any] = [
    None, True, False, 0, 1, -1, 2, 3, 7, 10, 64, 1 << 20, 1 << 31, 1 << 40, (1 << 63) - 1, -(1 << 63),
    0.0, -0.5, 1e-30, 1e30, "a", "0" * 99,
    {"value": 0}, {"value": 1}, {"value": 3}, {"value": 8}, {"value": 9999}, {"value": -1},
    {"tensor": "network.fc2.weight"}, {"tensor": "network.conv1.weight"}, {"tensor": "network.none"},
    {"dtype": "int64"}, {"dtype": "bool"}, {"dtype": "complex64"}, {"dtype": "float64"},
    {"memory_format": "channels_last"}, {"infinity": "-inf"},
    {"word": "floor"}, {"word": "trunc"}, {"word": "reflect"}, {"word": "same"}, {"word": "__import__"},
    {}, {"a": 1}, [], [0], [1, 1], [2, 2], [-1], [0, 0], [1 << 40, 1 << 40], [1] * 20, [None], [[1]],
    [{"value": 0}], [{"value": 0}] * 30,
]
# fmt: on
_KEYWORDS = ("dim", "dtype", "alpha", "rounding_mode", "scale", "device", "value", "out", "copy")


def mutated(document: dict[str, Any], seed: int) -> dict[str, Any]:  # noqa: C901  one case for each way
    """Another document, in one to four places, as somebody might change it who wants to do harm."""
    chance = random.Random(seed)
    copy = {**document, "nodes": [{**each, "args": [*each["args"]]} for each in document["nodes"]]}
    nodes = copy["nodes"]
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(nodes))
        it = nodes[at]
        match chance.randrange(9):
            case 0:
                it["op"] = chance.choice(sorted(OPERATORS))
            case 1 | 2 if it["args"]:
                it["args"][chance.randrange(len(it["args"]))] = chance.choice(_NASTY)
            case 3:
                it["args"].append(chance.choice(_NASTY))
            case 4 if it["args"]:
                it["args"].pop(chance.randrange(len(it["args"])))
            case 5:
                name = chance.choice(_KEYWORDS)
                it["kwargs"] = {**it["kwargs"], name: chance.choice(_NASTY)}
            case 6:
                copy["output"] = chance.choice([0, 1, at, at + 1, len(nodes), 1 << 40, -1])
            case 7:
                args = [{"value": at}, *(chance.choice(_NASTY) for _ in range(chance.randrange(4)))]
                new = {"op": chance.choice(sorted(OPERATORS)), "args": args, "kwargs": {}}
                nodes.append(new)
                if chance.random() < 0.5:
                    copy["output"] = len(nodes)
            case _:
                i = chance.randrange(len(it["args"]) or 1)
                if it["args"] and isinstance(it["args"][i], list) and it["args"][i]:
                    it["args"][i] = [*it["args"][i]]
                    it["args"][i][chance.randrange(len(it["args"][i]))] = chance.choice(_NASTY)
    return copy
