"""Lets a file of weights hold harmless things beside the weights, without running anything of them.

`torch.load(weights_only=True)` refuses each type that it does not know. The types below are known by their names, and
each is read as a stand-in of this file. So neither the real type nor its library is called, whatever a file makes of
it. What is not listed stays refused.
"""

import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch


class StandIn:
    """Takes the place of an object. It keeps the object's fields if they are a dictionary, and does nothing."""

    __slots__ = ("fields",)
    fields: dict[Any, Any]

    def __new__(cls, *_: Any) -> Any:
        self = super().__new__(cls)
        self.fields = {}
        return self

    def __setstate__(self, state: Any) -> None:
        self.fields = state if isinstance(state, dict) else {}

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class _Dictionary(StandIn):
    """Takes the place of a kind of dictionary. An OrderedDict is what torch's reader fills and gives attributes."""

    def __new__(cls, *_: Any) -> Any:
        return OrderedDict()


class _List(StandIn):
    def __new__(cls, *_: Any) -> Any:
        return []


class _DType(StandIn):
    """Takes the place of a NumPy type, e.g. "f8" and then "<"."""

    __slots__ = ("_code", "_order")
    _code: Any
    _order: str

    def __new__(cls, code: Any = "", *_: Any) -> Any:
        self = super().__new__(cls)
        self._code, self._order = code, "="
        return self

    def __setstate__(self, state: Any) -> None:
        if isinstance(state, tuple) and len(state) > 1 and state[1] in ("<", ">"):
            self._order = state[1]

    @property
    def plain(self) -> npt.DTypeLike | None:
        """The type, if it is of numbers, truth values or texts; else None: no object is made."""
        if not (isinstance(self._code, str) and re.fullmatch(r"[biufSU][1-9]\d{0,3}", self._code)):
            return None
        dtype: np.dtype[Any] = np.dtype(self._code)
        return dtype.newbyteorder(self._order)  # type: ignore[arg-type]


class Array(StandIn):
    """Takes the place of a NumPy array.

    `values` is None unless the array holds numbers, truth values or texts.
    """

    __slots__ = ("values",)
    values: npt.NDArray[Any] | None

    def __new__(cls, *_: Any) -> Any:
        self = super().__new__(cls)
        self.values = None
        return self

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, by_columns, data = state
        values = _values(dtype, data)
        if values is not None:
            self.values = values.reshape(shape, order="F" if by_columns else "C")


def _scalar(dtype: Any, data: Any = b"") -> Any:
    values = _values(dtype, data)
    return StandIn() if values is None or len(values) != 1 else values[0].item()


def _values(dtype: Any, data: Any) -> npt.NDArray[Any] | None:
    like = dtype.plain if isinstance(dtype, _DType) else None
    if like is None or not isinstance(data, bytes):
        return None
    values = np.frombuffer(data, like)
    return values.astype(values.dtype.newbyteorder("="))


_NODES = "AnyNode StringNode IntegerNode FloatNode BooleanNode BytesNode PathNode EnumNode"
_PATHS = "Path PosixPath WindowsPath PurePath PurePosixPath PureWindowsPath"
_NUMBERS = "bool bool_ float16 float32 float64 int8 int16 int32 int64 uint8 uint16 uint32 uint64 str_"

# The names in each module: of objects, of kinds of dictionaries, and of kinds of lists.
_OBJECTS = {
    "argparse": "Namespace",
    "builtins": "bool dict float frozenset int list range slice str tuple",
    "datetime": "date datetime time timedelta timezone",
    "decimal": "Decimal",
    "fractions": "Fraction",
    "mmengine.logging.history_buffer": "HistoryBuffer",
    "numpy": _NUMBERS,
    "numpy.random._generator": "Generator",
    "numpy.random._mt19937": "MT19937",
    "numpy.random._pcg64": "PCG64",
    "numpy.random.bit_generator": "SeedSequence __pyx_unpickle_SeedSequence",
    "numpy.random._pickle": "__randomstate_ctor __generator_ctor __bit_generator_ctor",
    "numpy.random.mtrand": "RandomState",
    "omegaconf.base": "ContainerMetadata Metadata",
    "omegaconf.dictconfig": "DictConfig",
    "omegaconf.listconfig": "ListConfig",
    "omegaconf.nodes": _NODES,
    "pathlib": _PATHS,
    "pathlib._local": _PATHS,  # Python 3.13
    "pytorch_lightning.callbacks.early_stopping": "EarlyStopping",
    "pytorch_lightning.callbacks.model_checkpoint": "ModelCheckpoint",
    "torch.torch_version": "TorchVersion",
    "torchvision.transforms.autoaugment": "AutoAugmentPolicy",
    "torchvision.transforms.functional": "InterpolationMode",
    "types": "SimpleNamespace",
    "typing": "Any",
    "uuid": "SafeUUID UUID",
}
_DICTIONARIES = {
    "addict.addict": "Dict",
    "collections": "defaultdict",
    "easydict": "EasyDict",
    "fvcore.common.config": "CfgNode",
    "lightning.fabric.utilities.data": "AttributeDict",
    "lightning.pytorch.utilities.parsing": "AttributeDict",
    "lightning_fabric.utilities.data": "AttributeDict",
    "mmcv.utils.config": "ConfigDict",
    "mmengine.config.config": "ConfigDict",
    "munch": "Munch",
    "pytorch_lightning.utilities.parsing": "AttributeDict",
    "yacs.config": "CfgNode",
}
_LISTS = {"collections": "deque"}


def _by_name() -> dict[str, Any]:
    kinds = {StandIn: _OBJECTS, _Dictionary: _DICTIONARIES, _List: _LISTS}
    numpy_1_and_2 = ("numpy.core.multiarray", "numpy._core.multiarray")
    return (
        {
            f"{module}.{name}": type(name, (kind,), {"__slots__": ()})
            for kind, modules in kinds.items()
            for module, names in modules.items()
            for name in names.split()
        }
        | {"builtins.bytes": _no_bytes, "numpy.dtype": _DType, "numpy.ndarray": Array}
        | {f"{module}.scalar": _scalar for module in numpy_1_and_2}
        | {f"{module}._reconstruct": _reconstruct for module in numpy_1_and_2}
    )


def _reconstruct(*_: Any) -> Any:
    return Array()


def _no_bytes(*_: Any) -> bytes:
    return b""  # which is all that a pickle makes by a call of `bytes`


_ALLOWED: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [
    (stand_in, name) for name, stand_in in _by_name().items()
]


@contextmanager
def allowed() -> Iterator[None]:
    """Makes `torch.load(weights_only=True)` read the listed types as their stand-ins, until the end of the block."""
    with torch.serialization.safe_globals(_ALLOWED):
        yield
