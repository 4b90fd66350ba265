"""A file that holds no weights is called what it is."""

import gzip
import io
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import nn

from training.errors import TrainingError
from training.networks.file_kinds import is_safetensors, what_it_is
from training.networks.foreign import read

WEIGHTS = {"fc.weight": torch.ones(20, 20), "fc.bias": torch.zeros(20)}


def _torch_file() -> bytes:
    file = io.BytesIO()
    torch.save(WEIGHTS, file)
    return file.getvalue()


def _zip_with(name: str, content: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr(name, content)
    return file.getvalue()


def _tar() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("net.pth"))
    return file.getvalue()


def _numpy(save: Callable[..., None]) -> bytes:
    file = io.BytesIO()
    save(file, np.ones(3))
    return file.getvalue()


def _pickle() -> bytes:
    import pickle

    return pickle.dumps({"fc.weight": [1.0]})


_LFS = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'0' * 64}\nsize 123456\n".encode()
_ONNX = b"\x08\x08\x12\x07pytorch\x1a\x052.1.0:\x8c\x01" + bytes(200)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (_LFS, "is a git-LFS pointer, not the file itself: run git lfs pull"),
        (b"<!DOCTYPE html><html><head><title>Virus scan warning</title></head></html>", "is an HTML page"),
        (b"\n\n  <html lang=en><body>404", "is an HTML page"),
        (b"\xef\xbb\xbf<!doctype HTML>", "is an HTML page"),
        (b"<script>{var a}</script>", "is an HTML page"),
        (b'<?xml version="1.0"?>\n<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML"><html>', "is an HTML page"),
        (b'<?xml version="1.0"?><html xmlns="http://www.w3.org/1999/xhtml">', "is an HTML page"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "is an XML document"),
        (b'{"error": "Repository not found"}', "is a JSON document"),
        (b'{"errors":{"code": 1}}', "is a JSON document"),
        (b"", "is empty"),
        (bytes(5000), "begins with zeros only"),
        (gzip.compress(_torch_file()), "is compressed by gzip: unpack it first"),
        (b"BZh91AY&SY", "is compressed by bzip2"),
        (b"\xfd7zXZ\0\0\4", "is compressed by xz"),
        (b"\x28\xb5\x2f\xfd" + bytes(range(50)), "is compressed by zstd"),
        (b"7z\xbc\xaf\x27\x1c\0\4", "is a 7z archive"),
        (_tar(), "is a tar archive: unpack it first"),
        (_zip_with("net.pth", _torch_file()), "is a zip archive without weights in it, of 'net.pth'"),
        (_numpy(np.savez), "is a zip archive without weights in it, of 'arr_0.npy'"),
        (_numpy(np.save), "is a NumPy array"),
        (_torch_file()[:-2000], "is cut short, a zip archive without its end"),
        (_torch_file()[:100], "is cut short, a zip archive without its end"),
        (b"\x89HDF\r\n\x1a\n" + bytes(100), "is an HDF5 file, as Keras writes it"),
        (b"\x1c\0\0\0TFL3" + bytes(50), "is a TensorFlow Lite file"),
        (_ONNX, "seems to be an ONNX file"),
        (_pickle(), "is a pickle that torch.save did not write"),
        (b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "is a PNG image"),
        (safetensors.torch.save(WEIGHTS)[:-5], "is not a sound safetensors file"),
        (safetensors.torch.save(WEIGHTS)[:30], "is not a sound safetensors file"),
    ],
)
@pytest.mark.parametrize("name", ["net.pth", "net.safetensors"])
def test_a_file_that_holds_no_weights_is_called_what_it_is(
    tmp_path: Path, name: str, content: bytes, said: str
) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(TrainingError) as caught:
        read(tmp_path / name)
    assert str(caught.value).startswith(f"{tmp_path / name} {said}")
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore:`torch.jit")
def test_a_torchscript_archive_is_called_so(tmp_path: Path) -> None:
    torch.jit.script(nn.Linear(2, 2)).save(tmp_path / "net.pt")  # type: ignore[no-untyped-call]
    with pytest.raises(TrainingError, match="is a TorchScript archive"):
        read(tmp_path / "net.pt")


def test_what_a_file_is_decides_not_what_its_name_ends_in(tmp_path: Path) -> None:
    safetensors.torch.save_file(WEIGHTS, tmp_path / "net.pth")
    torch.save(WEIGHTS, tmp_path / "net.safetensors")
    torch.save(WEIGHTS, tmp_path / "net.safetensors.old", _use_new_zipfile_serialization=False)
    for path in tmp_path.iterdir():
        assert read(path).state_dict.keys() == WEIGHTS.keys()


def test_a_sound_file_is_nothing_else(tmp_path: Path) -> None:
    torch.save(WEIGHTS, tmp_path / "new")
    torch.save(WEIGHTS, tmp_path / "old", _use_new_zipfile_serialization=False)
    assert (what_it_is(tmp_path / "new"), what_it_is(tmp_path / "old")) == (None, None)


def test_a_safetensors_file_may_begin_like_any_other() -> None:
    assert is_safetensors(b"\x1f\x8b\0\0\0\0\0\0{")  # its header has 35,615 bytes, as a gzip file begins
    assert is_safetensors(b"{\0\0\0\0\0\0\0{")
    assert not is_safetensors(b'{"error":{')
