"""A row of the table is all that one of torchvision's data sets needs."""

import pytest
import torchvision.datasets

from training.command_line import parser
from training.recipes.builtin import builtin
from training.recipes.dataset_table import TORCHVISION_DATASETS, TorchvisionDataset

ROWS = pytest.mark.parametrize("row", TORCHVISION_DATASETS.values(), ids=lambda row: row.name)


@ROWS
def test_a_row_is_a_command_that_help_explains(row: TorchvisionDataset) -> None:
    text = parser().format_help()
    assert row.what in text
    assert f"python -m training {row.example}" in text
    assert parser().parse_args(row.example.split()).command == row.name


@ROWS
def test_a_row_has_a_recipe_with_its_own_values(row: TorchvisionDataset) -> None:
    recipe = builtin(row.name)
    assert (recipe.source.kind, recipe.name) == (row.name, row.recipe)
    for field in row.adapted:
        assert getattr(recipe, field) != getattr(builtin("photos", row.recipe), field)


@ROWS
def test_a_row_names_a_class_of_torchvision(row: TorchvisionDataset) -> None:
    assert callable(getattr(torchvision.datasets, row.torchvision))
