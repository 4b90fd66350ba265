"""Shards of photos, as WebDataset writes them."""

import io
import tarfile
from collections.abc import Callable, Mapping
from pathlib import Path


def archive(path: Path, files: Mapping[str, bytes]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return path


def samples(photo: Callable[[int], bytes], first: int, count: int) -> dict[str, bytes]:
    """Every third photo is of class 10, the others are of 9."""
    return {
        f"{i:05}.{ending}": content
        for i in range(first, first + count)
        for ending, content in (("jpg", photo(i)), ("cls", b"10" if i % 3 == 0 else b"9\n"), ("json", b"{}"))
    }
