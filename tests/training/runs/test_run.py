"""When a run ends, and which of its epochs is published."""

from typing import Any

import pytest

from classifier.checkpoint import Checkpoint
from tests.support.runs import Train
from training.recipes.recipe import Recipe
from training.runs.run import has_stalled

# No step changes a weight.
STANDS_STILL: dict[str, Any] = {"lr": 1e-30, "weight_decay": 0}


def stalled(recipe: Recipe, *losses: float) -> bool:
    return has_stalled(recipe, recipe.stages[-1], [{"held_out_loss": loss} for loss in losses])


def test_a_run_ends_when_the_held_out_loss_has_not_fallen_for_so_many_epochs(tiny: Recipe) -> None:
    patient = tiny.replace(epochs=9, patience=2)
    assert not stalled(patient)
    assert not stalled(patient, 3, 2)
    assert not stalled(patient, 3, 2, 2)
    assert stalled(patient, 3, 2, 2, 2)
    assert not stalled(patient, 3, 2, 2.5, 1.9, 2)
    assert not stalled(tiny, 3, 4, 5, 6)


def test_only_the_last_stage_ends_early_and_only_its_own_epochs_count(tiny: Recipe) -> None:
    recipe = tiny.replace(trainable="head", epochs=3, unfreeze={"epochs": 5, "lr": 0.1}, patience=1)
    curve = [{"held_out_loss": loss} for loss in (1, 2, 3, 9)]
    assert not has_stalled(recipe, recipe.stages[0], curve[:3])
    assert not has_stalled(recipe, recipe.stages[1], curve)
    assert has_stalled(recipe, recipe.stages[1], [*curve, {"held_out_loss": 9}])


@pytest.mark.slow
def test_what_ended_early_is_published_and_resumes_to_the_same(run: Train, tiny: Recipe) -> None:
    path = run(tiny.replace(epochs=8, patience=2, **STANDS_STILL))
    curve = Checkpoint.load(path).manifest.curve
    assert curve is not None
    assert len(curve) == 3
    again = run(tiny.replace(epochs=8, patience=2, **STANDS_STILL), resume=True)
    assert Checkpoint.load(again).manifest.curve == curve


@pytest.mark.slow
def test_the_last_epoch_is_published_where_the_recipe_says_so(run: Train, tiny: Recipe) -> None:
    for publish, epoch in (("best", 1), ("last", 3)):  # the first of equals is best
        recipe = tiny.replace(epochs=3, publish=publish, **STANDS_STILL)
        for resume in (False, True):
            provenance = Checkpoint.load(run(recipe, resume=resume)).manifest.provenance
            assert provenance is not None
            assert provenance.epoch == epoch
