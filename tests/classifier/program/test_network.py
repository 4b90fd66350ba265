"""A program runs as what it says, in the type and on the device of its images."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import nn

from classifier.architectures import build
from classifier.header import CheckpointError
from classifier.program.document import DTypeRef, Node, TensorRef
from classifier.program.network import ProgramNetwork
from tests.support.programs import DIGITS_NODES, IMAGES, node, program, value, weight

FLOAT = DTypeRef(dtype="float32")


def network(*nodes: Node, **tensors: torch.Tensor) -> ProgramNetwork:
    named = {f"constant.{name}": tensor for name, tensor in tensors.items()}
    return ProgramNetwork(program(nodes, named), named).eval()


def digits() -> tuple[nn.Module, ProgramNetwork]:
    torch.manual_seed(0)
    named = build("mnist_cnn", 10).eval().requires_grad_(False)
    tensors = {f"network.{name}": tensor for name, tensor in named.state_dict().items()}
    return named, ProgramNetwork(program(DIGITS_NODES, tensors), tensors).eval()


@pytest.mark.parametrize("count", [1, 2, 17])
def test_the_logits_are_those_of_the_network_bit_for_bit(count: int) -> None:
    named, exported = digits()
    images = torch.rand(count, 1, 28, 28)
    assert torch.equal(exported(images), named(images))


def test_in_bf16_the_logits_are_those_of_the_network_as_well() -> None:
    named, exported = digits()
    images = torch.rand(3, 1, 28, 28).bfloat16()
    assert torch.equal(exported.bfloat16()(images), named.bfloat16()(images))


def test_several_threads_compute_at_once() -> None:
    named, exported = digits()
    batches = [torch.rand(n % 5 + 1, 1, 28, 28) for n in range(40)]
    with ThreadPoolExecutor(4) as pool:
        for made, images in zip(pool.map(exported, batches), batches, strict=True):
            torch.testing.assert_close(made, named(images))


def test_weights_are_shared_and_not_copied() -> None:
    kept = torch.rand(1, 1, 28, 28)
    made = network(node("add.Tensor", IMAGES, weight("constant.a")), a=kept)
    assert [each.data_ptr() for each in made.parameters()] == [kept.data_ptr()]


def test_what_does_not_depend_on_the_images_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    made = network(
        node("arange", 4),
        node("to.dtype", value(1), FLOAT),
        node("mul.Tensor", IMAGES, value(2)),
    )
    assert [name for name, _ in made.named_children()] == ["3"]
    assert torch.equal(made(torch.ones(2, 4)), torch.arange(4.0).expand(2, 4))


@pytest.mark.parametrize(
    "makes",
    [
        *(node("zeros", (4,)), node("ones", (4,)), node("eye", 4), node("linspace", 0, 1, 4), node("full", (4,), 0.5)),
        *(node("arange", 4.0), node("zeros", (4,), dtype=FLOAT), node("arange.start_step", 0, 2, 0.5)),
    ],
)
def test_floats_that_it_makes_have_the_type_of_the_images(makes: Node) -> None:
    images = torch.ones(4, 4, dtype=torch.bfloat16)
    constant = network(makes, node("add.Tensor", IMAGES, value(1))).bfloat16()
    assert constant(images).dtype == torch.bfloat16
    sized = network(
        node("sym_size", IMAGES, 0), node(makes.op, *makes.args, **makes.kwargs), node("add.Tensor", IMAGES, value(2))
    )
    assert sized.bfloat16()(images).dtype == torch.bfloat16


def test_whole_numbers_that_it_makes_stay_whole() -> None:
    made = network(node("arange", 4), node("eq.Scalar", value(1), 2), node("masked_fill.Scalar", IMAGES, value(2), 9.0))
    assert made.bfloat16()(torch.zeros(1, 4).bfloat16()).tolist() == [[0, 0, 9, 0]]


def test_values_are_forgotten_after_their_last_use() -> None:
    made = network(node("relu", IMAGES), node("relu", value(1)), node("relu", value(2)))
    assert [no_more for *_, no_more in made._steps] == [(0,), (1,), (2,)]


def test_parts_of_a_tensor_are_taken_by_their_numbers() -> None:
    made = network(
        node("split.Tensor", IMAGES, 2, 1), node("getitem", value(1), 1), node("cat", (value(2), value(2)), 1)
    )
    assert made(torch.tensor([[1.0, 2, 3, 4]])).tolist() == [[3, 4, 3, 4]]


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([node("system", IMAGES)], "there is no such operator here"),
        ([node("relu.out", IMAGES)], "there is no such operator here"),
        ([node("zeros", (2, 2))], "does not depend on the images"),
        ([node("arange", 4), node("view", value(1), (3,)), node("relu", IMAGES)], "node 1 (view): shape"),
        ([node("index_select", IMAGES, 1, IMAGES)], "must be constant"),
        ([node("index.Tensor", IMAGES, (None, IMAGES))], "must be constant"),
        ([node("embedding", TensorRef(tensor="constant.a"), IMAGES)], "must be constant"),
        ([node("gather", IMAGES, 1, weight("constant.a"))], "no whole numbers"),
        ([node("conv2d", IMAGES, IMAGES)], "must be constant"),
        ([node("sym_size", IMAGES, 0), node("arange.start", value(1), 9), node("relu", IMAGES)], "a size that depends"),
        ([node("sym_size", IMAGES, 0), node("avg_pool2d", IMAGES, (value(1), 1))], "a size that depends"),
        ([node("softmax.int", IMAGES, 1, -1)], "none of torch's types"),
        ([node("size_floordiv", 1, 0), node("relu", IMAGES)], "division"),
    ],
)
def test_what_cannot_be_run_is_refused_by_its_node(nodes: list[Node], reason: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        network(*nodes, a=torch.rand(2, 2))
    assert reason in str(caught.value)


@pytest.mark.parametrize(("index", "fine"), [(3, True), (4, False), (-1, True), (-5, False)])
def test_an_index_out_of_range_is_found_before_a_device_sees_it(index: int, fine: bool) -> None:
    made = network(node("index.Tensor", IMAGES, (None, weight("constant.i"))), i=torch.tensor([0, index]))
    if fine:
        assert made(torch.rand(2, 4)).shape == (2, 2)
    else:
        with pytest.raises(IndexError, match="an index is out of range"):
            made(torch.rand(2, 4))


def test_a_batch_that_makes_more_than_the_largest_is_an_error() -> None:
    nodes = [node("repeat", IMAGES, (1, 2))]
    made = ProgramNetwork(program(nodes), {}, largest={1: [(8, 8)]}).eval()
    assert made(torch.rand(8, 4)).shape == (8, 8)
    with pytest.raises(RuntimeError, match="sizes may only grow with the batch"):
        made(torch.rand(2, 5))
