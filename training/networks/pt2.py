"""Reads a .pt2 file, as `torch.export.save` writes it, into a program and its tensors.

The archive is a zip file with a graph as JSON and weights as raw bytes. Torch's own reader is never asked: it evaluates
text of the graph. Here each call becomes a node of our document, or is refused. The format is described in torch's
`torch/export/pt2_archive/` and `torch/_export/serde/schema.py`.
"""

import json
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch

from classifier.header import CheckpointError
from classifier.program.document import (
    Argument,
    DTypeRef,
    InfinityRef,
    MemoryFormatRef,
    Node,
    Program,
    Scalar,
    TensorRef,
    TensorSpec,
    ValueRef,
    WordRef,
)
from classifier.program.operators import OPERATORS
from training.errors import TrainingError

_MAX_JSON = 1 << 27  # bytes
_SCHEMA = 8  # the major version of torch's schema that this reads
# By the numbers that torch's schema gives them.
_DTYPES = {
    1: torch.uint8,
    2: torch.int8,
    3: torch.int16,
    4: torch.int32,
    5: torch.int64,
    6: torch.float16,
    7: torch.float32,
    8: torch.float64,
    12: torch.bool,
    13: torch.bfloat16,
}
_MEMORY_FORMATS = {1: "contiguous_format", 2: "channels_last", 4: "preserve_format"}
_KEYWORD = 2
_NO_DEVICE = {"device", "layout", "pin_memory", "generator", "non_blocking", "copy"}
_SIZE_OPERATORS = {
    "_operator.add": "size_add",
    "_operator.sub": "size_sub",
    "_operator.mul": "size_mul",
    "_operator.floordiv": "size_floordiv",
    "_operator.mod": "size_mod",
    "torch.sym_max": "size_max",
    "torch.sym_min": "size_min",
}
_OTHER_NAMES = {"sym_size.int": "sym_size", "_unsafe_view": "view"}
# Their result is what they are given.
_SAME = {"alias", "detach", "detach_", "lift_fresh_copy", "lift_fresh", "dropout", "feature_dropout", "alpha_dropout"}
_ASSERTIONS = ("_assert", "sym_constrain_range")


@dataclass(frozen=True, slots=True)
class Exported:
    """Holds a network as data.

    Args:
        tensors: by the names that the program uses.
        torch: the version of torch that exported it.
    """

    program: Program
    tensors: dict[str, torch.Tensor]
    torch: str


def read(file: Path | IO[bytes], name: str) -> Exported:
    """Reads an archive.

    Args:
        name: what the file is called in messages.

    Raises: TrainingError, which says what in it cannot be used, and where in the code of the network that is.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return _Archive(archive).exported()
    except zipfile.BadZipFile as error:
        raise TrainingError(f"{name} is no .pt2 file, or is damaged: {error}") from error
    except (_Unusable, CheckpointError) as error:
        raise TrainingError(f"{name}: {error}") from error
    except (KeyError, IndexError, TypeError, AttributeError, ValueError, RecursionError) as error:
        raise TrainingError(f"{name} is not as torch.export.save writes it: {type(error).__name__} {error}") from error


class _Unusable(Exception):
    """Something in the archive cannot be used; the message says what."""


class _Archive:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        names = archive.namelist()
        self._folder = names[0].partition("/")[0] if names else ""

    def exported(self) -> Exported:
        model = self._json("models/model.json")
        version = model["schema_version"]
        if version["major"] != _SCHEMA:
            raise _Unusable(f"its schema is {version['major']}.{version['minor']}, where {_SCHEMA} can be read")
        module = model["graph_module"]
        weights = self._tensors("data/weights", "model_weights_config.json", "weight_")
        constants = self._tensors("data/constants", "model_constants_config.json", "tensor_")
        graph = _Graph(module, weights, constants)
        return Exported(graph.program(), graph.tensors, str(model.get("torch_version", "unknown")))

    def _json(self, path: str) -> Any:
        return json.loads(self._bytes(path, _MAX_JSON))

    def _bytes(self, path: str, most: int | None = None) -> bytes:
        try:
            info = self._archive.getinfo(f"{self._folder}/{path}")
        except KeyError:
            raise _Unusable(
                f"it has no {path}: it is no exported program, or one of torch before 2.8; export it again"
            ) from None
        if info.compress_type != zipfile.ZIP_STORED:
            raise _Unusable(f"{path} is compressed, as torch writes none")
        if most is not None and info.file_size > most:
            raise _Unusable(f"{path} has {info.file_size:,} bytes; at most {most:,} are read")
        return self._archive.read(info)

    def _tensors(self, folder: str, config: str, prefix: str) -> dict[str, torch.Tensor]:
        entries = self._json(f"{folder}/{config}")["config"]
        files: dict[str, torch.Tensor] = {}
        tensors = {}
        for name, entry in entries.items():
            path = entry["path_name"]
            if entry["use_pickle"]:
                raise _Unusable(f"{name} is pickled, and no pickle is read; export it with plain tensors alone")
            if not path.startswith(prefix):
                raise _Unusable(f"{name} is no tensor")
            if path not in files:
                files[path] = _bytes_as_tensor(self._bytes(f"{folder}/{path}"))
            tensors[name] = _strided(files[path], entry["tensor_meta"], name)
        return tensors


def _bytes_as_tensor(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)


def _strided(data: torch.Tensor, meta: Mapping[str, Any], name: str) -> torch.Tensor:
    """Returns the tensor that lies in these bytes, in rows, without gaps."""
    dtype = _DTYPES.get(meta["dtype"])
    if dtype is None:
        raise _Unusable(f"{name} is of a type that networks here do not have")
    shape, strides = ([size["as_int"] for size in meta[key]] for key in ("sizes", "strides"))
    values = data[: len(data) // dtype.itemsize * dtype.itemsize].view(dtype)
    offset = meta["storage_offset"]["as_int"]
    needed = offset + 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if min([0, offset, *shape, *strides]) < 0 or (0 not in shape and needed > len(values)):
        raise _Unusable(f"{name} is larger than its file")
    return torch.as_strided(values, shape, strides, offset).contiguous() if 0 not in shape else values.new_empty(shape)


@dataclass
class _Graph:
    """Turns torch's graph into ours, node by node.

    Args:
        module: the graph, and what its inputs and outputs are.
        weights, constants: the tensors of the archive.
    """

    module: Mapping[str, Any]
    weights: Mapping[str, torch.Tensor]
    constants: Mapping[str, torch.Tensor]
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)  # of ours, by name
    nodes: list[Node] = field(default_factory=list)
    known: dict[str, Scalar] = field(default_factory=dict)  # what stands for each name of torch's graph

    def program(self) -> Program:
        """Returns the program. Raises: _Unusable; CheckpointError."""
        self._take_inputs()
        for node in self.module["graph"]["nodes"]:
            self._take(node)
        (output,) = self._outputs()
        specs = {
            name: TensorSpec(dtype=str(tensor.dtype).removeprefix("torch."), shape=tuple(tensor.shape))  # type: ignore[arg-type]
            for name, tensor in self.tensors.items()
        }
        return Program(tensors=specs, nodes=tuple(self.nodes), output=output)

    def _take_inputs(self) -> None:
        images = 0
        for spec in self.module["signature"]["input_specs"]:
            ((kind, content),) = spec.items()
            if kind == "user_input":
                images += 1
                self.known[content["arg"]["as_tensor"]["name"]] = ValueRef(value=0)
            elif kind == "parameter":
                self._tensor(content["arg"]["name"], "network.", content["parameter_name"], self.weights)
            elif kind == "buffer":
                persistent = content["persistent"]
                source = self.weights if persistent else self.constants
                prefix = "network." if persistent else "constant."
                self._tensor(content["arg"]["name"], prefix, content["buffer_name"], source)
            elif kind == "tensor_constant":
                self._tensor(content["arg"]["name"], "constant.", content["tensor_constant_name"], self.constants)
            else:
                raise _Unusable(f"it takes an input of the kind {kind}")
        if images != 1:
            raise _Unusable(f"it takes {images} inputs, where one is given: the images")

    def _tensor(self, ours: str, prefix: str, name: str, source: Mapping[str, torch.Tensor]) -> None:
        tensor = source[name]
        for other, known in self.tensors.items():  # tied weights stand once
            if known is tensor:
                self.known[ours] = TensorRef(tensor=other)
                return
        self.tensors[prefix + name] = tensor
        self.known[ours] = TensorRef(tensor=prefix + name)

    def _outputs(self) -> list[int]:
        specs = self.module["signature"]["output_specs"]
        kinds = [next(iter(spec)) for spec in specs]
        if kinds != ["user_output"]:
            raise _Unusable(
                f"it returns {len(kinds)} things, where logits alone are expected; "
                "in training mode it changes its buffers: call net.eval() first"
            )
        value = self.known[specs[0]["user_output"]["arg"]["as_tensor"]["name"]]
        if not isinstance(value, ValueRef):
            raise _Unusable("what it returns does not depend on the images")
        return [value.value]

    def _take(self, node: Mapping[str, Any]) -> None:
        op = _name_of(node["target"])
        if op.startswith(_ASSERTIONS):
            return
        given = {each["name"]: each for each in node["inputs"]}
        outputs = [out for each in node["outputs"] for out in _names_in(each)]
        try:
            if op in _SAME:
                if any(self._argument(each["arg"]) is True for each in given.values()):
                    raise _Unusable("dropout was left on: call net.eval() before exporting")
                self.known[outputs[0]] = self._scalar(next(iter(given.values()))["arg"])
                return
            made = self._made(op, given)
        except _Unusable as error:
            raise _Unusable(f"{error}{_where(node)}") from error
        self.nodes.append(made)
        result = ValueRef(value=len(self.nodes))
        if made.op == "batch_norm" or (len(outputs) == 1 and "as_tensors" not in node["outputs"][0]):
            self.known[outputs[0]] = result
        else:
            for i, name in enumerate(outputs):
                self.nodes.append(Node(op="getitem", args=(result, i)))
                self.known[name] = ValueRef(value=len(self.nodes))

    def _made(self, op: str, given: Mapping[str, Any]) -> Node:
        """Returns our node for a call of the operator."""
        positional = [self._argument(each["arg"]) for each in given.values() if each.get("kind") != _KEYWORD]
        keywords = {
            name: self._argument(each["arg"])
            for name, each in given.items()
            if each.get("kind") == _KEYWORD and name not in _NO_DEVICE
        }
        if op == "_native_batch_norm_legit_no_training":
            return Node(op="batch_norm", args=(*positional[:5], positional[6]))
        if op == "batch_norm":
            if positional[5] is not False:
                raise _Unusable("a batch norm is in training mode: call net.eval() before exporting")
            return Node(op="batch_norm", args=(*positional[:5], positional[7]))
        if op == "scaled_dot_product_attention":
            dropout = keywords.pop("dropout_p", positional.pop(4) if len(positional) > 4 else 0.0)
            if dropout != 0:
                raise _Unusable("dropout was left on in attention: call net.eval() before exporting")
            if len(positional) > 4:
                keywords["is_causal"] = positional.pop(4)
            keywords.pop("enable_gqa", None)
        if op == "to.dtype":
            positional = positional[:2]
        if op == "_to_copy":
            keywords.pop("memory_format", None)
            dtype = keywords.pop("dtype", None)
            op, positional = ("clone", positional) if dtype is None else ("to.dtype", [*positional, dtype])
        if op not in OPERATORS:
            raise _Unusable(f"it uses {op}, which is not among the operators that are served")
        return Node(op=op, args=tuple(positional), kwargs={k: v for k, v in keywords.items() if v is not None})

    def _argument(self, argument: Mapping[str, Any]) -> Argument:
        ((kind, content),) = argument.items()
        match kind:
            case "as_tensors" | "as_sym_ints" | "as_sym_floats" | "as_optional_tensors":
                return tuple(self._scalar(each if kind != "as_tensors" else {"as_tensor": each}) for each in content)
            case "as_ints" | "as_floats" | "as_bools":
                return tuple(_number(each) for each in content)
        return self._scalar(argument)

    def _scalar(self, argument: Mapping[str, Any]) -> Scalar:
        ((kind, content),) = argument.items()
        match kind:
            case "as_none":
                return None
            case "as_tensor":
                return self.known[content["name"]]
            case "as_optional_tensor" | "as_sym_int" | "as_sym_float":
                return self._scalar(content)
            case "as_name":
                return self.known[content]
        return _constant(kind, content)


def _constant(kind: str, content: Any) -> Scalar:
    match kind:
        case "as_int" | "as_float" | "as_bool":
            return _number(content)
        case "as_string":
            return WordRef(word=content)
        case "as_scalar_type":
            if content in (6, 13):  # half precision is the server's choice
                return DTypeRef(dtype="float32")
            return DTypeRef(dtype=str(_DTYPES[content]).removeprefix("torch."))  # type: ignore[arg-type]
        case "as_memory_format":
            return MemoryFormatRef(memory_format=_MEMORY_FORMATS[content])  # type: ignore[arg-type]
        case "as_device" | "as_layout":
            return None  # it is where the network is
    raise _Unusable(f"an argument of the kind {kind[3:]} is not among those that are served")


def _number(value: Any) -> Scalar:
    # Torch writes infinite numbers as words.
    if value in ("Infinity", "-Infinity", float("inf"), float("-inf")):
        return InfinityRef(infinity="-inf" if str(value).startswith("-") else "inf")
    return value  # type: ignore[no-any-return]


def _name_of(target: str) -> str:
    """Returns the name of an operator without torch's prefix and without `.default`."""
    if target in _SIZE_OPERATORS:
        return _SIZE_OPERATORS[target]
    name = target.removeprefix("torch.ops.aten.").removesuffix(".default")
    return _OTHER_NAMES.get(name, name)


def _names_in(output: Mapping[str, Any]) -> Iterator[str]:
    ((kind, content),) = output.items()
    match kind:
        case "as_tensor":
            yield content["name"]
        case "as_tensors":
            yield from (each["name"] for each in content)
        case "as_sym_int" | "as_sym_float" | "as_sym_bool":
            yield content["as_name"]


def _where(node: Mapping[str, Any]) -> str:
    """Says where in a person's own code a node comes from."""
    frames = [line.strip() for line in node.get("metadata", {}).get("stack_trace", "").split("\n")]
    own = [frame for frame in frames if frame.startswith("File ") and "site-packages" not in frame]
    return f" ({own[-1]})" if own else ""
