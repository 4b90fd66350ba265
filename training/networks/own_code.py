"""Makes networks of a person's own code: `my_net.py:Net`, or `package.module:factory`.

The class or function is called with those of these keywords that its signature has: `num_classes`, `in_channels`,
`image_size` (an int if the images are square, else (height, width)); and with the options that were set. `**kwargs`
take `num_classes`.

Code is loaded once in a process, and is then known by the name of its architecture, which holds no folder.
"""

import functools
import inspect
import itertools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from classifier.manifest import Code
from training.errors import TrainingError
from training.networks import code_files
from training.networks.code_files import CodeFile, in_words

_KNOWN: "dict[str, OwnCode]" = {}  # by architecture
_GIVEN = ("num_classes", "in_channels", "image_size")
_ANY = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
_BY_KEYWORD = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
_MISFIT = re.compile(r"mat1 and mat2 shapes cannot be multiplied \(\d+x(\d+) and (\d+)x\d+\)")


@dataclass(frozen=True, slots=True, eq=False)
class OwnCode:
    """Holds a class or a function that makes a network.

    Args:
        architecture: what checkpoints and recipes call the network: `my_net.py:Net`, without a folder.
        file: the code that it is in.
        factory: the class or the function.
        parameters: of its signature, by name.
        metas: networks without values that were made before.
    """

    architecture: str
    file: CodeFile
    factory: Callable[..., Any]
    parameters: Mapping[str, inspect.Parameter]
    metas: dict[str, nn.Module] = field(default_factory=dict)

    @property
    def takes_num_classes(self) -> bool:
        """Whether the number of classes can be chosen. If not, the code alone decides it."""
        return self.takes("num_classes") or self.takes_any

    @property
    def takes_any(self) -> bool:
        """Whether the signature has `**kwargs`."""
        return any(parameter.kind is parameter.VAR_KEYWORD for parameter in self.parameters.values())

    def takes(self, keyword: str) -> bool:
        """Tells whether the signature has this keyword itself."""
        return keyword in self.parameters and self.parameters[keyword].kind in _BY_KEYWORD

    @property
    def place(self) -> str:
        """The line where the class's constructor or the function begins, as `my_net.py:14`; else its file."""
        made_by = inspect.unwrap(self.factory.__init__ if inspect.isclass(self.factory) else self.factory)
        code = getattr(made_by, "__code__", None)
        return (None if code is None else self.file.line(code)) or self.file.typed

    def forward_of(self, network: nn.Module) -> str:
        """Returns the line where the network's `forward` begins, as `my_net.py:14`; else that of the constructor."""
        code = getattr(inspect.unwrap(type(network).forward), "__code__", None)
        return (None if code is None else self.file.line(code)) or self.place

    def manifest(self) -> Code | None:
        """Returns the code as a manifest holds it; None if there is no text of it."""
        text = self.file.text
        if text is None:
            return None
        names = tuple(self.file.beside)
        return Code(file=self.file.name, sha256=self.file.hashes[self.file.name], text=text, imports=names or None)


def load(typed: str) -> OwnCode:
    """Loads code as a person names it, and makes it known by its architecture from now on.

    Args:
        typed: the path of a file, or the name of a module; a colon; and the name of a class or a function in it.

    Raises: TrainingError, which says what is wrong with the code, and in which line.
    """
    where, colon, name = typed.rpartition(":")
    if not colon or not where or not name:
        raise TrainingError(f"{typed!r} names no network: that is a file, a colon and a class, as in my_net.py:Net")
    with torch.random.fork_rng(devices=[]):  # many a file sets a seed
        file = code_files.load(where)
    factory = _named(file, name)
    try:
        parameters = inspect.signature(factory).parameters
    except (TypeError, ValueError) as error:
        raise TrainingError(f"{typed}: Python does not know what it takes; write a function that calls it") from error
    code = OwnCode(f"{file.name}:{name}", file, factory, parameters)
    _KNOWN[code.architecture] = code
    return code


def known(architecture: str) -> OwnCode:
    """Returns the code that makes this architecture. It is loaded now if it was not before.

    Raises: TrainingError, which says what is wrong with the code, and in which line.
    """
    return _KNOWN.get(architecture) or load(architecture)


def check(architecture: str, options: Mapping[str, Any]) -> None:
    """Checks that the signature has these options, and that nothing else that it wants is missing. It runs nothing.

    Raises: TrainingError if not, and what `load` raises.
    """
    code = known(architecture)
    takes = [name for name in code.parameters if code.takes(name)]
    for name in options:
        if name in _GIVEN:
            raise TrainingError(f"network.{name}: the data and the preprocess decide it; set other values only")
        if name not in takes and not code.takes_any:
            raise TrainingError(
                f"network.{name}: {code.place}: {code.architecture} takes {', '.join(takes) or 'nothing'}"
            )
    for name, parameter in code.parameters.items():
        if parameter.default is not parameter.empty or parameter.kind in _ANY:
            continue
        if parameter.kind is parameter.POSITIONAL_ONLY:
            raise TrainingError(f"{code.place}: {name} of {code.architecture} cannot be given by its name")
        if name not in _GIVEN and name not in options:
            raise TrainingError(
                f"{code.place}: {code.architecture} wants {name}, which is not given ({', '.join(_GIVEN)} are): "
                f"rename it, give it a default, or --set network.{name}=VALUE"
            )


def build(architecture: str, num_classes: int, shape: tuple[int, int, int], options: Mapping[str, Any]) -> nn.Module:
    """Returns the network with fresh weights, on the CPU.

    Args:
        architecture: as `load` returned it, or a person types it.
        shape: (channels, height, width).
        options: more keywords, with their values.

    Raises: TrainingError, which says what is wrong with the code, and in which line.
    """
    check(architecture, options)
    code = known(architecture)
    try:
        network = code.factory(**_keywords(code, num_classes, shape, options))
    except (Exception, SystemExit) as error:
        raise TrainingError(f"{_blame(code, error)}: {in_words(error)}") from error
    if not isinstance(network, nn.Module):
        raise TrainingError(f"{code.place}: {code.architecture} makes {_kind(network)}, not a torch.nn.Module")
    tensors = dict(itertools.chain(network.named_parameters(), network.named_buffers()))
    for name, tensor in tensors.items():
        if tensor.device.type != "cpu":
            raise TrainingError(
                f"{code.place}: {code.architecture} puts {name} on {tensor.device}: leave it on the CPU, "
                "and choose by --device where it trains"
            )
    if any(nn.parameter.is_lazy(tensor) for tensor in tensors.values()):
        _give_shapes(network, code, shape)
    if not any(True for _ in network.parameters()):
        raise TrainingError(f"{code.place}: {code.architecture} has no parameters: there is nothing to train")
    return network


def meta(architecture: str, num_classes: int, shape: tuple[int, int, int], options: Mapping[str, Any]) -> nn.Module:
    """Returns what `build` returns, with names, types and shapes, but without values. It draws no random number.

    It is made once and then kept, because a constructor may take long: leave it as it is.

    Raises: TrainingError as `build`.
    """
    code = known(architecture)
    key = json.dumps([num_classes, shape, dict(options)], sort_keys=True)
    if key not in code.metas:
        # The constructor may compute with tensors, which needs values.
        with torch.random.fork_rng(devices=[]):
            code.metas[key] = build(architecture, num_classes, shape, options).to("meta")
    return code.metas[key]


def forward_error(
    architecture: str, network: nn.Module, shape: tuple[int, int, int], error: BaseException
) -> TrainingError:
    """Returns the error for a person whose network raised `error` when it was given images.

    Args:
        shape: of one image: (channels, height, width).
    """
    code = known(architecture)
    channels, height, width = shape
    given = f"images of {height}x{width}x{channels} (height, width, channels)"
    misfit = _MISFIT.search(str(error))
    if misfit is not None:
        reason = f"a linear layer for {misfit[2]} numbers is given {misfit[1]} of each image, with {given}"
        return TrainingError(
            f"{_blame(code, error, network)}: {reason}; change the layer, or the size: --set preprocess.resize=[H,W]"
        )
    return TrainingError(f"{_blame(code, error, network)}: {in_words(error)}; it was given {given}")


def _named(file: CodeFile, name: str) -> Callable[..., Any]:
    try:
        found = functools.reduce(getattr, name.split("."), file.module)
    except AttributeError as error:
        there = [each for each, value in vars(file.module).items() if _is_network_class(value, file)]
        hint = f"; it has {', '.join(there[:5])}" if there else ""
        raise TrainingError(f"{file.typed} has no class or function {name!r}{hint}") from error
    if isinstance(found, nn.Module):
        raise TrainingError(
            f"{file.typed}: {name} is a network that is made already: name its class, {type(found).__name__}, "
            "or a function that returns it"
        )
    if not callable(found):
        raise TrainingError(f"{file.typed}: {name} is {_kind(found)}, neither a class nor a function")
    factory: Callable[..., Any] = found
    return factory


def _is_network_class(value: object, file: CodeFile) -> bool:
    return inspect.isclass(value) and issubclass(value, nn.Module) and value.__module__ == file.module.__name__


def _keywords(
    code: OwnCode, num_classes: int, shape: tuple[int, int, int], options: Mapping[str, Any]
) -> dict[str, Any]:
    channels, height, width = shape
    size = height if height == width else (height, width)
    given: dict[str, Any] = dict(zip(_GIVEN, (num_classes, channels, size), strict=True))
    keywords = {name: value for name, value in given.items() if code.takes(name)}
    if code.takes_num_classes:
        keywords["num_classes"] = num_classes
    return {**keywords, **options}


def _give_shapes(network: nn.Module, code: OwnCode, shape: tuple[int, int, int]) -> None:
    """Gives layers such as LazyLinear the shapes that they take from their first images."""
    try:
        with torch.no_grad():
            network.eval()(torch.zeros(2, *shape))
    except Exception as error:
        raise forward_error(code.architecture, network, shape, error) from error
    finally:
        network.train()


def _blame(code: OwnCode, error: BaseException, network: nn.Module | None = None) -> str:
    """Returns the line of a person's code that an error comes from; where `forward` begins if there is none."""
    place = code.file.place_of(error)
    if place != code.file.typed:
        return place
    return code.place if network is None else code.forward_of(network)


def _kind(value: object) -> str:
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiouAEIOU' else 'a'} {name}"
