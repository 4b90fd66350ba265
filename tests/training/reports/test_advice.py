"""What is said of the samples of the classes, and of the classes that are confused."""

from typing import Any

import pytest
import torch

from training.recipes.builtin import builtin
from training.reports.advice import confusions, samples_of_classes

LABELS = ("ant", "bee", "wa\nsp")


def said(*counts: int, recipe: str = "transfer:resnet18", **changes: Any) -> str:
    targets = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    return samples_of_classes(targets, LABELS[: len(counts)], builtin("photos", recipe).replace(**changes))


def test_equal_classes_are_one_number() -> None:
    assert said(200, 200) == "200 samples of each class"


def test_the_smallest_and_the_largest_class_are_named() -> None:
    assert said(120, 90, 100) == "fewest samples: 90 (class bee), most: 120 (class ant)"
    line = said(2000, 3000, 1200)
    assert line.startswith("fewest samples: 1,200 (class wa")
    assert line.endswith("most: 3,000 (class bee)")
    assert line.isprintable()


def test_uneven_classes_bring_what_could_be_done_or_what_is_done() -> None:
    assert said(30, 90).endswith("rare classes will count little: --set balanced=true draws classes equally often")
    assert said(30, 90, balanced=True).endswith("most: 90 (class bee); classes are drawn equally often")
    assert "balanced" not in said(31, 90)


def test_few_photos_for_fresh_weights_bring_the_way_to_pretrained_ones() -> None:
    assert said(99, 100, recipe="scratch:resnet18").endswith(
        "for fresh weights these are few: --recipe transfer:resnet18 begins with pretrained ones"
    )
    assert "fresh" not in said(100, 100, recipe="scratch:resnet18")
    assert "fresh" not in said(9, 9)


@pytest.mark.parametrize(
    ("confusion", "words"),
    [
        ([[5, 0, 0], [0, 5, 0], [0, 0, 5]], None),
        ([[5, 2, 0], [1, 5, 0], [0, 0, 5]], "most often confused: ant and bee (3 times): are"),
        ([[5, 2, 0], [1, 5, 9], [0, 0, 5]], "most often confused: bee and wa"),
    ],
)
def test_the_most_confused_classes_are_named_with_what_to_look_at(
    confusion: list[list[int]], words: str | None
) -> None:
    found = confusions(torch.tensor(confusion), LABELS)
    assert found is None if words is None else found is not None and found.startswith(words)
    assert found is None or found.endswith("are their labels right, and can you tell them apart?")
