"""Files that torch.export.save wrote are read as data; whatever else is in them is refused."""

import io
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from torch import nn

from classifier.program.network import ProgramNetwork
from tests.support.exports import (
    SHAPE,
    ChangedThroughAView,
    Meshes,
    Small,
    Standardized,
    entries,
    saved,
    seeded,
    with_config,
    with_model,
    zipped,
)
from training.errors import TrainingError
from training.networks import pt2

pytestmark = pytest.mark.slow  # torch.export takes a second


@pytest.fixture(scope="module")
def small() -> bytes:
    return saved(seeded(Small))


def _read(data: bytes) -> pt2.Exported:
    return pt2.read(io.BytesIO(data), "model.pt2")


def _same(network: nn.Module, exported: pt2.Exported) -> bool:
    program = ProgramNetwork(exported.program, exported.tensors).eval()
    images = torch.randn(3, *SHAPE)
    with torch.inference_mode():
        return all(torch.equal(program(images[:count]), network(images[:count])) for count in (1, 2, 3))


def _refused(data: bytes) -> str:
    with pytest.raises(TrainingError) as refusal:
        _read(data)
    line = str(refusal.value)
    assert line.isprintable()
    return line


@pytest.mark.parametrize("decomposed", [False, True])
def test_a_file_as_people_save_it_gives_the_same_logits_to_the_last_bit(decomposed: bool) -> None:
    network = seeded(Small)
    exported = _read(saved(network, decomposed=decomposed))
    assert _same(network, exported)
    assert exported.shape == SHAPE
    assert exported.torch == torch.__version__
    assert exported.notes == ()
    assert set(exported.tensors) == {f"network.{name}" for name in network.state_dict()}
    assert "test_pt2.py" not in exported.places[len(exported.program.nodes)]
    assert "exports.py:" in exported.places[len(exported.program.nodes)]


class _InPlace(Small):
    def forward(self, x: torch.Tensor) -> Any:
        x = x.clone()
        x[:, :, 0] = 0.5
        x += 1
        x.masked_fill_(x > 2, 0)
        y = self.conv(x)
        y.mul_(2).clamp_(min=-1)
        return self.fc(y.relu_().mean((2, 3)))


def test_operators_in_place_become_functional() -> None:
    network = seeded(_InPlace)
    exported = _read(saved(network))
    assert _same(network, exported)
    assert not any(op.partition(".")[0].endswith("_") for op in exported.program.operators)


class _Swapping(Small):
    def forward(self, x: torch.Tensor) -> Any:
        return self.fc(self.conv(x).swapaxes(1, 3).swapdims(1, 2).mean((1, 2)))


def test_axes_are_swapped_by_any_of_torch_s_names() -> None:
    assert _same(seeded(_Swapping), _read(saved(seeded(_Swapping))))


def test_what_was_changed_in_place_through_another_view_is_refused_with_the_line() -> None:
    line = _refused(saved(seeded(ChangedThroughAView)))
    assert "changed in place through another one" in line
    assert "run_decompositions" in line
    assert "return self.fc(turned.mean((1, 2)))" in line
    assert _same(seeded(ChangedThroughAView), _read(saved(seeded(ChangedThroughAView), decomposed=True)))


class _Counting(Small):
    count: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> Any:
        self.count += 1
        return self.fc(self.features(x))


@pytest.mark.parametrize("decomposed", [False, True])
def test_a_network_that_changes_its_buffers_is_refused_with_the_line(decomposed: bool) -> None:
    line = _refused(saved(seeded(_Counting), decomposed=decomposed))
    assert "it changes its buffer count: call net.eval()" in line
    assert "self.count += 1" in line


class _Tied(Small):
    def __init__(self) -> None:
        super().__init__()
        self.again = nn.Conv2d(1, 4, 3)
        self.again.weight = self.conv.weight

    def forward(self, x: torch.Tensor) -> Any:
        return self.fc(self.conv(x).mean((2, 3)) + self.again(x).mean((2, 3)))


def test_tied_weights_stand_once() -> None:
    network = seeded(_Tied)
    exported = _read(saved(network))
    assert _same(network, exported)
    assert len(exported.tensors) == len(network.state_dict()) - 1


class _Einsum(Small):
    def forward(self, x: torch.Tensor) -> Any:
        return torch.einsum("n c, k c -> n k", self.features(x), self.fc.weight)


def test_einsum_has_numbers_for_its_letters() -> None:
    network = seeded(_Einsum)
    exported = _read(saved(network))
    assert _same(network, exported)
    node = exported.program.nodes[-1]
    assert (node.op, node.args[1:]) == ("einsum", ((39, 28), (36, 28), (39, 36)))


class _Prefixed(Small):
    """Some of its tokens would be treated otherwise, if there were any. Networks of timm's do so."""

    def forward(self, x: torch.Tensor) -> Any:
        tokens = self.conv(x).flatten(2)
        return self.fc(torch.cat([tokens[:, :, :0], tokens[:, :, 0:] * 2], 2).mean(2))


class _Emptied(Small):
    def forward(self, x: torch.Tensor) -> Any:
        return self.fc(self.features(x)) + self.conv(x)[:, :, :0].sum()


def test_nothing_may_be_joined_to_others() -> None:
    assert _same(seeded(_Prefixed), _read(saved(seeded(_Prefixed))))
    line = _refused(saved(seeded(_Emptied)))
    assert "it computes with a tensor that is empty" in line
    assert "self.conv(x)[:, :, :0].sum()" in line


@pytest.mark.parametrize("decomposed", [False, True, "all"])
def test_weights_may_be_standardized(decomposed: bool | Literal["all"]) -> None:
    network = seeded(Standardized)
    assert _same(network, _read(saved(network, decomposed=decomposed)))


def test_what_is_not_served_can_be_taken_apart_by_torch() -> None:
    network = seeded(Meshes)
    line = _refused(saved(network))
    assert "meshgrid.indexing, which is not among the operators that are served (exports.py:" in line
    assert 'indexing="ij")' in line
    assert _same(network, _read(saved(network, decomposed="all")))


def test_half_precision_is_widened_with_a_note() -> None:
    class Half(Small):
        def forward(self, x: torch.Tensor) -> Any:
            return self.fc(self.features(x.half())).float()

    exported = _read(saved(seeded(Half).half()))
    assert {tensor.dtype for tensor in exported.tensors.values() if tensor.is_floating_point()} == {torch.float32}
    assert exported.notes == (
        "its weights are float16; they are widened to float32",
        "it computes in half precision; it is served as one of float32",
    )


def test_double_precision_is_refused() -> None:
    class Double(Small):
        def forward(self, x: torch.Tensor) -> Any:
            return self.fc(self.features(x.double()))

    assert "is float64, and networks are served in float32: call net.float()" in _refused(
        saved(seeded(Double).double())
    )


@pytest.mark.parametrize("batch", [1, 2])
def test_a_fixed_batch_is_refused(batch: int) -> None:
    line = _refused(saved(seeded(Small), batch=batch, dynamic=False))
    assert f"it computes batches of {batch} alone: its first dimension is not dynamic" in line


def test_a_bounded_batch_is_refused() -> None:
    program = torch.export.export(
        seeded(Small), (torch.zeros(4, *SHAPE),), dynamic_shapes=({0: torch.export.Dim("batch", min=3, max=9)},)
    )
    file = io.BytesIO()
    torch.export.save(program, file)
    assert "it computes batches of 3 to 9 alone, where any size from 1 is needed" in _refused(file.getvalue())


def test_planted_code_is_never_evaluated(small: bytes, tmp_path: Path) -> None:
    code = f"__import__('pathlib').Path({str(tmp_path / 'ran')!r}).touch()"

    def plant(model: Any) -> None:
        model["guards_code"] = [code]
        for meta in model["graph_module"]["graph"]["tensor_values"].values():
            for size in meta["sizes"]:
                if "as_expr" in size:
                    size["as_expr"]["expr_str"] = code
        model["graph_module"]["graph"]["sym_int_values"] = {"s": {"as_expr": {"expr_str": code, "hint": None}}}

    planted = zipped(entries(with_model(small, plant)) | {"archive/data/sample_inputs/model.pt": b"cposix\nsystem\n."})
    assert _same(seeded(Small), _read(planted))
    assert not (tmp_path / "ran").exists()


def _set(path: str, value: Any) -> Callable[[Any], None]:
    def change(model: Any) -> None:
        *outer, last = path.split(".")
        for key in outer:
            model = model[int(key) if key.isdigit() else key]
        model[int(last) if last.isdigit() else last] = value

    return change


_FIRST_NODE = "graph_module.graph.nodes.0"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_set("schema_version.major", 9), "with the schema 9."),
        (_set(f"{_FIRST_NODE}.target", "torch.ops.aten.from_file.default"), "it uses from_file, which is not among"),
        (_set(f"{_FIRST_NODE}.target", "torch.ops.aten.set_.source_Storage"), "changes a tensor's shape in place"),
        (
            _set(f"{_FIRST_NODE}.target", "torch.ops.mine.run.default"),
            "it uses mine.run, which is no operator of",
        ),
        (_set(f"{_FIRST_NODE}.target", "torch.ops.aten.empty.memory_format"), "whose values nobody has written"),
        (_set(f"{_FIRST_NODE}.target", "torch.ops.aten.randn_like.default"), "it draws random numbers (randn_like)"),
        (_set(f"{_FIRST_NODE}.target", "torch.ops.aten._fft_r2c.default"), "it computes with complex numbers"),
        (_set(f"{_FIRST_NODE}.target", "torch.ops.aten.as_strided.default"), "it uses as_strided, which is not among"),
        (_set(f"{_FIRST_NODE}.target", "os.system"), "os.system"),
        (_set("graph_module.signature.input_specs", []), "it takes 0 inputs, where one is given: the images"),
        (_set("graph_module.graph.nodes", [{}]), "is not as torch.export.save writes it: KeyError"),
        (_set("graph_module", []), "is not as torch.export.save writes it: TypeError"),
    ],
)
def test_another_graph_is_refused_in_one_line(small: bytes, change: Callable[[Any], None], message: str) -> None:
    assert message in _refused(with_model(small, change))


def _meta(**values: Any) -> Callable[[Any], None]:
    return lambda config: config["conv.weight"]["tensor_meta"].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda config: config["conv.weight"].update(use_pickle=True), "conv.weight is pickled, and no pickle is read"),
        (lambda config: config["conv.weight"].update(path_name="custom_obj_0"), "conv.weight is pickled"),
        (
            lambda config: config["conv.weight"].update(path_name="weight_/../../x"),
            "it has no data/weights/weight_/../",
        ),
        (_meta(sizes=[{"as_int": 1 << 40}]), "conv.weight is larger than its file"),
        (_meta(sizes=[{"as_int": 90}] * 4, strides=[{"as_int": 0}] * 4), "conv.weight is larger than its file"),
        (_meta(storage_offset={"as_int": -4}), "conv.weight is larger than its file"),
        (_meta(strides=[{"as_int": 9}, {"as_int": 9}, {"as_int": 4}, {"as_int": 1}]), "larger than its file"),
        (_meta(dtype=11), "conv.weight is of a type that networks here do not have"),
        (lambda config: config.pop("fc.bias"), "is not as torch.export.save writes it: KeyError"),
    ],
)
def test_weights_that_lie_are_refused_in_one_line(small: bytes, change: Callable[[Any], None], message: str) -> None:
    assert message in _refused(with_config(small, change))


def test_another_archive_is_refused_in_one_line(small: bytes) -> None:
    contents = entries(small)
    model = "archive/models/model.json"
    compressed = "its entry archive/data/weights/weight_0 is compressed"
    assert compressed in _refused(zipped(contents, compression=zipfile.ZIP_DEFLATED))
    assert "leads out of it" in _refused(zipped(contents | {"archive/../../x": b""}))
    assert "models/model.json has 67,108,865 bytes" in _refused(zipped(contents | {model: b" " * ((1 << 26) + 1)}))
    assert "RecursionError" in _refused(zipped(contents | {model: b"[" * 100_000}))
    assert "a key stands twice" in _refused(zipped(contents | {model: b'{"a": 1, "a": 2}'}))
    assert "big-endian" in _refused(zipped(contents | {"archive/byteorder": b"big"}))
    del contents[model]
    assert "compiled by AOTInductor" in _refused(zipped(contents | {"archive/data/aotinductor/model/x.so": b""}))
    assert "it is a TorchScript archive" in _refused(zipped({"m/constants.pkl": b"", "m/code/x.py": b""}))
    assert "it holds weights as torch.save wrote them" in _refused(zipped({"m/data.pkl": b"", "m/version": b"3"}))
    assert "a torch before 2.8 wrote it" in _refused(zipped({"serialized_exported_program.json": b"{}"}))
    assert "no .pt2 file, or is damaged" in _refused(small[: len(small) // 2])
    assert "no .pt2 file, or is damaged" in _refused(b"")


def test_weights_of_an_older_torch_are_refused_because_they_are_pickled(small: bytes) -> None:
    contents = {name: data for name, data in entries(small).items() if not name.startswith("archive/data/weights")}
    assert "pickled, as torch before 2.9" in _refused(zipped(contents | {"archive/data/weights/model.pt": b""}))


def test_entries_that_lie_over_each_other_are_refused(small: bytes) -> None:
    with zipfile.ZipFile(io.BytesIO(small)) as archive:
        offset = archive.infolist()[1].header_offset
    central = small.rindex(b"PK\x01\x02", 0, len(small))
    changed = small[: central + 42] + offset.to_bytes(4, "little") + small[central + 46 :]
    assert "lies over another one" in _refused(changed)


def test_two_entries_of_one_name_are_refused(small: bytes) -> None:
    file = io.BytesIO(small)
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(file, "a") as archive:
        archive.writestr("archive/models/model.json", b"{}")
    assert "two of its entries have one name" in _refused(file.getvalue())


def test_a_file_of_an_older_schema_says_not_which_argument_is_a_keyword_and_is_read(small: bytes) -> None:
    def older(model: Any) -> None:
        model["schema_version"]["minor"] = 1
        for node in model["graph_module"]["graph"]["nodes"]:
            node.pop("name", None)
            for argument in node["inputs"]:
                argument.pop("kind")

    assert _same(seeded(Small), _read(with_model(small, older)))


def _mutated(value: Any, generator: random.Random, left: list[int]) -> Any:
    """The document in which a few values were put in place of others."""
    if left[0] and generator.random() < 0.004:
        left[0] -= 1
        return generator.choice([None, -1, 0, 1 << 62, 1e308, "", "x\n\x00", [], {}, [[]], {"as_int": 3}, True])
    if isinstance(value, dict):
        return {key: _mutated(each, generator, left) for key, each in value.items()}
    return [_mutated(each, generator, left) for each in value] if isinstance(value, list) else value


def test_whatever_is_in_a_file_the_only_error_is_one_line(small: bytes) -> None:
    generator, contents = random.Random(5), entries(small)
    paths = ["archive/models/model.json", "archive/data/weights/model_weights_config.json"]
    documents = {path: json.loads(contents[path]) for path in paths}
    refused: list[str] = []
    for i in range(400):
        path = paths[i % 2]
        if i % 4 == 3:
            data = bytearray(small)
            for _ in range(3):
                data[generator.randrange(len(data))] = generator.randrange(256)
        else:
            document = _mutated(documents[path], generator, [3])
            data = bytearray(zipped(contents | {path: json.dumps(document).encode()}))
        try:
            _read(bytes(data))
        except TrainingError as error:
            refused.append(str(error))
    assert len(refused) > 100
    assert all(map(str.isprintable, refused))
