"""Files as people have them, over HTTP and in a folder of photos: both sides accept and refuse the same ones."""

from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks.harness.slow_images import jpeg_of_scans, png, png_chunk, tiff
from classifier.progress import Progress
from tests.support.engines import ScriptedEngine
from tests.support.http_side import http_side
from tests.support.images import encoded
from tests.support.photo_files import picture, write_folder
from training.data.dataset import Dataset, load_dataset
from training.data.decode import Job, pixels_of
from training.recipes.builtin import builtin
from training.recipes.recipe import Augment

VIDEO = b"\x00\x00\x00\x20ftypisom\x00\x00\x02\x00isomiso2avc1mp41" + bytes(1000)
REFUSED: dict[str, tuple[bytes, int, str, str]] = {
    "scans.jpg": (jpeg_of_scans(4000, 4000, 3000), 413, "too_many_pixels", "times as long to decode"),
    "pieces.tif": (
        tiff(1, 400_000, {278: (4, [1]), 273: (4, (8).to_bytes(4, "little") * 400_000)}, b"0"),
        413,
        "too_many_pixels",
        "times as long to decode",
    ),
    "empty.png": (b"", 422, "bad_image", "is empty"),
    "video.jpg": (VIDEO, 415, "unsupported_format", "video"),
}


def sound() -> dict[str, bytes]:
    """Files whose metadata is large, or wrong."""
    image = picture(9)
    plain = encoded(image)
    profile = bytes(range(256)) * 8000
    wrong = png_chunk(b"tEXt", b"Comment\0made by a scanner")[:-4] + bytes(4)
    return {
        "profile.png": encoded(image, icc_profile=profile),
        "checksum.png": plain[:33] + wrong + plain[33:],
        "profile.jpg": encoded(image, "JPEG", icc_profile=profile),
        "profile.webp": encoded(image, "WEBP", icc_profile=profile),
        "profile.tif": encoded(image, "TIFF", icc_profile=profile),
        "scans.jpg": jpeg_of_scans(64, 64, 300),
        "interlaced.png": png(64, 64, interlaced=True),
    }


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("name", "as_form"), [*((name, True) for name in REFUSED), *((name, False) for name in REFUSED if REFUSED[name][0])]
)
async def test_the_server_says_what_it_does_not_take(name: str, as_form: bool) -> None:
    data, status, code, words = REFUSED[name]
    async with http_side(ScriptedEngine()) as side, side.client() as client:
        if as_form:
            answer = await client.post("/predict", files={"file": (name, data)})
        else:
            answer = await client.post("/predict", content=data, headers={"content-type": "application/octet-stream"})
    assert (answer.status_code, answer.json()["code"]) == (status, code)
    assert words in answer.json()["detail"]


@pytest.mark.anyio
@pytest.mark.parametrize("name", sound())
async def test_the_server_answers_files_with_any_metadata(name: str) -> None:
    async with http_side(ScriptedEngine()) as side, side.client() as client:
        answer = await client.post("/predict", files={"file": (name, sound()[name])})
    assert answer.status_code == 200, answer.text


@pytest.fixture
def load(tmp_path: Path) -> Callable[[Path], Dataset]:
    def load(folder: Path) -> Dataset:
        progress = Progress(Console(file=StringIO()))
        recipe = builtin("photos").replace(held_out=0.25)
        return load_dataset(
            recipe, folder=folder, scratch=tmp_path / "scratch", workers=0, strict=False, progress=progress
        )

    return load


@pytest.mark.slow
def test_training_names_the_same_files_and_uses_the_same(load: Callable[[Path], Dataset], tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos", ants=6, bees=6)
    for name, data in sound().items():
        (folder / "ants" / f"sound {name}").write_bytes(data)
    for name, (data, *_) in REFUSED.items():
        (folder / "ants" / f"refused {name}").write_bytes(data)
    dataset = load(folder)
    skipped = dict(line.split(": ", 1) for line in dataset.skipped)
    assert skipped.keys() == {f"ants/refused {name}" for name in REFUSED}
    assert "times as long to decode" in skipped["ants/refused scans.jpg"]
    assert "times as long to decode" in skipped["ants/refused pieces.tif"]
    assert skipped["ants/refused empty.png"] == "it is empty"
    paths = tuple(folder / "ants" / f"sound {name}" for name in sound())
    preprocess = builtin("photos").preprocess
    for augment, seeds in ((Augment(), None), (Augment(crop=(0.1, 0.5)), (*range(len(paths)),))):
        pixels = pixels_of(Job(paths, preprocess, augment, seeds))  # nothing is refused later
        assert len(pixels) == len(paths)
