"""Training starts from weights that fit, or one line says why it does not."""

from pathlib import Path

import pytest

from tests.support.checkpoints import saying
from tests.support.program_checkpoints import program_checkpoint
from training.errors import TrainingError
from training.recipes.builtin import builtin
from training.runs.initial_weights import InitialWeights


@pytest.mark.slow
def test_a_network_of_a_pt2_file_is_not_trained(tmp_path: Path) -> None:
    saying(program_checkpoint(tmp_path), architecture="exported:model").save(tmp_path / "1.safetensors")
    with pytest.raises(TrainingError, match=r"--from .*1\.safetensors: it is of a \.pt2 file, .* and not trained"):
        InitialWeights.of(builtin("strokes", "mnist_cnn"), tmp_path / "1.safetensors")
