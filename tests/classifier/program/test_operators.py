"""The table: only functions that compute values, and none that can end the process."""

import subprocess
import sys
from contextlib import nullcontext

import pytest
import torch

from classifier.header import CheckpointError
from classifier.program.network import ProgramNetwork
from classifier.program.operators import OPERATORS, SIZES
from tests.support.programs import IMAGES, node, program, value
from tests.support.programs import weight as weight_of

OWN = {
    *("getitem", "split.Tensor", "chunk", "unbind.int", "div.Tensor_mode", "view", "batch_norm", "standardize"),
    *("conv1d", "conv2d", "conv2d.padding", "conv_transpose2d.input", "scaled_dot_product_attention", "einsum", "roll"),
}
NAMED = sorted(set(OPERATORS) - SIZES)
# Parts of names of what reads files, shows memory that was not written, shares memory, or draws random numbers.
FORBIDDEN = """
    file empty set_ as_strided resize rand normal bernoulli dropout multinomial poisson uniform exponential cauchy
    geometric storage copy scatter put nonzero unique item
"""
# They make a new tensor, and where they put something into it is no index.
ALLOWED = ("copy", "select_scatter", "slice_scatter")


def overload(name: str) -> torch._ops.OpOverload:
    packet, _, kind = name.partition(".")
    found = getattr(getattr(torch.ops.aten, packet), kind or "default")
    assert isinstance(found, torch._ops.OpOverload)
    return found


@pytest.mark.parametrize("name", sorted(set(NAMED) - {"getitem", "batch_norm", "standardize"}))
def test_an_operator_neither_writes_what_it_is_given_nor_draws_random_numbers(name: str) -> None:
    schema = overload(name)._schema
    assert not any(argument.alias_info is not None and argument.alias_info.is_write for argument in schema.arguments)
    assert not schema.is_mutable
    # Attention may leave out values at random; here it is never told to.
    assert name == "scaled_dot_product_attention" or torch.Tag.nondeterministic_seeded not in overload(name).tags
    assert torch.Tag.data_dependent_output not in overload(name).tags
    assert torch.Tag.dynamic_output_shape not in overload(name).tags or name in (
        "repeat_interleave.self_int",
        "index.Tensor",
    )
    assert name in ALLOWED or not any(part in name.partition(".")[0] for part in FORBIDDEN.split())


@pytest.mark.parametrize("name", sorted(set(NAMED) - OWN - {"batch_norm"}))
def test_an_operator_of_atens_is_called_as_it_is(name: str) -> None:
    assert OPERATORS[name].call is overload(name)


def test_a_view_may_copy_where_values_lie_in_another_order() -> None:
    values = torch.arange(24.0).reshape(1, 2, 3, 4).to(memory_format=torch.channels_last)
    assert torch.equal(OPERATORS["view"].call(values, [1, 24]), torch.arange(24.0)[None])


def test_a_batch_norm_is_that_of_inference() -> None:
    torch.manual_seed(0)
    norm = torch.nn.BatchNorm2d(3).eval()
    norm.running_mean, norm.running_var = torch.rand(3), torch.rand(3) + 0.5
    images = torch.rand(2, 3, 4, 4)
    made = OPERATORS["batch_norm"].call(images, norm.weight, norm.bias, norm.running_mean, norm.running_var, norm.eps)
    assert torch.equal(made, norm(images))


def test_weights_are_standardized_and_images_are_not() -> None:
    weight, gain, bias = torch.randn(1, 3, 8) * 5 + 2, torch.tensor([1.0, 2, 3]), torch.tensor([0.0, 1, 2])
    made = OPERATORS["standardize"].call(weight, gain, bias, 1e-9)
    torch.testing.assert_close(made.mean(2)[0], bias)
    torch.testing.assert_close(made.std(2, correction=0)[0], gain)
    tensors = {"constant.w": torch.zeros(10, 1)}
    nodes = [
        node("standardize", IMAGES, None, None, 1e-5),
        node("mean.dim", value(1), (1, 2, 3)),
        node("unsqueeze", value(2), 1),
        node("linear", value(3), weight_of("constant.w")),
    ]
    with pytest.raises(CheckpointError, match="what must be constant depends on the images"):
        ProgramNetwork(program(nodes, tensors), tensors)


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("conv1d", (torch.rand(1, 2, 9), torch.rand(3, 2, 3), torch.rand(3), [2], [1])),
        ("conv2d", (torch.rand(1, 2, 9, 9), torch.rand(3, 2, 3, 3), None, [2, 1], [1, 1])),
        ("conv2d.padding", (torch.rand(1, 2, 9, 9), torch.rand(3, 2, 3, 3), None, [1, 1], "same")),
        ("conv_transpose2d.input", (torch.rand(1, 2, 9, 9), torch.rand(2, 3, 3, 3), None, [2, 1])),
        ("split.Tensor", (torch.rand(7, 2), 3)),
        ("chunk", (torch.rand(2, 7), 3, 1)),
        ("unbind.int", (torch.rand(2, 7), 1)),
        ("scaled_dot_product_attention", (torch.rand(1, 2, 5, 4),) * 3),
        ("div.Tensor_mode", (torch.rand(5) - 0.5, torch.tensor(0.1))),
    ],
)
def test_what_is_wrapped_computes_what_aten_does(name: str, args: tuple[object, ...]) -> None:
    named = {"rounding_mode": "floor"} if name == "div.Tensor_mode" else {}
    made, expected = OPERATORS[name].call(*args, **named), overload(name)(*args, **named)
    for a, b in zip(made, expected, strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize(
    ("name", "args", "result"),
    [
        ("sym_size", (torch.zeros(3, 4), 1), 4),
        ("size_add", (3, 4), 7),
        ("size_sub", (3, 4), -1),
        ("size_mul", (3, 4), 12),
        ("size_floordiv", (-7, 2), -4),
        ("size_mod", (7, 4), 3),
        ("size_max", (3, 4), 4),
        ("size_min", (3, 4), 3),
        ("getitem", ((1, 2, 3), 2), 3),
    ],
)
def test_whole_numbers_are_computed_as_python_does(name: str, args: tuple[object, ...], result: int) -> None:
    assert OPERATORS[name].call(*args) == result


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("size_mul", (1 << 41, 2)),
        ("size_add", (1.5, 2)),
        ("size_mul", ("a", 2)),
        ("size_mul", ([0], 1 << 30)),
        ("size_max", (torch.tensor(1), 2)),
        ("getitem", ("text", 0)),
        ("getitem", ((1, 2), torch.tensor(1))),
        ("split.Tensor", (torch.zeros(1).expand(10_000), 1)),
        ("chunk", (torch.zeros(10_000), 10_000)),
        ("unbind.int", (torch.zeros(10_000),)),
        ("conv2d", (torch.ones(1, 1, 4, 4, dtype=torch.int64), torch.ones(1, 1, 2, 2, dtype=torch.int64))),
        ("div.Tensor_mode", (torch.tensor([-(1 << 63)]), torch.tensor([-1]))),
        ("div.Tensor_mode", (torch.tensor([1]), torch.tensor(2))),
        ("div.Tensor_mode", (torch.tensor([1]), 0)),
    ],
)
def test_what_would_grow_without_end_or_end_the_process_is_an_error(name: str, args: tuple[object, ...]) -> None:
    named = {"rounding_mode": "trunc"} if name == "div.Tensor_mode" else {}
    with pytest.raises((TypeError, ValueError)):
        OPERATORS[name].call(*args, **named)


@pytest.mark.parametrize("name", ["softmax.int", "to.dtype", "zeros", "clone", "contiguous", "cumsum"])
def test_a_whole_number_is_none_of_torchs_types(name: str) -> None:
    """Torch reads beyond its table of types for it, and the process ends."""
    for argument in ("dtype", "memory_format", "layout", "device"):
        with pytest.raises(TypeError) if argument in str(overload(name)._schema) else nullcontext():
            OPERATORS[name].check_types((), {argument: -1})
    OPERATORS[name].check_types((), {"dtype": torch.int64, "memory_format": torch.channels_last})


def test_whole_numbers_are_divided_by_positive_constants() -> None:
    made = OPERATORS["div.Tensor_mode"].call(torch.tensor([-7, 7]), 2, rounding_mode="floor")
    assert made.tolist() == [-4, 3]


_EXTREMES = """
import itertools, torch
from classifier.program.operators import OPERATORS
torch.set_num_threads(1)
for dtype in (torch.int64, torch.int32):
    least = torch.iinfo(dtype).min
    tensors = [torch.tensor([each], dtype=dtype) for each in (least, -1)] + [torch.zeros(1, 1, 1, 1)]
    others = [*tensors, -1, 0, -(1 << 63), (1 << 63) - 1, [0], [1 << 40], None]
    for name, operator in OPERATORS.items():
        rests = [rest for n in (0, 1, 2) for rest in itertools.product(others[:: n or 1], repeat=n)]
        for args in ((a, *rest) for a in ((-1, 0, least) if name == "pow.Scalar" else tensors) for rest in rests):
            if name in LARGE:
                continue
            try:
                operator.check_types(args, {})
            except TypeError:
                continue
            for named in ({}, {"rounding_mode": "trunc"}) if "div" in name else ({},):
                try:
                    operator.call(*args, **named)
                except Exception:
                    pass
print("alive")
"""


@pytest.mark.slow
def test_no_number_ends_the_process() -> None:
    """The processor ends a process that divides the least whole number by -1."""
    large = """
        expand repeat repeat_interleave.self_int constant_pad_nd pad new_zeros new_ones new_full zeros ones full eye
        arange arange.start arange.start_step linspace
    """
    code = f"LARGE = {large.split()!r}\n{_EXTREMES}"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "alive\n", done.stderr[-500:]
