"""Reads a .pt2 file, as `torch.export.save` writes it, into a program and its tensors.

The archive is a zip file with a graph as JSON and weights as raw bytes. Torch's own reader is never asked: it evaluates
text of the graph, and unpickles. The format is described in torch's `torch/export/pt2_archive/`. A file is believed in
nothing: what is read is bounded by the file's own size, and each part of it lies in a place of its own.
"""

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch

from classifier.header import CheckpointError
from classifier.program.document import MAX_NODES, Program
from training.errors import TrainingError, one_line, type_and_line
from training.networks.file_kinds import what_it_is
from training.networks.pt2_graph import DTYPES, HALF, Graph
from training.networks.pt2_operators import Unusable

_MAX_JSON = 1 << 26  # bytes
_MAX_ENTRIES = 2 * MAX_NODES
_SCHEMA = 8  # the major version of torch's schema that this reads
_ENCRYPTED = 1  # of a zip entry's flags
_LOCAL_HEADER = 30  # bytes, and the name
_MOST_COPIES = 4  # of a file's bytes, in tensors that overlap
_LONGEST_VERSION = 64  # characters


@dataclass(frozen=True, slots=True)
class Exported:
    """Holds a network as data.

    Args:
        tensors: by the names that the program uses.
        torch: the version of torch that exported it.
        shape: of an image: (channels, height, width), None where it may be any.
        places: where in a person's code a value comes from, by its number.
        notes: what was changed, in words.
    """

    program: Program
    tensors: dict[str, torch.Tensor]
    torch: str
    shape: tuple[int | None, ...] = (None, None, None)
    places: Mapping[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def read(file: Path | IO[bytes], name: str) -> Exported:
    """Reads an archive.

    Args:
        name: what the file is called in messages.

    Raises:
        TrainingError: something in it cannot be used; the message says what, and where in the network's code that is.
        OSError: the file cannot be read.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            return _Archive(archive).exported()
    except (OSError, MemoryError):
        raise
    except zipfile.BadZipFile as error:
        kind = what_it_is(file) if isinstance(file, Path) else None
        raise TrainingError(f"{name} {kind or f'is no .pt2 file, or is damaged: {one_line(error)}'}") from error
    except CheckpointError as error:
        raise TrainingError(f"{name}: {error}") from error
    except Exception as error:  # nearly anything, where a part is not what it should be
        raise TrainingError(f"{name} is not as torch.export.save writes it: {type_and_line(error)}") from error


class _Archive:
    def __init__(self, archive: zipfile.ZipFile) -> None:
        self._archive = archive
        self._entries = _entries(archive)
        self._folder = next(iter(self._entries), "").partition("/")[0]
        self._notes: dict[str, None] = {}
        self._left = _MOST_COPIES * sum(entry.file_size for entry in self._entries.values())  # bytes of tensors

    def exported(self) -> Exported:
        self._check_kind()
        model = self._json("models/model.json")
        version = model["schema_version"]
        if version["major"] != _SCHEMA:
            raise Unusable(
                f"torch {model.get('torch_version', 'of another time')} wrote it, with the schema {version['major']}."
                f"{version['minor']}; {_SCHEMA}.x can be read"
            )
        weights = self._tensors("data/weights", "weight_")
        constants = self._tensors("data/constants", "tensor_")
        graph = Graph(model["graph_module"], weights, constants)
        program = graph.program(model.get("range_constraints", {}))
        return Exported(
            program,
            graph.tensors,
            str(model.get("torch_version", "unknown"))[:_LONGEST_VERSION],
            graph.shape,
            graph.places,
            (*self._notes, *graph.notes),
        )

    def _check_kind(self) -> None:
        """Says what else an archive is. Raises: Unusable."""
        names = {name.partition("/")[2] for name in self._entries}
        if "models/model.json" in names:
            order = self._bytes("byteorder", 16) if "byteorder" in names else b"little"
            if order.strip() != b"little":
                raise Unusable(
                    f"its numbers are {order.decode('ascii', 'replace')}-endian; export it on another machine"
                )
            return
        models = sorted(name for name in names if name.startswith("models/") and name.endswith(".json"))
        if len(models) > 1:
            raise Unusable(f"it holds {len(models)} networks, where one is expected: save one alone")
        if models:
            raise Unusable(f"its network is called {models[0][7:-5]}: save it by torch.export.save")
        if any(name.startswith("data/aotinductor/") for name in names):
            raise Unusable("it was compiled by AOTInductor, and holds machine code in place of a network")
        if "serialized_exported_program.json" in self._entries:
            raise Unusable("a torch before 2.8 wrote it: export it again by a newer one")
        if "constants.pkl" in names or any(name.startswith("code/") for name in names):
            raise Unusable("it is a TorchScript archive, not an exported program")
        if "data.pkl" in names:
            raise Unusable("it holds weights as torch.save wrote them: import it without --exported")
        raise Unusable("it has no models/model.json: it is no exported program")

    def _json(self, path: str) -> Any:
        return json.loads(self._bytes(path, _MAX_JSON), object_pairs_hook=_without_repetition)

    def _bytes(self, path: str, most: int | None = None) -> bytes:
        entry = self._entries.get(f"{self._folder}/{path}")
        if entry is None:
            raise Unusable(f"it has no {path}: the file was not written by torch.export.save, or was changed")
        if most is not None and entry.file_size > most:
            raise Unusable(f"{path} has {entry.file_size:,} bytes; at most {most:,} are read")
        return self._archive.read(entry)

    def _tensors(self, folder: str, prefix: str) -> dict[str, torch.Tensor]:
        kind = folder.rpartition("/")[2]
        if f"{self._folder}/{folder}/model.pt" in self._entries:
            raise Unusable(f"its {kind} are pickled, as torch before 2.9 wrote them, and no pickle is read")
        files: dict[str, torch.Tensor] = {}
        tensors: dict[str, torch.Tensor] = {}
        known: dict[tuple[str, str], torch.Tensor] = {}  # tied weights are one tensor
        for name, entry in self._json(f"{folder}/model_{kind}_config.json")["config"].items():
            path = entry["path_name"]
            if entry["use_pickle"] or not path.startswith(prefix):
                raise Unusable(
                    f"{name} is pickled, and no pickle is read: it is no plain tensor, but of a class of its own; "
                    "make it plain before exporting"
                )
            if path not in files:
                files[path] = _bytes_as_tensor(self._bytes(f"{folder}/{path}"))
            key = (path, json.dumps(entry["tensor_meta"], sort_keys=True))
            if key not in known:
                known[key] = self._plain(name, _strided(files[path], entry["tensor_meta"], name), entry["is_param"])
            tensors[name] = known[key]
        return tensors

    def _plain(self, name: str, tensor: torch.Tensor, is_parameter: bool) -> torch.Tensor:
        self._left -= tensor.nbytes
        if self._left < 0:
            raise Unusable("its tensors are larger than the file")
        if tensor.dtype in HALF:
            self._notes[f"its weights are {str(tensor.dtype).removeprefix('torch.')}; they are widened to float32"] = (
                None
            )
        elif tensor.dtype == torch.float64 and is_parameter:
            raise Unusable(f"{name} is float64, and networks are served in float32: call net.float() before exporting")
        return tensor.float() if tensor.dtype in (*HALF, torch.float64) else tensor


def _entries(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Returns the entries by name. Raises: Unusable if they are not stored as torch stores them, one after another."""
    entries = archive.infolist()
    if len(entries) > _MAX_ENTRIES:
        raise Unusable(f"it has {len(entries):,} entries; at most {_MAX_ENTRIES:,} are read")
    by_name = {entry.filename: entry for entry in entries}
    if len(by_name) < len(entries):
        raise Unusable("two of its entries have one name")
    end = 0
    for entry in sorted(entries, key=lambda entry: entry.header_offset):
        name = entry.filename
        if name.startswith("/") or "\\" in name or ".." in name.split("/"):
            raise Unusable(f"its entry {name!r} has a path that leads out of it")
        if entry.compress_type != zipfile.ZIP_STORED or entry.compress_size != entry.file_size:
            raise Unusable(f"its entry {name} is compressed, as torch writes none")
        if entry.flag_bits & _ENCRYPTED:
            raise Unusable(f"its entry {name} is encrypted, as torch writes none")
        if entry.header_offset < end:
            raise Unusable(f"its entry {name} lies over another one")
        end = entry.header_offset + _LOCAL_HEADER + len(os.fsencode(name)) + entry.file_size
    return by_name


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise Unusable("a key stands twice in its JSON")
    return value


def _bytes_as_tensor(data: bytes) -> torch.Tensor:
    return torch.frombuffer(bytearray(data), dtype=torch.uint8) if data else torch.empty(0, dtype=torch.uint8)


def _strided(data: torch.Tensor, meta: Mapping[str, Any], name: str) -> torch.Tensor:
    """Returns the tensor that lies in these bytes, in rows, without gaps."""
    dtype = DTYPES.get(meta["dtype"])
    if dtype is None:
        raise Unusable(f"{name} is of a type that networks here do not have")
    shape, strides = ([size["as_int"] for size in meta[key]] for key in ("sizes", "strides"))
    offset = meta["storage_offset"]["as_int"]
    if not all(type(each) is int and 0 <= each <= len(data) for each in (offset, *shape, *strides)):
        raise Unusable(f"{name} is larger than its file")
    values = data[: len(data) // dtype.itemsize * dtype.itemsize].view(dtype)
    count = 1
    for size in shape:
        count *= size
    if count == 0:
        return values.new_empty(shape)
    needed = offset + 1 + sum((size - 1) * stride for size, stride in zip(shape, strides, strict=True))
    if max(needed, count) > len(values):
        raise Unusable(f"{name} is larger than its file")
    return torch.as_strided(values, shape, strides, offset).contiguous()
