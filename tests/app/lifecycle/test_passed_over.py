"""What lies in a store and is no version is named with the reason; what nobody expects to be served is not."""

import os
from pathlib import Path

import pytest

from app.engine.model_info import PassedOver
from app.lifecycle.storage import LocalFolder


def laid_out(store: Path, *paths: str) -> LocalFolder:
    """A store with these files; those that end with / are folders."""
    for path in paths:
        (store / path).parent.mkdir(parents=True, exist_ok=True)
        (store / path).mkdir() if path.endswith("/") else (store / path).touch()
    return LocalFolder(store)


def passed_over(storage: LocalFolder) -> dict[str, str]:
    """The reason of each path."""
    found = storage.models()
    listings = [storage.versions(name, {}) for name in found.models]
    beside = [each for listing in listings if listing is not None for each in listing.passed_over]
    return {each.path: each.reason for each in (*found.passed_over, *beside)}


@pytest.mark.parametrize(
    ("path", "named", "said"),
    [
        # In the store's own folder.
        ("ResNet50/1.safetensors", "ResNet50", "lower-case: call it resnet50"),
        ("MNIST/", "MNIST", "call it mnist"),
        ("my model/1.safetensors", "my model", "1 to 64 of a-z"),
        ("_private/1.safetensors", "_private", "begins with a letter or a digit"),
        ("ziffern-ü/1.safetensors", "ziffern-ü", "1 to 64 of a-z"),
        ("a" * 65 + "/", "a" * 65, "1 to 64"),
        ("digits.safetensors", "digits.safetensors", "in the folder of its model"),
        ("1.safetensors", "1.safetensors", "perhaps the store is the folder above"),
        ("resnet.pth", "resnet.pth", "in the folder of its model"),
        ("models.tar.gz", "models.tar.gz", "in the folder of its model"),
        # In a model's folder.
        ("mnist/1/model.safetensors", "mnist/1/model.safetensors", "as mnist/1.safetensors"),
        ("mnist/v2/model.pt", "mnist/v2/model.pt", "as mnist/2.safetensors"),
        ("mnist/007/", "mnist/007", "as mnist/7.safetensors"),
        ("mnist/best/weights.safetensors", "mnist/best/weights.safetensors", "as mnist/1.safetensors"),
        ("store/mnist/1.safetensors", "store/mnist/1.safetensors", "perhaps the store is the folder store"),
        ("digits/strokes.safetensors", "digits/strokes.safetensors", "a number from 1"),
        ("digits/01.safetensors", "digits/01.safetensors", "without zeros before it"),
        ("digits/0.safetensors", "digits/0.safetensors", "a number from 1"),
        ("digits/v1.safetensors", "digits/v1.safetensors", "a number from 1"),
        ("digits/1.0.safetensors", "digits/1.0.safetensors", "a number from 1"),
        ("digits/1 (1).safetensors", "digits/1 (1).safetensors", "a number from 1"),
        ("digits/-1.safetensors", "digits/-1.safetensors", "a number from 1"),
        ("digits/" + "9" * 19 + ".safetensors", "digits/" + "9" * 19 + ".safetensors", "a number from 1"),
        ("digits/1.SafeTensors", "digits/1.SafeTensors", "lower-case: call it 1.safetensors"),
        ("digits/1.safetensor", "digits/1.safetensor", "a version is a .safetensors file"),
        ("digits/1.pth", "digits/1.pth", "python -m training import"),
        ("digits/model_best.pth.tar", "digits/model_best.pth.tar", "python -m training import"),
        ("digits/1.safetensors.gz", "digits/1.safetensors.gz", "a version is a .safetensors file"),
        ("digits/1.ONNX", "digits/1.ONNX", "a version is a .safetensors file"),
        ("digits/3.safetensors/", "digits/3.safetensors", "it is a folder; a version is a file"),
    ],
)
def test_what_seems_to_be_a_version_is_named_with_what_is_wrong(
    tmp_path: Path, path: str, named: str, said: str
) -> None:
    ((at, reason),) = passed_over(laid_out(tmp_path, "letters/1.safetensors", path)).items()
    assert at == named
    assert said in reason


@pytest.mark.parametrize(
    "path",
    [
        "..2026_11_28/mnist/1.safetensors",
        ".git/1.safetensors",
        "lost+found/",
        "@eaDir/1.safetensors",
        "__MACOSX/1.safetensors",
        "$RECYCLE.BIN/1.pth",
        "README.md",
        "labels.json",
        "mnist/",
        "mnist/labels.txt",
        "mnist/1.safetensors",
        "mnist/.publishing.12.ab.tmp",
        "mnist/.2.claimed",
        "mnist/._1.safetensors",
        "mnist/2.safetensors.part",
        "mnist/2.safetensors.tmp",
        "mnist/2.safetensors.filepart",
        "mnist/2.safetensors.crdownload",
        "mnist/2.safetensors~",
        "mnist/~$2.safetensors",
        "mnist/1.safetensors.json",
        "mnist/1.safetensors.sha256",
        "mnist/@eaDir/1.safetensors",
        "mnist/logs/events.log",
    ],
)
def test_what_nobody_expects_to_be_served_is_not_named(tmp_path: Path, path: str) -> None:
    assert passed_over(laid_out(tmp_path, "letters/1.safetensors", path)) == {}


def test_links_that_lead_nowhere_and_pipes_are_named_as_what_they_are(tmp_path: Path) -> None:
    storage = laid_out(tmp_path, "letters/1.safetensors")
    (tmp_path / "gone").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "letters" / "2.safetensors").symlink_to("nowhere")
    os.mkfifo(tmp_path / "letters" / "3.safetensors")
    (tmp_path / "letters" / "4.safetensors").symlink_to("3.safetensors")
    assert passed_over(storage) == {
        "gone": "it is a link that leads nowhere",
        "loop": "it is a link that leads nowhere",
        "letters/2.safetensors": "it is a link that leads nowhere; a version is a file",
        "letters/3.safetensors": "it is a pipe, socket or device; a version is a file",
        "letters/4.safetensors": "it is a pipe, socket or device; a version is a file",
    }


def test_a_name_that_is_no_text_is_told_in_one_that_is(tmp_path: Path) -> None:
    storage = laid_out(tmp_path, "letters/a\udcff\n.safetensors", "B\udcff/")
    assert [path.encode() for path in passed_over(storage)] == [b"B\\udcff", b"letters/a\\udcff\n.safetensors"]


def test_of_many_the_first_are_named_and_the_rest_are_counted(tmp_path: Path) -> None:
    storage = laid_out(tmp_path, *(f"A{number:04}/" for number in range(100)))
    *named, last = storage.models().passed_over
    assert [each.path for each in named] == [f"A{number:04}" for number in range(20)]
    assert last == PassedOver("…", "80 more are passed over")


def test_of_many_folders_only_some_are_looked_into(tmp_path: Path) -> None:
    """A store that is a folder of photos, say: a look must not take minutes."""
    storage = laid_out(tmp_path, *(f"train/class{number:03}/a.bin" for number in range(50)))
    listing = storage.versions("train", {})
    assert listing is not None
    assert len(listing.passed_over) == 20
