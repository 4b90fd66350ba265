"""A recipe's values: which go together, how they are written, and what Ctrl-C finds."""

import pytest

from training.errors import TrainingError
from training.recipes.overrides import with_settings
from training.recipes.recipe import Recipe


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        (["betas=[0.8,0.9]"], "betas are of optimizer=adam and adamw; sgd has momentum"),
        (["optimizer=adamw", "momentum=0.5"], "momentum is of optimizer=sgd; adamw has betas"),
        (["drop_path=0.1", "network.drop_path_rate=0.2"], "drop_path and network.drop_path_rate are the same"),
        (["optimizer=lion"], "optimizer: Input should be 'sgd', 'adam' or 'adamw', not 'lion'"),
        (["optimizer=adam", "betas=[0.9,1.0]"], "betas.1: Input should be less than 1, not 1.0"),
        (["augment.trivial=true", "augment.rand=[2,9]"], "augment: Value error, trivial and rand are two ways"),
        (["augment.crop=[0.9,0.1]"], "augment: Value error, crop is (least, most) of an image's area"),
        (["patience=0"], "patience: Input should be greater than or equal to 1, not 0"),
        (["publish=first"], "publish: Input should be 'best' or 'last', not 'first'"),
        (["layer_decay=0"], "layer_decay: Input should be greater than 0, not 0"),
    ],
)
def test_values_that_make_no_sense_together_are_refused_in_a_line(tiny: Recipe, settings: list[str], said: str) -> None:
    with pytest.raises(TrainingError) as refused:
        with_settings(tiny, settings)
    assert said in str(refused.value)


def test_a_recipe_of_before_is_written_as_before_and_another_one_without_the_values_of_sgd(tiny: Recipe) -> None:
    before = {"optimizer", "betas", "layer_decay", "network", "drop_path", "patience", "publish"}
    assert {"rand", "erase", "mixup", "cutmix"}.isdisjoint(tiny.model_dump()["augment"])
    assert before.isdisjoint(tiny.model_dump())
    assert "momentum" in tiny.model_dump()
    adamw = tiny.replace(optimizer="adamw")
    assert adamw.model_dump()["optimizer"] == "adamw"
    assert "momentum" not in adamw.model_dump()
    assert Recipe.checked(adamw.model_dump(mode="json")) == adamw


def test_ctrl_c_while_a_recipe_is_written_stays_ctrl_c(tiny: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Recipe, "_without_later", interrupt)
    with pytest.raises(KeyboardInterrupt):
        tiny.model_dump(mode="json")
