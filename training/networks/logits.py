"""Takes a softmax off the end of a program: a server needs logits, for it divides them by a temperature.

The score that tells strange images is the energy of the logits. That of probabilities is nearly the same for all
images, and that of log-probabilities is 0.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch

from classifier.program.document import Argument, Node, Program, Scalar, ValueRef
from classifier.program.network import ProgramNetwork
from training.errors import TrainingError
from training.networks import places
from training.networks.pt2 import Exported

# They change neither a number nor its class.
_SHAPES = {
    *("view", "reshape", "flatten.using_ints", "squeeze", "squeeze.dim", "squeeze.dims", "unsqueeze"),
    *("contiguous", "clone", "to.dtype", "type_as"),
}
_SOFTMAXES = {"softmax.int": "softmax", "log_softmax.int": "log_softmax"}
_SIGMOIDS = {"sigmoid": "sigmoid", "hardsigmoid": "hardsigmoid", "log_sigmoid": "logsigmoid"}
_TOLERANCE = 1e-4


def with_logits(exported: Exported, images: torch.Tensor, name: str) -> Exported:
    """Returns the network without a softmax or log_softmax at its end, and a note of that; else the same network.

    Args:
        images: float [n, channels, height, width]; it is tried on them.
        name: what the network is called in messages.

    Raises: TrainingError if its outputs are probabilities, and which step makes them so cannot be taken off.
    """
    program = exported.program
    last = _before_shapes(program, program.output)
    step = _before_shapes(program, _input(program, last)) if _op(program, last) == "log" else last
    if _op(program, last) in _SIGMOIDS:
        raise TrainingError(
            f"{name} ends in a {_SIGMOIDS[_op(program, last)]}, so its outputs are no logits: delete it; train with "
            f"cross-entropy{places.behind(exported.places.get(last))}"
        )
    before = _run(exported, program, images)
    if _op(program, step) not in _SOFTMAXES or (last != step and _op(program, step) != "softmax.int"):
        if _is_distribution(before):
            raise TrainingError(
                f"{name}: its outputs are probabilities, or their logarithms, and no logits: delete the softmax at its "
                f"end{places.behind(exported.places.get(program.output))}"
            )
        return exported
    shorter, numbers = _without(program, last, _input(program, step))
    place = places.behind(exported.places.get(step))
    kind = "log_softmax" if last != step else _SOFTMAXES[_op(program, step)]
    logits = _run(exported, shorter, images)
    expected = logits.softmax(1) if kind == "softmax" else logits.log_softmax(1)
    if not torch.allclose(expected, before, atol=_TOLERANCE, equal_nan=True):
        raise TrainingError(f"{name} ends in a {kind} that is not over the classes alone: delete it{place}")
    return replace(
        exported,
        program=shorter,
        places={numbers[old]: place for old, place in exported.places.items() if old in numbers},
        notes=(*exported.notes, f"left out the {kind} at its end: a server needs the logits before it{place}"),
    )


def _is_distribution(outputs: torch.Tensor) -> bool:
    """Tells whether each row sums to 1, as it is or exponentiated."""
    ones = torch.ones(len(outputs))
    return any(
        bool((rows >= 0).all()) and torch.allclose(rows.sum(1), ones, atol=_TOLERANCE)
        for rows in (outputs, outputs.exp())
    )


def _run(exported: Exported, program: Program, images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        outputs: torch.Tensor = ProgramNetwork(program, exported.tensors).eval()(images)
    return outputs


def _op(program: Program, value: int) -> str:
    return program.nodes[value - 1].op if value else ""


def _input(program: Program, value: int) -> int:
    """Returns the value that a node takes first; 0, the images, if it takes none."""
    arguments: Sequence[Argument] = program.nodes[value - 1].args
    return arguments[0].value if arguments and isinstance(arguments[0], ValueRef) else 0


def _before_shapes(program: Program, value: int) -> int:
    while _op(program, value) in _SHAPES:
        value = _input(program, value)
    return value


def _without(program: Program, removed: int, stand_in: int) -> tuple[Program, dict[int, int]]:
    """Returns the program in which one value stands for another, without what nobody needs then; and new numbers."""
    output = stand_in if program.output == removed else program.output
    needed, left = {0}, [output]
    while left:
        value = left.pop()
        if value not in needed:
            needed.add(value)
            left += [stand_in if each == removed else each for each in program.nodes[value - 1].values()]
    numbers = {old: new for new, old in enumerate(sorted(needed))}
    numbers[removed] = numbers[stand_in]
    nodes = tuple(_renumbered(program.nodes[old - 1], numbers) for old in sorted(needed) if old)
    shorter = program.model_copy(update={"nodes": nodes, "output": numbers[output]})
    return shorter, {old: new for old, new in numbers.items() if old != removed}


def _renumbered(node: Node, numbers: dict[int, int]) -> Node:
    def scalar(each: Scalar) -> Scalar:
        return ValueRef(value=numbers[each.value]) if isinstance(each, ValueRef) else each

    def argument(each: Argument) -> Argument:
        return tuple(map(scalar, each)) if isinstance(each, tuple) else scalar(each)

    return node.model_copy(
        update={
            "args": tuple(map(argument, node.args)),
            "kwargs": {name: argument(each) for name, each in node.kwargs.items()},
        }
    )
