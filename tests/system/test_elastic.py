"""Training by several agents of torchrun, and by more processes than there are cores: make test-cluster."""

import os
from pathlib import Path

import pytest

from benchmarks.training.elastic import disturbed
from tests.support.ranks import trained
from tests.support.runs import KINDS, Train, same_weights
from training.recipes.recipe import Recipe

pytestmark = [
    pytest.mark.process,
    pytest.mark.cluster,
    pytest.mark.timeout(300),
    pytest.mark.skipif("NEEDS_CLUSTER" not in os.environ, reason="takes a minute: make test-cluster"),
]


def test_what_is_killed_comes_back_and_the_weights_are_those_of_a_run_that_nobody_disturbed(tmp_path: Path) -> None:
    figures = disturbed(tmp_path, kills=3, samples=2000, epochs=30, seed=0)
    assert figures.same
    assert figures.versions == 1
    assert sum(figures.kills.values()) == 3
    assert figures.together >= 2  # what was killed came back
    assert figures.alone >= figures.kills["agent"]  # and the other one went on without it


def test_one_agent_starts_its_processes_again_with_nothing_set_for_it(tmp_path: Path) -> None:
    figures = disturbed(tmp_path, kills=2, samples=2000, epochs=10, several=False)
    assert figures.same
    assert figures.versions == 1
    assert figures.kills == {"agent": 0, "process": 2}
    assert figures.together == 3


def test_four_processes_give_what_one_gives_to_the_last_bit(tmp_path: Path, tiny: Recipe, run: Train) -> None:
    recipes = {name: tiny.replace(**KINDS[name] | {"virtual_ranks": 4}) for name in ("ema", "mixed")}
    done = trained(4, tmp_path, {name: {"recipe": each.model_dump(mode="json")} for name, each in recipes.items()})
    assert done.returncode == 0, done.stderr[-3000:]
    for name, recipe in recipes.items():
        alone = run(recipe, name=name)
        assert same_weights(tmp_path / name / "store" / "strokes" / "1.safetensors", alone)
