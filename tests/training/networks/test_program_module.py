"""A program is recorded again as it was, under the names of its tensors."""

import pytest
import torch

from classifier.header import CheckpointError
from classifier.program.document import Node, Program, TensorRef, TensorSpec, ValueRef
from classifier.program.network import ProgramNetwork
from training.networks.program_module import ProgramModule

FLOATS = TensorSpec(dtype="float32", shape=(1,))


def _adding(*names: str) -> Program:
    """A program that adds these tensors to the images, one after the other."""
    nodes = tuple(
        Node(op="add.Tensor", args=(ValueRef(value=i), TensorRef(tensor=name))) for i, name in enumerate(names)
    )
    return Program(tensors=dict.fromkeys(names, FLOATS), nodes=nodes, output=len(names))


def _tensors(program: Program) -> dict[str, torch.Tensor]:
    return {name: torch.tensor([i + 0.5]) for i, name in enumerate(program.tensors)}


def test_weights_have_their_names_and_constants_are_not_saved() -> None:
    program = _adding("network.body.0.weight", "network.body.0.bias", "network.scale", "constant.body.mask")
    tensors = _tensors(program)
    module = ProgramModule(program, tensors)
    assert module.state_dict().keys() == {"body.0.weight", "body.0.bias", "scale"}
    assert [name for name, _ in module.named_buffers()] == ["body.mask"]
    images = torch.ones(3, 1, 2, 2)
    assert module(images).equal(ProgramNetwork(program, tensors)(images))


@pytest.mark.parametrize(
    "name",
    ["network.forward", "network.forward.weight", "network.a..b", "network.a.", "constant.training", "network._places"],
)
def test_a_name_that_no_module_can_have_is_refused(name: str) -> None:
    program = _adding(name)
    with pytest.raises(CheckpointError, match="no module can have a tensor that is called"):
        ProgramModule(program, _tensors(program))


def test_two_tensors_of_one_name_are_refused() -> None:
    for names in (("network.a", "constant.a"), ("network.a", "network.a.b"), ("network.a.b", "network.a")):
        program = _adding(*names)
        with pytest.raises(CheckpointError, match="no module can have a tensor"):
            ProgramModule(program, _tensors(program))
