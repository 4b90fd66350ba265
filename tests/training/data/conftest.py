"""How tests load a data set of files: in this process, with the results of the scan in a folder of their own."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.runs import Said
from training.data.dataset import Dataset, load_dataset
from training.data.folder_names import Role
from training.recipes.recipe import Recipe


@pytest.fixture
def load_files(tmp_path: Path, said: Said) -> Callable[..., Dataset]:
    def load_files(
        recipe: Recipe,
        data: Path | str,
        *,
        strict: bool = False,
        measure: Role = "val",
        cache_bytes: int | None = None,
        only_measured: bool = False,
        workers: int = 0,
    ) -> Dataset:
        return load_dataset(
            recipe,
            folder=data,
            scratch=tmp_path / "scratch",
            measure=measure,
            workers=workers,
            strict=strict,
            cache_bytes=cache_bytes,
            only_measured=only_measured,
            progress=said.progress,
        )

    return load_files
