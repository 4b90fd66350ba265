"""Turns torch's graph, as it stands in a .pt2 file, into a program of ours, call by call.

Each call becomes a node of our document, or is refused with the line of the person's code that it comes from. What
changes tensors in place becomes what makes new ones. The graph is described in torch's `torch/_export/serde/schema.py`.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from pydantic import ValidationError
from torch._ops import OperatorBase

from classifier.header import CheckpointError
from classifier.program.document import (
    MAX_NODES,
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
from training.networks import places
from training.networks.pt2_memory import Memory, Variable
from training.networks.pt2_operators import BATCH_STATISTICS, DROPOUT, REWRITES, Composite, Unusable, refusal

# By the numbers that torch's schema gives them.
DTYPES = {
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
HALF = (torch.float16, torch.bfloat16)
_COMPLEX = (9, 10, 11)
_MEMORY_FORMATS = {1: "contiguous_format", 2: "channels_last", 4: "preserve_format"}
_KEYWORD = 2
_NO_DEVICE = {"device", "layout", "pin_memory", "generator", "non_blocking", "copy"}
_ATEN = "torch.ops.aten."
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
_SAME = {
    *("alias", "detach", "detach_", "lift_fresh", "lift_fresh_copy"),
    *("dropout", "dropout_", "feature_dropout", "feature_dropout_", "alpha_dropout", "alpha_dropout_"),
}
_ASSERTIONS = ("_assert", "sym_constrain_range")
# They may return the same memory, seen in another way.
_VIEWS = {
    *("chunk", "contiguous", "diagonal", "expand", "expand_as", "flatten.using_ints", "movedim.int", "permute"),
    *("reshape", "select.int", "slice.Tensor", "split.Tensor", "split_with_sizes", "squeeze", "squeeze.dim"),
    *("squeeze.dims", "t", "to.dtype", "transpose.int", "type_as", "unbind.int", "unflatten.int", "unsqueeze", "view"),
}
_SCATTERS = {"slice.Tensor": "slice_scatter", "select.int": "select_scatter"}
_SHAPE_IN_PLACE = {"squeeze_", "unsqueeze_", "transpose_", "t_", "swapaxes_", "swapdims_", "resize_", "set_"}
_LETTERS = {letter: i for i, letter in enumerate("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")}
_EVAL = "call net.eval() before exporting, and let forward change nothing"
_MOST = 1e300
_LONGEST_EQUATION = 100
# Torch's operators of these have more than one result.
_FIRST_ONLY = {"batch_norm", "standardize", "layer_norm", "group_norm", "max_pool2d"}
_OTHER_IN_PLACE = {"zero_": "zero", "fill_.Scalar": "fill.Scalar", "fill_.Tensor": "fill.Tensor", "copy_": "copy"}
_OWN_NAMES = {*_SIZE_OPERATORS.values(), *_OTHER_NAMES.values(), "getitem"}


@dataclass
class Graph:
    """Reads one graph.

    Args:
        module: the graph, and what its inputs and outputs are.
        weights, constants: the tensors of the archive.
        tensors: those of the program, by name. This and what follows is filled by `program`.
        places: where in a person's code a value comes from, by its number.
        shape: of an image: (channels, height, width), None where it may be any.
        notes: what was changed, in words.
    """

    module: Mapping[str, Any]
    weights: Mapping[str, torch.Tensor]
    constants: Mapping[str, torch.Tensor]
    tensors: dict[str, torch.Tensor] = field(default_factory=dict)
    places: dict[int, str] = field(default_factory=dict)
    shape: tuple[int | None, ...] = ()
    notes: dict[str, None] = field(default_factory=dict)
    _nodes: list[Node] = field(default_factory=list)
    _known: dict[str, Variable] = field(default_factory=dict)  # what stands for each name of torch's graph
    _of_images: set[int] = field(default_factory=lambda: {0})  # the values that depend on the images
    _empty: set[str] = field(default_factory=set)  # names of tensors without any number
    _unknown: dict[str, str] = field(default_factory=dict)  # names of what cannot be computed here, and the operator

    def program(self, ranges: Mapping[str, Any]) -> Program:
        """Returns the program.

        Args:
            ranges: of the symbols that stand for sizes.

        Raises: Unusable; CheckpointError.
        """
        self._take_inputs(ranges)
        for node in self.module["graph"]["nodes"]:
            try:
                self._take(node)
            except Unusable as error:
                place = places.of_trace(str(_metadata(node).get("stack_trace", "")))
                raise type(error)(f"{error}{places.behind(place)}") from error
        return Program(
            tensors={name: _spec(name, tensor) for name, tensor in self.tensors.items()},
            nodes=tuple(self._nodes),
            output=self._output(),
        )

    def _take_inputs(self, ranges: Mapping[str, Any]) -> None:
        inputs = []
        for spec in self.module["signature"]["input_specs"]:
            ((kind, content),) = spec.items()
            if kind == "user_input":
                inputs.append(content["arg"])
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
                raise Unusable(f"it takes an input of the kind {kind}, where images alone are given")
        if len(inputs) != 1:
            raise Unusable(f"it takes {len(inputs)} inputs, where one is given: the images")
        if "as_tensor" not in inputs[0]:
            raise Unusable("its input is no tensor: give it the images")
        name = inputs[0]["as_tensor"]["name"]
        self._known[name] = Variable(ValueRef(value=0), Memory())
        self._take_images(self.module["graph"]["tensor_values"][name], ranges)

    def _take_images(self, meta: Mapping[str, Any], ranges: Mapping[str, Any]) -> None:
        batch, *shape = meta["sizes"]
        if len(shape) != 3:
            raise Unusable(
                f"its input has {len(shape) + 1} dimensions, where images [n, channels, height, width] are given"
            )
        if "as_int" in batch:
            raise Unusable(f"it computes batches of {batch['as_int']} alone: its first dimension is not dynamic")
        symbol = re.match(r"(?:Symbol\(')?(\w+)", batch["as_expr"]["expr_str"])
        bounds = ranges.get(symbol[1], {}) if symbol else {}
        least, most = bounds.get("min_val"), bounds.get("max_val")
        if (least or 0) > 2 or most is not None:
            raise Unusable(
                f"it computes batches of {least or 1} to {most or 'more'} alone, where any size from 1 is needed"
            )
        if DTYPES.get(meta["dtype"]) in HALF:
            self._note_half()
        elif meta["dtype"] != 7:
            raise Unusable(f"its input is {_type_word(meta['dtype'])}, where images of float32 are given")
        self.shape = tuple(size.get("as_int") for size in shape)

    def _tensor(self, ours: str, prefix: str, name: str, source: Mapping[str, torch.Tensor]) -> None:
        tensor = source[name]
        tied = next((other for other, known in self.tensors.items() if known is tensor), None)
        if tied is None:  # tied weights stand once
            self.tensors[prefix + name] = tensor
        self._known[ours] = Variable(TensorRef(tensor=tied or prefix + name), Memory(tensor=name))

    def _output(self) -> int:
        specs = self.module["signature"]["output_specs"]
        for spec in specs:
            ((kind, content),) = spec.items()
            if kind == "buffer_mutation":
                changed = self._known.get(content["arg"]["name"])
                number = changed.value.value if changed and isinstance(changed.value, ValueRef) else 0
                place = places.behind(self.places.get(number))
                raise Unusable(f"it changes its buffer {content['buffer_name']}: {_EVAL}{place}")
        if len(specs) != 1 or "user_output" not in specs[0]:
            raise Unusable(f"it returns {len(specs)} things, where logits alone are expected: return one tensor")
        argument = specs[0]["user_output"]["arg"]
        if "as_tensor" not in argument:
            raise Unusable("it returns no tensor, where logits are expected")
        value = self._scalar(argument)
        if not isinstance(value, ValueRef) or value.value == 0:
            raise Unusable("what it returns is not computed of the images")
        return value.value

    def _take(self, node: Mapping[str, Any]) -> None:
        target = node["target"]
        name = _name_of(target)
        if name.startswith(_ASSERTIONS):
            return
        outputs = [out for each in node["outputs"] for out in _names_in(each)]
        if _is_condition(target, node["outputs"]):
            self._unknown.update(dict.fromkeys(outputs, target))  # asserted of sizes, as a rule, and nothing else
            return
        if outputs and all(self._is_empty(each) for each in outputs):
            self._empty.update(outputs)
            return
        inputs = _inputs(name, node["inputs"])
        first = self._variable(inputs[0].argument) if inputs else None
        if name in _SAME:
            if any(each.argument == {"as_bool": True} for each in inputs):
                raise Unusable(DROPOUT)
            self._known[outputs[0]] = first or Variable(self._scalar(inputs[0].argument), Memory())
        elif _is_in_place(name):
            self._change(name, inputs, first)
            self._known[outputs[0]] = _there(first)
        else:
            self._add(name, inputs, first, node, outputs)

    def _add(
        self,
        name: str,
        inputs: Sequence["_Input"],
        first: Variable | None,
        node: Mapping[str, Any],
        outputs: Sequence[str],
    ) -> None:
        """Adds what makes new values."""
        made = self._made(name, inputs)
        result = self._append(made, node)
        shares = first is not None and made.op in _VIEWS
        memory = first.memory if first is not None and shares else Memory()
        if made.op in _FIRST_ONLY or (len(outputs) == 1 and "as_tensors" not in node["outputs"][0]):
            variable = Variable(result, memory)
            if shares and made.op in _SCATTERS and not made.kwargs:
                variable.part_of, variable.part = first, made
            self._known[outputs[0]] = memory.holding(variable)
            self._unknown.update(dict.fromkeys(outputs[1:], name))
            return
        for i, output in enumerate(outputs):
            part = self._append(Node(op="getitem", args=(result, i)), node)
            self._known[output] = memory.holding(Variable(part, memory))

    def _change(self, name: str, inputs: Sequence["_Input"], first: Variable | None) -> None:
        """Adds what an operator that works in place would write, and gives it the names of what it changes."""
        variable = _there(first)
        if name.partition(".")[0] in _SHAPE_IN_PLACE:
            raise Unusable(f"it uses {name}, which changes a tensor's shape in place")
        if variable.memory.tensor is not None:
            raise Unusable(f"it changes its buffer {variable.memory.tensor}: {_EVAL}")
        base, _, overload = name.partition(".")
        functional = _OTHER_IN_PLACE.get(name) or base[:-1] + (f".{overload}" if overload else "")
        made = self._append(self._made(functional, inputs))
        if functional in ("copy", "fill.Tensor") or self._mixes_types(inputs):
            made = self._append(Node(op="type_as", args=(made, variable.value)))
        self._write(variable, made)

    def _write(self, variable: Variable, value: Scalar) -> None:
        """Gives a variable a new value, and all that it is a part of; whatever else shares its memory gets lost."""
        changed = [variable]
        variable.value = value
        while variable.part_of is not None and variable.part is not None:
            whole = variable.part_of
            if whole.value is None:
                break
            scatter = Node(op=_SCATTERS[variable.part.op], args=(whole.value, value, *variable.part.args[1:]))
            value = whole.value = self._append(scatter)
            changed.append(whole)
            variable = whole
        variable.memory.keep(changed)

    def _append(self, node: Node, source: Mapping[str, Any] | None = None) -> ValueRef:
        if len(self._nodes) >= MAX_NODES:
            raise CheckpointError(f"it has more than {MAX_NODES:,} nodes, which are the most that are served")
        self._nodes.append(node)
        number = len(self._nodes)
        if not self._of_images.isdisjoint(node.values()):
            self._of_images.add(number)
            if node.op == "standardize":  # what it does to weights is done once
                raise Unusable(BATCH_STATISTICS)
        place = places.of_trace(str(_metadata(source).get("stack_trace", ""))) if source else None
        if place is not None:
            self.places[number] = place
        return ValueRef(value=number)

    def _made(self, name: str, inputs: Sequence["_Input"]) -> Node:
        """Returns our node for a call of the operator."""
        if name == "einsum":
            return self._einsum(inputs)
        if name not in OPERATORS and name not in REWRITES:
            composite = name in {_named(each) for each in decompositions()}
            raise (Composite if composite else Unusable)(refusal(name))
        positional = [self._argument(each.argument) for each in inputs if not each.keyword]
        keywords = {each.name: self._argument(each.argument) for each in inputs if each.keyword}
        keywords = {key: value for key, value in keywords.items() if key not in _NO_DEVICE and value is not None}
        rewrite = REWRITES.get(name)
        if rewrite is not None:
            name, positional, keywords = rewrite(positional, keywords)
        try:
            return Node(op=name, args=tuple(positional), kwargs=keywords)
        except ValidationError as error:
            raise Unusable(f"it uses {name} in a way that is not served: {_problem(error)}") from error

    def _einsum(self, inputs: Sequence["_Input"]) -> Node:
        """Returns the node that has numbers in place of the letters."""
        equation = str(inputs[0].argument["as_string"]).replace(" ", "")
        tensors = self._argument(inputs[1].argument)
        left, arrow, result = equation.partition("->")
        if not arrow:
            result = "".join(sorted(letter for letter in set(left) - {","} if left.count(letter) == 1))
        terms = [*left.split(","), result]
        if not isinstance(tensors, tuple) or len(terms) != len(tensors) + 1:
            raise Unusable("its einsum has another number of terms than of tensors")
        if not set("".join(terms)) <= _LETTERS.keys() or len(equation) > _LONGEST_EQUATION:
            raise Unusable(f"its einsum {equation[:_LONGEST_EQUATION]!r} is not served: write it with letters alone")
        return Node(op="einsum", args=(tensors, *(tuple(_LETTERS[letter] for letter in term) for term in terms)))

    def _argument(self, argument: Mapping[str, Any]) -> Argument:
        ((kind, content),) = argument.items()
        match kind:
            case "as_tensors":
                # To join nothing to other tensors changes nothing.
                return tuple(self._scalar({"as_tensor": each}) for each in content if each["name"] not in self._empty)
            case "as_sym_ints" | "as_sym_floats" | "as_optional_tensors":
                return tuple(self._scalar(each) for each in content)
            case "as_ints" | "as_floats" | "as_bools":
                return tuple(_number(each) for each in content)
        return self._scalar(argument)

    def _scalar(self, argument: Mapping[str, Any]) -> Scalar:
        ((kind, content),) = argument.items()
        match kind:
            case "as_none":
                return None
            case "as_tensor":
                return self._value(content["name"])
            case "as_optional_tensor" | "as_sym_int" | "as_sym_float":
                return self._scalar(content)
            case "as_name":
                return self._value(content)
            case "as_scalar_type" if DTYPES.get(content) in HALF:
                self._note_half()
                return DTypeRef(dtype="float32")
        return _constant(kind, content)

    def _is_empty(self, name: str) -> bool:
        meta = self.module["graph"]["tensor_values"].get(name)
        return meta is not None and {"as_int": 0} in meta["sizes"]

    def _value(self, name: str) -> Scalar:
        if name in self._empty:
            raise Unusable("it computes with a tensor that is empty: leave such a part out")
        if name in self._unknown:
            raise Unusable(f"it computes with {self._unknown[name]}, which is not among the operators that are served")
        value = self._known[name].value
        if value is None:
            raise Unusable(
                "it uses a tensor that was changed in place through another one, which is not followed here: "
                "let torch take it apart, by .run_decompositions({})"
            )
        return value

    def _variable(self, argument: Mapping[str, Any]) -> Variable | None:
        return self._known.get(argument["as_tensor"]["name"]) if "as_tensor" in argument else None

    def _mixes_types(self, inputs: Sequence["_Input"]) -> bool:
        metas = self.module["graph"]["tensor_values"]
        names = [each.argument["as_tensor"]["name"] for each in inputs if "as_tensor" in each.argument]
        return len({metas[name]["dtype"] for name in names}) > 1

    def _note_half(self) -> None:
        self.notes["it computes in half precision; it is served as one of float32"] = None


def decompositions() -> dict[OperatorBase, Callable[..., Any]]:
    """Returns how torch takes apart the operators that are not served."""
    served = OPERATORS.keys() | REWRITES.keys() | _SAME | {"einsum"}
    ways: Mapping[OperatorBase, Callable[..., Any]] = torch.export.default_decompositions()
    return {each: ways[each] for each in ways if _named(each) not in served}


def _named(operator: OperatorBase) -> str:
    return _name_of(f"torch.ops.{operator}")


@dataclass(frozen=True, slots=True)
class _Input:
    name: str
    argument: Mapping[str, Any]
    keyword: bool


def _inputs(operator: str, given: Sequence[Mapping[str, Any]]) -> list[_Input]:
    """Returns the inputs, with those by position as far as the operator's schema knows them by position.

    Older files do not say which is which, and callers may name what has a position.
    """
    schema = _schema(operator)
    if schema is None:
        return [_Input(each["name"], each["arg"], each.get("kind") == _KEYWORD) for each in given]
    by_name = {each["name"]: each["arg"] for each in given}
    if len(by_name) < len(given):
        raise Unusable(f"its {operator} is given an argument twice")
    positional = [argument for argument in schema.arguments if not argument.kwarg_only]
    last = max((i for i, argument in enumerate(positional) if argument.name in by_name), default=-1)
    inputs = []
    for i, argument in enumerate(positional[: last + 1]):
        if argument.name in by_name:
            inputs.append(_Input(argument.name, by_name.pop(argument.name), keyword=False))
        elif argument.has_default_value():
            inputs.append(_Input(argument.name, _as_default(argument.default_value), keyword=False))
        else:
            raise Unusable(f"its {operator} lacks its argument {i}")
    return [*inputs, *(_Input(name, argument, keyword=True) for name, argument in by_name.items())]


def _schema(operator: str) -> Any:
    if operator in _OWN_NAMES:
        return None
    packet, _, overload = operator.partition(".")
    if not re.fullmatch(r"\w+", packet) or packet.startswith("__"):
        return None
    found = getattr(getattr(torch.ops.aten, packet, None), overload or "default", None)
    return getattr(found, "_schema", None)


def _as_default(value: Any) -> dict[str, Any]:
    match value:
        case None:
            return {"as_none": True}
        case bool():
            return {"as_bool": value}
        case int():
            return {"as_int": value}
        case float():
            return {"as_float": value}
        case str():
            return {"as_string": value}
        case list() if all(isinstance(each, int) for each in value):
            return {"as_ints": value}
    raise Unusable("an argument is left out whose value is not known here")


def _there(variable: Variable | None) -> Variable:
    if variable is None:
        raise Unusable("something is changed in place that is no tensor")
    return variable


def _is_in_place(name: str) -> bool:
    base = name.partition(".")[0]
    return base.endswith("_") and not base.startswith("_")


def _is_condition(target: str, outputs: Sequence[Mapping[str, Any]]) -> bool:
    """Tells whether a call compares sizes, or computes with them what is not served."""
    return not target.startswith("torch.ops.") and target not in _SIZE_OPERATORS and bool(outputs)


def _constant(kind: str, content: Any) -> Scalar:
    match kind:
        case "as_int" | "as_float" | "as_bool":
            return _number(content)
        case "as_string":
            try:
                return WordRef(word=content)
            except ValidationError as error:
                raise Unusable(f"an argument is {content!r}, which is not among those that are served") from error
        case "as_scalar_type":
            if content in _COMPLEX:
                raise Unusable("it computes with complex numbers, which are not served")
            if DTYPES.get(content) is None:
                raise Unusable("it computes in a type of numbers that is not served")
            return DTypeRef(dtype=str(DTYPES[content]).removeprefix("torch."))  # type: ignore[arg-type]
        case "as_memory_format":
            return MemoryFormatRef(memory_format=_MEMORY_FORMATS[content])  # type: ignore[arg-type]
        case "as_device" | "as_layout":
            return None  # it is where the network is
    raise Unusable(f"an argument of the kind {kind[3:]} is not among those that are served")


def _number(value: Any) -> Scalar:
    # Torch writes infinite numbers as words.
    if value in ("Infinity", "-Infinity", float("inf"), float("-inf")):
        return InfinityRef(infinity="-inf" if str(value).startswith("-") else "inf")
    if not isinstance(value, bool | int | float) or value != value or abs(value) > _MOST:
        raise Unusable("a number in it cannot be served")
    return value


def _name_of(target: str) -> str:
    """Returns the name of an operator without torch's prefix and without `.default`."""
    if target in _SIZE_OPERATORS:
        return _SIZE_OPERATORS[target]
    name = target.removeprefix(_ATEN).removesuffix(".default")
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


def _metadata(node: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = node.get("metadata")
    return metadata if isinstance(metadata, dict) else {}


def _spec(name: str, tensor: torch.Tensor) -> TensorSpec:
    try:
        return TensorSpec(dtype=str(tensor.dtype).removeprefix("torch."), shape=tuple(tensor.shape))  # type: ignore[arg-type]
    except ValidationError as error:
        raise Unusable(f"{name} is {tensor.dtype} {list(tensor.shape)}, which is not served") from error


def _type_word(number: Any) -> str:
    return str(DTYPES[number]).removeprefix("torch.") if number in DTYPES else "of a type that is not served"


def _problem(error: ValidationError) -> str:
    return error.errors(include_url=False, include_input=False, include_context=False)[0]["msg"]
