"""Reads what the header of a checkpoint file says, without its weights and without trusting them. Imports no torch."""

import hashlib
import json
import os
import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Self

from pydantic import ValidationError

from classifier.manifest import Manifest

MAX_HEADER_BYTES = 100_000_000  # the format's own limit
_MAX_REASON = 500
_LFS_POINTER = b"version https://git-lfs"


class CheckpointError(Exception):
    """A file is not a sound checkpoint; the message says in one line what is wrong with it."""

    def __init__(self, reason: str) -> None:
        # Names in a foreign file may be long, or break lines in a log.
        line = " ".join("".join(c if c.isprintable() else " " for c in reason).split())
        super().__init__(line if len(line) <= _MAX_REASON else f"{line[:_MAX_REASON]}…")


class DamagedError(CheckpointError):
    """The content of a file is not what its header says: it was cut off, written half, or changed."""


@dataclass(frozen=True, slots=True)
class Header:
    """Holds what can be known of a checkpoint without reading, or trusting, its weights.

    Args:
        manifest_json: the manifest as it stands in the file; the hash covers these bytes.
        sha256: the hash that the file says it has, 64 hexadecimal digits.
        body_offset: where the weights begin, in bytes from the beginning of the file.
        layout_sha256: a hash of the names, types, shapes and places of the tensors, which `sha256` does not cover.
    """

    manifest: Manifest
    manifest_json: str
    sha256: str
    body_offset: int
    layout_sha256: str

    @classmethod
    def read(cls, path: Path) -> Self:
        """Reads the header of the file at `path`.

        Raises:
            CheckpointError: the file is no checkpoint.
            OSError: the file cannot be read.
        """
        with path.open("rb") as file:
            return cls.parse(file, os.fstat(file.fileno()).st_size)

    @classmethod
    def parse(cls, file: BinaryIO, size: int) -> Self:
        """Reads the header from the beginning of a file of `size` bytes, and no further.

        Raises: CheckpointError if the file is no checkpoint.
        """
        prefix = file.read(8)
        header_bytes = int.from_bytes(prefix, "little")
        if len(prefix) < 8 or header_bytes > min(MAX_HEADER_BYTES, size - 8):
            raise CheckpointError(_what_it_is(prefix + file.read(len(_LFS_POINTER))))
        tensors = _json_object(file.read(header_bytes))
        metadata = tensors.pop("__metadata__", None)
        if not isinstance(metadata, dict) or metadata.keys() != {"manifest", "sha256"}:
            raise CheckpointError(
                "a safetensors file, but no checkpoint: its metadata is not a manifest and a sha256; "
                "python -m training import makes a checkpoint of weights"
            )
        try:
            manifest = Manifest.model_validate_json(metadata["manifest"])
        except ValidationError as error:
            raise CheckpointError(f"the manifest is not of format 1 or 2: {_problems(error)}") from error
        if not isinstance(metadata["sha256"], str) or not re.fullmatch("[0-9a-f]{64}", metadata["sha256"]):
            raise CheckpointError("its sha256 is none")
        expected = 8 + header_bytes + _body_bytes(tensors)
        if size != expected:
            raise CheckpointError(f"the file has {size:,} bytes where its header says {expected:,}")
        return cls(
            manifest=manifest,
            manifest_json=metadata["manifest"],
            sha256=metadata["sha256"],
            body_offset=8 + header_bytes,
            layout_sha256=_layout_sha256(tensors),
        )

    def check_body(self, pieces: Iterable[bytes | memoryview]) -> None:
        """Checks that the hash is that of the manifest and of these pieces, which are all that follows the header.

        Raises: DamagedError.
        """
        sha256 = content_hash(self.manifest_json, pieces)
        if sha256 != self.sha256:
            raise DamagedError(f"the content does not match its hash: sha256 {sha256}, header {self.sha256}")


def content_hash(manifest_json: str, pieces: Iterable[bytes | memoryview]) -> str:
    """Returns the hash of a checkpoint's content, 64 hexadecimal digits.

    Args:
        manifest_json: the manifest as it stands in the file.
        pieces: all that follows the header.
    """
    sha256 = hashlib.sha256(manifest_json.encode())
    for piece in pieces:
        sha256.update(piece)
    return sha256.hexdigest()


def _what_it_is(start: bytes) -> str:
    """Says what a file is that begins with these bytes and is no safetensors file."""
    if not start:
        return "it is empty: cut short, or never written"
    if start.startswith(_LFS_POINTER):
        return "it is a pointer of Git LFS, not the file that it stands for: run git lfs pull"
    return "not a safetensors file, or cut short"


def _body_bytes(tensors: Mapping[str, Any]) -> int:
    """Returns how many bytes the body has, and checks that the tensors stand in the writer's order.

    That order is by name within each type. The hash does not cover the header, but with this check nobody can swap the
    names of two tensors of one shape.

    Raises: CheckpointError.
    """
    try:
        places = sorted((tensor["dtype"], tensor["data_offsets"], name) for name, tensor in tensors.items())
        end = max((offsets[1] for _, offsets, _ in places), default=0)
    except (TypeError, KeyError, IndexError) as error:
        raise CheckpointError("the header does not describe tensors") from error
    if not isinstance(end, int) or not 0 <= end <= sys.maxsize:  # Python refuses to write out very long numbers
        raise CheckpointError("the header does not describe tensors")
    if [(dtype, name) for dtype, _, name in places] != sorted((dtype, name) for dtype, _, name in places):
        raise CheckpointError("the tensors do not lie in the order of their names: the header was changed")
    return end


def _layout_sha256(tensors: Mapping[str, Any]) -> str:
    """Returns the same for the same tensors, in whatever order a writer names them. Raises: CheckpointError."""
    try:
        return hashlib.sha256(json.dumps(tensors, sort_keys=True).encode()).hexdigest()
    except (ValueError, RecursionError) as error:
        raise CheckpointError("the header does not describe tensors") from error


def _json_object(data: bytes) -> dict[str, Any]:
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise CheckpointError("not a safetensors file: its header is no JSON") from error
    if not isinstance(value, dict):
        raise CheckpointError("not a safetensors file: its header is no JSON object")
    return value


def _problems(error: ValidationError) -> str:
    return "; ".join(
        f"{'.'.join(map(str, problem['loc'])) or 'manifest'}: {problem['msg']}" for problem in error.errors()[:3]
    )
