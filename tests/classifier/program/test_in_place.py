"""A node overwrites its input only where nobody sees the difference."""

from collections.abc import Callable

import pytest
import torch

from classifier.program.document import Node
from classifier.program.network import ProgramNetwork
from tests.support.programs import IMAGES, node, program, value

CALLS: dict[str, Callable[..., torch.Tensor]] = {
    "mul.Tensor": torch.mul,
    "add.Tensor": torch.add,
    "relu": torch.relu,
    "t": torch.t,
}
DOUBLE = node("mul.Tensor", IMAGES, IMAGES)  # makes new memory, and takes one value twice


def shares_memory(nodes: list[Node], at: int) -> bool:
    """Whether the result of node `at` lies in the memory of one that it takes; checks that the logits are right."""
    images = torch.linspace(-1, 1, 8).reshape(2, 4)
    seen: dict[int, torch.Tensor] = {}
    network = ProgramNetwork(program(nodes), {}).eval()
    before, values = images.clone(), {0: images}
    logits = network.run(images, lambda number, made: seen.update({number: made}))
    assert torch.equal(images, before)
    for number, each in enumerate(nodes, start=1):
        a, *rest = [values[taken] for taken in each.values()]
        values[number] = CALLS[each.op](a, *rest).clone()
    assert torch.equal(logits, values[len(nodes)])
    return any(seen[at + 1].data_ptr() == seen[each].data_ptr() for each in nodes[at].values() if each)


@pytest.mark.parametrize(
    ("nodes", "at", "overwrites"),
    [
        ([DOUBLE, node("relu", value(1))], 1, True),
        ([DOUBLE, DOUBLE, node("add.Tensor", value(1), value(2))], 2, True),
        ([DOUBLE, node("add.Tensor", IMAGES, value(1))], 1, True),
        ([DOUBLE, node("relu", value(1)), node("relu", value(2))], 2, True),
        ([DOUBLE, node("mul.Tensor", value(1), value(1)), node("add.Tensor", value(2), value(1))], 2, True),
        # The images belong to the caller.
        ([node("relu", IMAGES), node("relu", value(1))], 0, False),
        ([node("add.Tensor", IMAGES, IMAGES)], 0, False),
        # Somebody takes the value afterwards.
        ([DOUBLE, node("relu", value(1)), node("mul.Tensor", value(1), value(2))], 1, False),
        # What `t` made lies in the same memory, and is taken afterwards.
        ([DOUBLE, node("t", value(1)), node("relu", value(1)), node("mul.Tensor", value(2), value(2))], 2, False),
        ([node("t", IMAGES), node("relu", value(1))], 1, False),
    ],
)
def test_a_value_is_overwritten_by_its_last_taker_if_nothing_else_lies_in_its_memory(
    nodes: list[Node], at: int, overwrites: bool
) -> None:
    assert shares_memory(nodes, at) is overwrites


def test_a_sum_that_is_larger_than_what_it_takes_has_memory_of_its_own() -> None:
    nodes = [node("mul.Tensor", IMAGES, 2.0), node("unsqueeze", IMAGES, 0), node("add.Tensor", value(1), value(2))]
    images = torch.rand(1, 4)
    assert torch.equal(ProgramNetwork(program(nodes), {}).eval()(images), (images * 2 + images)[None])


@pytest.mark.parametrize("order", [(2, 3), (3, 2)])
def test_what_is_computed_once_for_all_batches_is_never_overwritten(order: tuple[int, int]) -> None:
    constant = [node("full", (2, 4), 1.0), node("mul.Tensor", value(1), value(1))]
    network = ProgramNetwork(program([*constant, DOUBLE, node("add.Tensor", *map(value, order))]), {}).eval()
    for images in (torch.rand(2, 4), torch.rand(2, 4)):
        assert torch.equal(network(images), images * images + 1)


@pytest.mark.parametrize("order", [(1, 2), (2, 1)])
def test_a_sum_lies_in_memory_as_a_new_one_would(order: tuple[int, int]) -> None:
    images = torch.rand(3, 3)
    nodes = [node("t", IMAGES), DOUBLE, node("add.Tensor", *map(value, order))]
    taken = {1: images.t(), 2: images * images}
    wanted = torch.add(*(taken[number] for number in order))
    total = ProgramNetwork(program(nodes), {}).eval()(images)
    assert torch.equal(total, wanted)
    assert total.stride() == wanted.stride()
