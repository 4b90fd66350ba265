"""What a program costs is known before anything is computed, and what costs too much is refused."""

import subprocess
import sys
import time

import pytest
import torch

from classifier.header import CheckpointError
from classifier.program.check import check
from classifier.program.document import Node
from tests.support.programs import DIGITS_NODES, IMAGES, node, program, value, weight

HUGE = 1 << 40
HEAD = {"constant.w": torch.zeros(10, 1)}


def checked(*nodes: Node, max_batch: int = 4, classes: int = 10) -> None:
    check(program(nodes, HEAD), (1, 8, 8), classes, max_batch)


def with_head(*nodes: Node) -> list[Node]:
    """Logits of whatever the last node makes."""
    return [
        *nodes,
        node("mean.dim", IMAGES, (1, 2, 3)),
        node("unsqueeze", value(len(nodes) + 1), 1),
        node("linear", value(len(nodes) + 2), weight("constant.w")),
    ]


def test_a_network_that_is_as_others_passes_and_its_sizes_are_known() -> None:
    named = {"conv1.weight": (16, 1, 5, 5), "conv1.bias": (16,), "conv2.weight": (32, 16, 5, 5), "conv2.bias": (32,)}
    named |= {"fc1.weight": (128, 1568), "fc1.bias": (128,), "fc2.weight": (10, 128), "fc2.bias": (10,)}
    tensors = {f"network.{name}": torch.zeros(shape) for name, shape in named.items()}
    largest = check(program(DIGITS_NODES, tensors), (1, 28, 28), 10, 64)
    assert largest[1] == [(64, 16, 28, 28)]
    assert largest[7] == [(64,)]
    assert largest[11] == [(64, 10)]


@pytest.mark.parametrize(
    "nodes",
    [
        with_head(node("expand", IMAGES, (4, HUGE, 8, 8))),
        with_head(node("full", (HUGE,), 1.0)),
        with_head(node("zeros", (1 << 20, 1 << 20))),
        with_head(node("arange", HUGE)),
        with_head(node("eye", 1 << 20)),
        with_head(node("linspace", 0, 1, HUGE)),
        with_head(node("repeat", IMAGES, (1, HUGE, 1, 1))),
        with_head(node("repeat_interleave.self_int", IMAGES, HUGE)),
        with_head(node("constant_pad_nd", IMAGES, (1 << 20, 1 << 20, 1 << 20, 1 << 20))),
        with_head(node("upsample_nearest2d.vec", IMAGES, (1 << 18, 1 << 18), None)),
        with_head(*(node("cat", (value(n),) * 64, 1) for n in range(8))),
        with_head(node("expand", IMAGES, (4, 1 << 21, 8, 8)), *(node("sum", value(1)) for _ in range(2000))),
        with_head(
            *(node("expand", IMAGES, (4, 1 << 20, 8, 8)) for _ in range(1)),
            *(node("exp", value(1)) for _ in range(20)),
            *(node("add.Tensor", value(2 + n), value(2)) for n in range(20)),
        ),
        with_head(
            node("constant_pad_nd", IMAGES, (2048, 2048, 2048, 2048)),
            node("avg_pool2d", value(1), (2000, 2000), (1, 1)),
        ),
        with_head(
            node("constant_pad_nd", IMAGES, (2048, 2048, 2048, 2048)),
            node("avg_pool2d", value(1), (2000,), (1,)),  # one size for both dimensions
        ),
        with_head(
            node("mean.dim", IMAGES, (2, 3), True),
            node("repeat", value(1), (1, 1, 1 << 20, 1)),
            node("adaptive_avg_pool2d", value(2), (1, 1 << 20)),  # each of its results reads all that there is
        ),
        with_head(node("full", (8192, 8192), 1), node("mm", value(1), value(1))),  # whole numbers, one by one
        with_head(node("roll", IMAGES, (1,) * 100, (3,) * 100)),
        with_head(node("sym_size", IMAGES, 0), *(node("size_mul", value(n), value(n)) for n in range(1, 9))),
        with_head(
            node("unbind.int", node("relu", IMAGES).args[0], 3),
            *(node("unsqueeze", value(0), 0) for _ in range(1)),
            *(node("unsqueeze", value(n), 0) for n in range(2, 20)),
        ),
        with_head(node("split.Tensor", IMAGES, 0)),
        with_head(node("slice.Tensor", IMAGES, 3, 8)),
        with_head(node("reshape", IMAGES, ((1 << 63) - 1, (1 << 63) - 1))),
        with_head(node("cumsum", IMAGES, 1 << 62)),
    ],
)
def test_what_costs_too_much_is_refused_at_once(nodes: list[Node]) -> None:
    began = time.process_time()
    with pytest.raises(CheckpointError):
        checked(*nodes)
    assert time.process_time() - began < 60  # seconds; a deadline, not a pace


@pytest.mark.parametrize("max_batch", [2, 64, 1024])
def test_what_is_computed_once_may_be_no_larger_for_larger_batches(max_batch: int) -> None:
    with pytest.raises(CheckpointError, match="the program is too large"):
        checked(*with_head(node("full", (1 << 30,), 1.0)), max_batch=max_batch)


@pytest.mark.parametrize(
    ("nodes", "reason"),
    [
        ([node("flatten.using_ints", IMAGES, 1)], "makes [4, 64] of a batch of 4, where [4, 10]"),
        ([node("sym_size", IMAGES, 0)], "not a tensor of float32"),
        ([node("gt.Scalar", IMAGES, 0)], "not a tensor of float32"),
        ([node("mean", IMAGES)], "makes [] of a batch of 4"),
        (
            [*with_head()[:2], node("linear", value(2), weight("constant.w")), node("squeeze", value(3))],
            "cannot compute a batch of 1",
        ),
    ],
)
def test_a_result_that_is_no_table_of_logits_is_refused(nodes: list[Node], reason: str) -> None:
    with pytest.raises(CheckpointError) as caught:
        checked(*nodes)
    assert reason in str(caught.value)


def test_what_is_larger_for_fewer_images_is_refused() -> None:
    """4 // n times as many channels: one image would take most."""
    nodes = with_head(
        node("sym_size", IMAGES, 0),
        node("size_floordiv", 4, value(1)),
        node("size_mul", value(2), 8),
        node("new_zeros", IMAGES, (value(3),)),
    )
    with pytest.raises(CheckpointError, match="sizes may only grow with the batch"):
        checked(*nodes)


def test_a_size_that_is_large_only_between_the_ends_is_found_where_every_batch_is_walked() -> None:
    """Of 1, 2 and 7 images it makes little, of 3 and 4 more."""
    nodes = with_head(
        node("sym_size", IMAGES, 0),
        node("size_mod", value(1), 5),
        node("size_mul", value(2), 1 << 20),
        node("new_zeros", IMAGES, (value(3),)),
    )
    checked(*nodes, max_batch=7)
    with pytest.raises(CheckpointError, match=r"cannot compute a batch of 3: .* sizes may only grow"):
        check(program(nodes, HEAD), (1, 8, 8), 10, 7, every_batch=True)


@pytest.mark.parametrize("max_batch", [1, 4])
def test_a_program_whose_check_takes_too_long_is_refused(max_batch: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("classifier.program.check.MAX_SECONDS", -1.0)
    with pytest.raises(CheckpointError, match="take longer to check"):
        checked(*with_head(), max_batch=max_batch)


def test_pools_of_one_size_and_adaptive_ones_as_networks_have_them_pass() -> None:
    checked(*with_head(node("avg_pool2d", IMAGES, (2,)), node("adaptive_avg_pool2d", value(1), (1, 1))))


def test_a_batch_that_the_memory_does_not_hold_is_refused_for_now() -> None:
    with pytest.raises(MemoryError, match="serve it with a smaller max_batch"):
        check(program(with_head(), HEAD), (1, 8, 8), 10, 64, free_memory=1000)


@pytest.mark.process
def test_a_server_that_has_no_program_does_not_load_what_counts_operations() -> None:
    """It brings triton: half a second and 70 MB at each start."""
    code = "import sys, classifier.checkpoint; print({'triton', 'torch.utils.flop_counter'} & sys.modules.keys())"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout == "set()\n"
