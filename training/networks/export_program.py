"""Makes a program of a network: torch.export records what it computes, and the record becomes our document.

The network is tried first, and the program is compared with it. What cannot be exported is said in one line, with the
line of the person's own code that is to blame.
"""

import contextlib
import inspect
import io
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import nn
from torch._dynamo.exc import UserError, UserErrorType
from torch._ops import OperatorBase
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode

from classifier.header import CheckpointError
from classifier.program.check import check
from classifier.program.network import ProgramNetwork
from training.errors import TrainingError, shortened
from training.networks import places, pt2, pt2_graph

_BATCHES = (1, 2, 3)
_LARGE_BATCH = 64  # of which the shapes are checked, and nothing is computed
_TOLERANCE = 1e-5  # of logits, relative to the largest
_GUARDS = logging.getLogger("torch.fx.experimental.symbolic_shapes")


def export_program(
    network: nn.Module, shape: tuple[int, int, int], name: str, *, images: torch.Tensor | None = None
) -> pt2.Exported:
    """Returns the network as data.

    Args:
        network: in eval mode, on the CPU.
        shape: of an image as the network takes it: (channels, height, width).
        name: what the network is called in messages.
        images: float [n, channels, height, width], by which the program is compared with the network; None: noise.

    Raises: TrainingError, which says what cannot be exported, and where in the network's code that is.
    """
    _check_parameters(network, name)
    examples = _examples(shape, images)
    with _unheard():
        expected = [_logits(network, examples[:count], name) for count in _BATCHES]
        exported = _exported(_recorded(network, shape, name), name)
    _compare(exported, examples, expected, name, finite=images is not None)
    return exported


def record(network: nn.Module, shape: tuple[int, int, int]) -> torch.export.ExportedProgram:
    """Returns what torch.export records of a network, for batches of any size from 1.

    Args:
        network, shape: as for `export_program`.
    """
    images = torch.zeros(2, *shape)  # torch takes a batch of 1 for a constant
    batch = torch.export.Dim("batch", min=1)
    return torch.export.export(network, (images,), dynamic_shapes=({0: batch},))


def _exported(recorded: torch.export.ExportedProgram, name: str) -> pt2.Exported:
    try:
        return _as_it_is(recorded, name)
    except TrainingError:  # some operators are served only as the simpler ones that torch makes of them
        pass
    try:
        return _as_it_is(_taken_apart(recorded, pt2_graph.decompositions(), name), name)
    except TrainingError:  # the reason is to name what the person wrote, and not what torch made of it
        return _as_it_is(_taken_apart(recorded, {}, name), name)


def _taken_apart(
    recorded: torch.export.ExportedProgram, ways: dict[OperatorBase, Callable[..., Any]], name: str
) -> torch.export.ExportedProgram:
    try:
        simpler: torch.export.ExportedProgram = recorded.run_decompositions(ways)
    except Exception as error:  # nearly anything, as in recording
        raise _cannot_export(name, error) from error
    return simpler


def _as_it_is(recorded: torch.export.ExportedProgram, name: str) -> pt2.Exported:
    file = io.BytesIO()
    torch.export.save(recorded, file)
    file.seek(0)
    return pt2.read(file, name)


def _recorded(network: nn.Module, shape: tuple[int, int, int], name: str) -> torch.export.ExportedProgram:
    try:
        return record(network, shape)
    except GuardOnDataDependentSymNode as error:
        raise TrainingError(
            f"{name} cannot be exported: it decides by the values of the images (if, while, int(), .item() and the "
            "like), so each image would need a program of its own; use torch.where"
            f"{places.behind(places.of_error(error))}"
        ) from error
    except UserError as error:
        if error.error_type != UserErrorType.CONSTRAINT_VIOLATION:
            raise _cannot_export(name, error) from error
        raise TrainingError(
            f"{name} cannot be exported: the size of the batch became a constant, so other batches could not be "
            "computed; write images.shape[0] for len(images), and images.flatten(1) for images.view(2, -1); neither "
            "loop over the images nor compare their number"
            f"{places.behind(_place_of_guard(network, shape))}"
        ) from error
    except Exception as error:  # nearly anything: it runs the person's code
        raise _cannot_export(name, error) from error


def _cannot_export(name: str, error: Exception) -> TrainingError:
    place = places.behind(places.of_error(error))
    if ".numpy()" in str(error):
        return TrainingError(f"{name} cannot be exported: it leaves torch by .numpy(); compute with the tensor{place}")
    return TrainingError(f"{name} cannot be exported: {_in_words(error)}{place}")


class _Guards(logging.Handler):
    """Notes where torch is when it finds that the size of the batch must be a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.place: str | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if self.place is None and re.search(r"eval Eq\(.*\[guard added\]", record.getMessage()):
            self.place = places.of_now()


def _place_of_guard(network: nn.Module, shape: tuple[int, int, int]) -> str | None:
    guards, level = _Guards(), _GUARDS.level
    _GUARDS.addHandler(guards)
    _GUARDS.setLevel(logging.INFO)
    try:
        record(network, shape)
    except Exception:  # noqa: BLE001, S110  the same one again
        pass
    finally:
        _GUARDS.removeHandler(guards)
        _GUARDS.setLevel(level)
    return guards.place


@contextlib.contextmanager
def _unheard() -> Iterator[None]:
    """Keeps torch's warnings, logs and printed graphs from the terminal. What matters of them becomes an error."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _check_parameters(network: nn.Module, name: str) -> None:
    for parameter, tensor in network.named_parameters():
        if tensor.dtype != torch.float32:
            dtype = str(tensor.dtype).removeprefix("torch.")
            raise TrainingError(
                f"{name}: its {parameter} is {dtype}, and networks are trained and served in float32: leave out "
                ".double(), .half() and the like"
            )


def noise(shape: Sequence[int]) -> torch.Tensor:
    """Returns three images of noise, always the same, by which a network can be tried."""
    return torch.randn(max(_BATCHES), *shape, generator=torch.Generator().manual_seed(0))


def _examples(shape: tuple[int, int, int], images: torch.Tensor | None) -> torch.Tensor:
    if images is None:
        return noise(shape)
    return images.repeat(-(-max(_BATCHES) // len(images)), 1, 1, 1)[: max(_BATCHES)]


def _logits(network: nn.Module, images: torch.Tensor, name: str) -> torch.Tensor:
    """Returns what the network itself computes. Raises: TrainingError if that is no logits."""
    try:
        inspect.signature(network.forward).bind(images)
    except TypeError as error:
        raise TrainingError(
            f"{name}: its forward takes {_parameters(network)}, and the images alone are given"
        ) from error
    try:
        with torch.no_grad():
            logits = network(images.clone())
    except Exception as error:  # nearly anything: it is the person's code
        raise TrainingError(
            f"{name} cannot compute a batch of {len(images)}: {_in_words(error)}{places.behind(places.of_error(error))}"
        ) from error
    if not isinstance(logits, torch.Tensor):
        kind = "None" if logits is None else f"a {type(logits).__name__}"
        raise TrainingError(
            f"{name}: its forward returns {kind}, where the logits alone are expected: return one tensor"
        )
    if logits.dtype not in (torch.float32, torch.float64):
        dtype = str(logits.dtype).removeprefix("torch.")
        raise TrainingError(f"{name}: its forward returns {dtype}, where logits of float32 are expected")
    if logits.dim() != 2 or len(logits) != len(images):
        advice = "; use x.flatten(1) in place of x.squeeze()" if len(images) == 1 else ""
        raise TrainingError(
            f"{name}: its forward returns {list(logits.shape)} for a batch of {len(images)}, where "
            f"[{len(images)}, classes] is expected{advice}"
        )
    return logits


def _parameters(network: nn.Module) -> str:
    names = [str(each) for each in inspect.signature(network.forward).parameters.values()]
    return f"({', '.join(names)})" if names else "nothing"


def _compare(
    exported: pt2.Exported, images: torch.Tensor, expected: Sequence[torch.Tensor], name: str, *, finite: bool
) -> None:
    """Compares the program with what the network computed. Raises: TrainingError."""
    try:
        check(exported.program, tuple(images.shape[1:]), expected[0].shape[1], _LARGE_BATCH)
        program = ProgramNetwork(exported.program, exported.tensors).eval()
        with torch.no_grad():
            found = [program(images[:count]) for count in _BATCHES]
    except (CheckpointError, RuntimeError, ValueError, IndexError, TypeError) as error:
        raise TrainingError(f"{name} cannot be served: {_in_words(error)}{_behind(exported, str(error))}") from error
    for logits, wanted in zip(found, expected, strict=True):
        if finite and not bool(wanted.isfinite().all()):
            raise TrainingError(f"{name}: its logits of the example images are not finite (NaN or infinite)")
        scale = float(wanted.abs().nan_to_num(1).max().clamp(min=1))
        error_ = float((logits - wanted).abs().nan_to_num(0).max()) / scale
        if error_ > _TOLERANCE or not torch.equal(logits.isnan(), wanted.isnan()):
            raise TrainingError(
                f"{name}: the exported program differs from the network, for a batch of {len(wanted)} by {error_:.1g} "
                f"relative to the largest logit, where {_TOLERANCE:g} is allowed. What it computes must depend on the "
                "images alone: not on time, random numbers or earlier calls, and not on autocast"
            )


def _behind(exported: pt2.Exported, message: str) -> str:
    """Returns the place of the node that a message names."""
    node = re.search(r"the program's node (\d+)", message)
    return places.behind(exported.places.get(int(node[1]) + 1)) if node else ""


def _in_words(error: BaseException) -> str:
    said = shortened(str(error).partition("\n\n")[0])  # torch.export puts advice behind it
    return said if isinstance(error, CheckpointError) else f"{type(error).__name__}: {said}".removesuffix(": ")
