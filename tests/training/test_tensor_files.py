"""Files of tensors: what comes up while one is written is what is raised, not what torch makes of it."""

import errno
import io
from pathlib import Path
from typing import Any

import pytest
import torch

from training import tensor_files


class Failing(io.BytesIO):
    """A file that cannot be written to any more, after some pieces."""

    def __init__(self, error: BaseException) -> None:
        super().__init__()
        self._error = error
        self._pieces = 5

    def write(self, piece: Any, /) -> int:
        self._pieces -= 1
        if not self._pieces:
            raise self._error
        return super().write(piece)


@pytest.mark.parametrize(
    "error", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")], ids=["Ctrl-C", "full disk"]
)
def test_what_comes_up_while_a_file_is_written_is_raised_as_it_is(error: BaseException) -> None:
    with pytest.raises(type(error)) as caught:
        tensor_files.save_to(Failing(error), {"weights": torch.zeros(10_000)})
    assert caught.value is error


def test_a_file_is_what_torch_loads(tmp_path: Path) -> None:
    tensor_files.save(tmp_path / "state", {"weights": torch.arange(3)})
    loaded = torch.load(tmp_path / "state", weights_only=True)
    assert loaded["weights"].tolist() == [0, 1, 2]
