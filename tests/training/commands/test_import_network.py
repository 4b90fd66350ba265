"""A network of somebody's own code is published with the weights that it gives itself."""

from pathlib import Path

import pytest

from classifier.checkpoint import Checkpoint
from classifier.preprocess import Preprocess
from tests.support.own_code import GREY
from training.commands.import_network import import_network
from training.errors import TrainingError

LABELS = ("ants", "bees", "wasps")


@pytest.mark.slow
def test_a_constructor_that_gives_the_network_its_weights_needs_no_file(net: str, tmp_path: Path) -> None:
    trained = net.replace(":Net", ":trained")
    path = import_network(trained, labels=LABELS, store=tmp_path / "store", preprocess=Preprocess.model_validate(GREY))
    own = Checkpoint.load(path)
    assert own.network["fc.bias"].tolist() == pytest.approx([-0.25, 0, 0.25])
    assert own.manifest.imported is not None
    assert (own.manifest.imported.source, own.manifest.imported.sha256) == ("my_net.py:trained", None)


def test_a_constructor_with_random_weights_and_no_file_is_refused(net: str, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"my_net\.py:Net draws its weights at random: name the file that holds"):
        import_network(net, labels=LABELS, store=tmp_path / "store", preprocess=Preprocess.model_validate(GREY))
    assert not (tmp_path / "store").exists()
