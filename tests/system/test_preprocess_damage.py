"""Broken, cut short and hostile files: an ImageError or the right pixels, never a guess, never another exception."""

import io
import subprocess
import sys
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from classifier.preprocess import ImageError, Pixels, Preprocess
from tests.support.images import as_it_is, encoded, noise, opened, picture, pixels_of, tiff
from tests.support.server import PROJECT

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow also warns of what it then refuses


def _files() -> dict[str, bytes]:
    image, frames = picture(), [picture().rotate(90), picture().rotate(180)]
    alpha = image.convert("RGBA")
    alpha.putalpha(Image.fromarray(noise(61, 83, 1)[..., 0]))
    exif = Image.Exif()
    exif[274] = 6
    return {
        "JPEG": encoded(image, "JPEG"),
        "JPEG, progressive": encoded(image, "JPEG", progressive=True),
        "JPEG, turned": encoded(image, "JPEG", exif=exif),
        "JPEG, CMYK": encoded(image.convert("CMYK"), "JPEG"),
        "PNG": encoded(image, "PNG"),
        "PNG, turned": encoded(image, "PNG", exif=exif),
        "PNG, palette": encoded(image.quantize(30), "PNG", transparency=3),
        "PNG, 16 bits": encoded(Image.fromarray(noise(61, 83, 1)[..., 0].astype(np.uint16) << 8), "PNG"),
        "PNG, animated": encoded(image, "PNG", save_all=True, append_images=frames),
        "WebP": encoded(image, "WEBP"),
        "WebP, lossless": encoded(alpha, "WEBP", lossless=True, exif=exif),
        "WebP, animated": encoded(image, "WEBP", save_all=True, append_images=frames),
        "GIF": encoded(image, "GIF"),
        "GIF, animated": encoded(image, "GIF", save_all=True, append_images=frames),
        "BMP": encoded(image, "BMP"),
        "BMP, palette": encoded(image.quantize(30), "BMP"),
        "TIFF": encoded(image, "TIFF", exif=exif),
        "TIFF, LZW": encoded(image, "TIFF", compression="tiff_lzw"),
        "TIFF, JPEG": encoded(image, "TIFF", compression="jpeg"),
        "TIFF, directory first": tiff(83, 61, zlib.compress(image.convert("L").tobytes()), compression=8),
    }


FILES = _files()
# It takes any size: the resizing is part of what a broken file goes through.
PREPROCESS = {
    mode: Preprocess(mode=mode, resize=64, crop=(56, 56), mean=(0.5,) * n, std=(0.5,) * n, resizing="box")
    for mode, n in (("L", 1), ("RGB", 3))
}


def _pixels(data: bytes, mode: str = "RGB") -> Pixels | None:
    """None if the file is refused; opening it is the caller's, who may be told anything."""
    try:
        image = Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF"))
    except Exception:  # noqa: BLE001  that Pillow raises nearly anything is why decoding is wrapped
        return None
    if image.width * image.height > 1_000_000:  # a server's limit; a changed header may claim anything
        return None
    try:
        return PREPROCESS[mode].to_pixels(image)
    except ImageError:
        return None


@pytest.mark.parametrize("kind", FILES)
def test_a_truncated_file_is_refused_never_guessed(kind: str) -> None:
    data = FILES[kind]
    whole = _pixels(data)
    assert whole is not None
    # The end is where a decoder may be content too early.
    cuts = {*range(1, len(data), max(1, len(data) // 60)), *range(max(1, len(data) - 24), len(data))}
    for length in sorted(cuts):
        pixels = _pixels(data[:length])
        assert pixels is None or np.array_equal(pixels, whole), f"{length} of {len(data)} bytes"


@pytest.mark.parametrize("kind", FILES)
def test_half_of_a_file_with_one_image_is_refused(kind: str) -> None:
    if "animated" not in kind:
        assert _pixels(FILES[kind][: len(FILES[kind]) // 2]) is None


@pytest.mark.parametrize("kind", FILES)
def test_whatever_is_changed_in_a_file_gives_an_image_error_or_pixels_of_the_right_shape(kind: str) -> None:
    random = np.random.default_rng(zlib.crc32(kind.encode()))
    for case in range(60):
        data = bytearray(FILES[kind])
        for _ in range(int(random.integers(1, 9))):
            place = int(random.integers(len(data) if case % 2 else min(len(data), 120)))  # headers most of all
            match int(random.integers(4)):
                case 0 | 1:
                    data[place] = int(random.integers(256))
                case 2:
                    del data[place : place + int(random.integers(1, 9))]
                case 3:
                    data[place:place] = random.bytes(int(random.integers(1, 9)))
        for mode, preprocess in PREPROCESS.items():
            pixels = _pixels(bytes(data), mode)
            assert pixels is None or (pixels.shape == preprocess.shape and pixels.dtype == np.uint8)


def test_the_message_says_what_is_wrong_even_where_pillow_says_nothing() -> None:
    class Speechless(Image.Image):
        def load(self) -> Any:
            raise EOFError

    image = Speechless()
    with pytest.raises(ImageError, match=r"^the image is damaged: EOFError$"):
        PREPROCESS["L"].to_pixels(image)


def test_what_the_decoder_raised_is_kept_as_the_cause() -> None:
    data = FILES["PNG"]
    with pytest.raises(ImageError, match="truncated") as caught:
        PREPROCESS["L"].to_pixels(opened(data[: len(data) // 2]))
    assert isinstance(caught.value.__cause__, OSError)


@pytest.mark.parametrize("size", [(1, 60_000), (60_000, 1), (3, 20_000)])
@pytest.mark.parametrize("resizing", ["exact", "box"])
def test_a_very_long_thin_image_is_refused(size: tuple[int, int], resizing: str) -> None:
    preprocess = PREPROCESS["RGB"].model_copy(update={"resize": 256, "resizing": resizing})
    with pytest.raises(ImageError, match=f"{size[0]}x{size[1]} pixels is too long and thin"):
        preprocess.to_pixels(Image.new("RGB", size))


def test_a_long_thin_image_that_shrinks_is_taken() -> None:
    image = Image.new("RGB", (60_000, 70), (9, 9, 9))
    assert (PREPROCESS["RGB"].to_pixels(image) == 9).all()


MEASURE = """
import io, sys
from PIL import Image
from classifier.preprocess import ImageError, Preprocess

def memory(field):
    line = next(line for line in open("/proc/self/status") if line.startswith(field))
    return int(line.split()[1]) * 1024

values = (0.5,) if sys.argv[1] == "L" else (0.5,) * 3
preprocess = Preprocess(mode=sys.argv[1], resize=256, crop=(224, 224), mean=values, std=values)
image = Image.open(sys.argv[2])
preprocess.to_pixels(Image.new(image.mode, (300, 300)))  # what is loaded once
before = memory("VmRSS")
open("/proc/self/clear_refs", "w").write("5")
try:
    preprocess.to_pixels(image)
except ImageError:
    print("refused")
print((memory("VmHWM") - before) / (image.width * image.height))
"""


def _memory(tmp_path: Any, data: bytes, mode: str) -> tuple[str, float]:
    """What it printed before, and the bytes that it took for each pixel of the image at most."""
    path = tmp_path / "image"
    path.write_bytes(data)
    command = [sys.executable, "-c", MEASURE, mode, str(path)]
    ended = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, timeout=60, check=False)
    if "/proc/self" in ended.stderr:
        pytest.skip("this system does not tell what memory a process used")
    assert ended.returncode == 0, ended.stderr
    *said, bytes_each = ended.stdout.split()
    return " ".join(said), float(bytes_each)


@pytest.mark.process
@pytest.mark.parametrize(
    ("source", "mode"),
    [
        *(("RGB", "L"), ("RGB", "RGB"), ("RGB turned", "RGB"), ("RGBA", "RGB"), ("LA", "L"), ("P", "RGB")),
        *(("I;16", "L"), ("CMYK", "RGB")),
    ],
)
def test_an_image_takes_a_small_multiple_of_its_own_memory(tmp_path: Any, source: str, mode: str) -> None:
    size, exif = (2000, 1500), Image.Exif()
    if source.endswith("turned"):
        exif[274] = 6
    image = Image.new(source.split()[0], size)
    options: dict[str, Any] = {"transparency": 0} if source in ("P", "I;16") else {}
    data = encoded(image, "TIFF" if source == "CMYK" else "PNG", exif=exif, **options)
    _, bytes_each = _memory(tmp_path, data, mode)
    # Pillow holds 4 bytes for a pixel of more than one channel: the image, one step further, and some air.
    assert bytes_each < 14


@pytest.mark.process
def test_a_long_thin_image_is_refused_without_the_memory_it_would_take(tmp_path: Any) -> None:
    said, bytes_each = _memory(tmp_path, encoded(Image.new("L", (100_000, 10)), "PNG"), "L")
    assert said == "refused"
    assert bytes_each < 14


def test_the_pixels_of_a_sound_file_do_not_depend_on_where_it_is_read_from(tmp_path: Any) -> None:
    for kind, data in FILES.items():
        path = tmp_path / "image"
        path.write_bytes(data)
        with Image.open(path) as image:
            preprocess = as_it_is("RGB", 83, 83)
            assert np.array_equal(preprocess.to_pixels(image), preprocess.to_pixels(opened(data))), kind


def test_pixels_of_all_formats_without_loss_are_equal() -> None:
    for kind in ("PNG", "PNG, animated", "BMP", "TIFF, LZW"):
        assert np.array_equal(pixels_of(FILES[kind], "RGB"), np.asarray(picture())), kind
