"""How the images of imported weights are prepared: as a person says, else as the file says, else by a guess."""

from typing import Any

import pytest

from classifier.preprocess import Preprocess
from tests.support.checkpoints import PHOTOS
from training.commands.preprocess_choice import chosen_preprocess
from training.errors import TrainingError
from training.recipes.builtin import usual_preprocess

USUAL = usual_preprocess("resnet18")


def _chosen(*settings: str, **options: Any) -> tuple[Preprocess, list[str]]:
    notes: list[str] = []
    wanted = {"named": None, "said": None} | options
    return chosen_preprocess("resnet18", settings=settings, note=notes.append, **wanted), notes


def test_what_is_named_counts_more_than_what_the_file_says() -> None:
    other = PHOTOS.model_copy(update={"resize": 99})
    assert _chosen(named=PHOTOS, said=other) == (PHOTOS, [])
    assert _chosen(said=other) == (other, [])


def test_a_guess_is_said_in_full() -> None:
    chosen, (note,) = _chosen()
    assert chosen == USUAL
    assert "does not say how its images were prepared. Guessed, as is usual for resnet18: mode=RGB, resize=256" in note
    assert "crop=[224, 224], mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225], interpolation=bilinear" in note
    assert "--set preprocess.KEY=VALUE or --preprocess-from CHECKPOINT says it" in note


def test_what_was_said_is_not_called_a_guess() -> None:
    chosen, (note,) = _chosen("preprocess.resize=72", "preprocess.crop=[64,64]", "preprocess.mean=[0.5,0.5,0.5]")
    assert (chosen.resize, chosen.crop, chosen.mean) == (72, (64, 64), (0.5, 0.5, 0.5))
    assert "mode=RGB, std=[0.229, 0.224, 0.225]" in note
    assert "resize=" not in note
    every = [f"preprocess.{key}={value}" for key, value in {"mode": "L", "mean": [0.5], "std": [0.5]}.items()]
    every += ["preprocess.resize=[28,28]", "preprocess.crop=none", "preprocess.interpolation=bicubic"]
    assert _chosen(*every, "preprocess.background=0")[1] == []


def test_a_new_size_of_all_images_takes_the_old_crop_away() -> None:
    assert _chosen("preprocess.resize=[64,64]")[0] == USUAL.model_copy(update={"resize": (64, 64), "crop": None})
    assert _chosen("preprocess.resize=[300,300]")[0].crop == (224, 224)
    kept = _chosen("preprocess.resize=[64,64]", "preprocess.crop=[72,72]")[0]
    assert (kept.resize, kept.crop) == ((64, 64), (72, 72))


def test_a_shorter_edge_below_the_crop_is_refused_unless_the_crop_is_named() -> None:
    with pytest.raises(TrainingError, match=r"black frame .* --set preprocess\.crop=\[64,64\]"):
        _chosen("preprocess.resize=64")
    assert _chosen("preprocess.resize=64", "preprocess.crop=[64,64]")[0].shape == (64, 64, 3)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("resize=[64,64]", r"--set resize: here only preprocess\.KEY=VALUE can be set"),
        ("epochs=3", "--set epochs: here only"),
        ("preprocess=3", "--set preprocess: here only"),
        ("preprocess.resize", "a key and a value are needed"),
        ("preprocess.surprise=1", r"preprocess\.surprise"),
        ("preprocess.mode=CMYK", r"preprocess\.mode"),
        ("preprocess.mode=L", "mean and std need 1 values each"),
        ("preprocess.resize=[0,64]", r"preprocess\.resize"),
        ("preprocess.resize=[64]", r"preprocess\.resize"),
        ("preprocess.resize=many", r"preprocess\.resize"),
        ("preprocess.std=[0,0,0]", "above 0"),
    ],
)
def test_a_setting_that_makes_no_sense_is_refused_in_one_line(setting: str, said: str) -> None:
    with pytest.raises(TrainingError, match=said) as caught:
        _chosen(setting)
    assert "\n" not in str(caught.value)
