"""Tries a network that is not built in before a run begins: whether it can be trained, and whether it can be served.

It is exported as it will be at the end. So what cannot be served is one line now, not after an hour.
"""

import sys
import traceback
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.overrides import TorchFunctionMode

from classifier.architectures import load_weights
from classifier.normalize import normalizer
from classifier.preprocess import Preprocess
from classifier.progress import Progress
from training.data.batches import Split
from training.errors import TrainingError, one_line
from training.networks import own_code
from training.networks.image_size import cannot_take
from training.networks.own_code import OwnCode
from training.networks.served import served_network
from training.networks.spec import NetworkSpec
from training.recipes.recipe import Recipe
from training.runs.learner_state import snapshot
from training.runs.stage_data import first_two

_PROBABILITIES = ("softmax", "sigmoid", "sigmoid_")
_NEAR = 1e-4  # a sum of probabilities is as near to 1


def try_program(network: nn.Module, train: Split, recipe: Recipe, classes: int, progress: Progress) -> None:
    """Computes and learns two images, and exports the network. Its weights and torch's random numbers stay as they are.

    Args:
        network: on the CPU; it is left in training mode, and without gradients.
        classes: how many labels there are.

    Raises: TrainingError, which says what cannot be trained or served, and in which line of a person's code.
    """
    spec = recipe.spec
    progress.say(f"trying whether {spec} can be trained and served")
    cpu = torch.device("cpu")
    images = normalizer(recipe.preprocess, device=cpu)(first_two(train, cpu))
    images = images if len(images) == 2 else images.repeat(2, 1, 1, 1)
    weights = snapshot(network)
    with torch.random.fork_rng(devices=[]):
        check_answers(network.eval(), spec, recipe.preprocess, images, classes)
        _learn(network.train(), spec, recipe.preprocess, images, classes)
        load_weights(network, weights, share=False)
        served = served_network(spec, weights, classes, images=images)
    for note in served.notes:
        progress.say(f"{spec}: {note}")


@torch.no_grad()
def check_answers(
    network: nn.Module, spec: NetworkSpec, preprocess: Preprocess, images: torch.Tensor, classes: int
) -> None:
    """Checks that a network gives each of two images one logit for each class, and the same ones each time.

    Args:
        network: in eval mode, on the CPU.
        spec: what the network was built by.
        preprocess: what `images` were made by.

    Raises: TrainingError, which says what it gives instead, and in which line of a person's code.
    """
    with _LastStep(spec.code) as last:
        logits = _logits(network, spec, preprocess, images, classes)
    _check_scores(logits, last, spec, network)
    again = _logits(network, spec, preprocess, images, classes)
    if not torch.allclose(logits, again, rtol=1e-3, atol=1e-3):
        raise TrainingError(
            f"{_forward_of(spec, network)}: {spec} gives the same images other logits each time: in eval mode "
            "nothing may be random (F.dropout needs training=self.training)"
        )


def _logits(
    network: nn.Module, spec: NetworkSpec, preprocess: Preprocess, images: torch.Tensor, classes: int
) -> torch.Tensor:
    """Returns what the network makes of two images. Raises: TrainingError if it is not logits [2, classes]."""
    try:
        logits = network(images)
    except Exception as error:
        if spec.is_own_code:
            raise own_code.forward_error(spec.architecture, network, spec.shape, error) from error
        raise cannot_take(spec.architecture, preprocess, error) from error
    where = f"{_forward_of(spec, network)}: {spec} returns"
    expected = f"where logits [n, {classes}] are expected"
    if not isinstance(logits, torch.Tensor):
        several = f" of {len(logits)}" if isinstance(logits, tuple | list | dict) else ""
        mode = " in training mode" if network.training else ""
        raise TrainingError(f"{where} a {type(logits).__name__}{several}{mode}, {expected}: return these alone")
    if logits.dim() != 2 or len(logits) != len(images):
        raise TrainingError(f"{where} {list(logits.shape)} for {len(images)} images, {expected}")
    if logits.shape[1] != classes:
        code = spec.code
        takes = code is None or code.takes_num_classes
        hint = "use num_classes" if takes else "give it an argument num_classes, and use that"
        raise TrainingError(
            f"{where} {logits.shape[1]} logits, the data has {classes} classes: {hint} for its last layer"
        )
    if not logits.is_floating_point():
        raise TrainingError(f"{where} {logits.dtype}, {expected}")
    if not bool(logits.isfinite().all()):
        raise TrainingError(f"{where} values that are not finite for real images")
    return logits


def _check_scores(logits: torch.Tensor, last: "_LastStep", spec: NetworkSpec, network: nn.Module) -> None:
    """Checks that the scores are no probabilities: cross-entropy would make probabilities of them once more."""
    ends_so = last.result is logits
    if ends_so or (bool((logits >= 0).all()) and bool(((logits.sum(1) - 1).abs() < _NEAR).all())):
        where = last.place if ends_so and last.place else _forward_of(spec, network)
        how = f"ends in {last.name}" if ends_so else "returns probabilities"
        raise TrainingError(
            f"{where}: {spec} {how}: delete that step and return logits; training needs them, and the server makes "
            "probabilities of them"
        )


def _learn(network: nn.Module, spec: NetworkSpec, preprocess: Preprocess, images: torch.Tensor, classes: int) -> None:
    """Computes gradients in training mode, and throws them away."""
    with torch.enable_grad():
        logits = _logits(network, spec, preprocess, images, classes)
        loss = F.cross_entropy(logits, torch.zeros(len(images), dtype=torch.int64))
        try:
            loss.backward()  # type: ignore[no-untyped-call]
        except RuntimeError as error:
            raise TrainingError(f"{_forward_of(spec, network)}: {spec} cannot be trained: {one_line(error)}") from error
    network.zero_grad(set_to_none=True)


def _forward_of(spec: NetworkSpec, network: nn.Module) -> str:
    """Returns the line where the network's `forward` begins."""
    code = spec.code
    return spec.architecture if code is None else code.forward_of(network)


class _LastStep(TorchFunctionMode):
    """Remembers the last softmax or sigmoid that was computed.

    Args:
        code: a person's own.
    """

    def __init__(self, code: OwnCode | None) -> None:
        super().__init__()
        self._code = code
        self.name: str | None = None
        self.result: object = None
        self.place: str | None = None  # in the person's code

    def __torch_function__(
        self, function: Callable[..., Any], types: Any, args: Any = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        result = function(*args, **(kwargs or {}))
        name = getattr(function, "__name__", "")
        if name in _PROBABILITIES:
            self.name, self.result, self.place = name.rstrip("_"), result, self._caller()
        return result

    def _caller(self) -> str | None:
        if self._code is not None:
            for frame, line in traceback.walk_stack(sys._getframe()):
                place = self._code.file.line(frame.f_code, line)
                if place is not None:
                    return place
        return None
