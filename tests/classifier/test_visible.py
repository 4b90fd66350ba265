"""Whatever a file holds comes out right: orientation, transparency, colours, depths, and the first of many frames."""

import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from PIL import ExifTags, Image, ImageCms

from classifier.preprocess import ImageError
from tests.support.images import Array, as_it_is, encoded, noise, opened, picture, pixels_of, png, tiff

# What is stored for an image that is to be seen as `seen`, by the definition of each EXIF orientation:
# 1 row 0 is the top and column 0 the left; 2 top, right; 3 bottom, right; 4 bottom, left; 5 left, top; …
STORED: dict[int, Callable[[Array], Array]] = {
    1: lambda seen: seen,
    2: lambda seen: seen[:, ::-1],
    3: lambda seen: seen[::-1, ::-1],
    4: lambda seen: seen[::-1],
    5: lambda seen: seen.swapaxes(0, 1),
    6: np.rot90,
    7: lambda seen: seen[::-1, ::-1].swapaxes(0, 1),
    8: lambda seen: np.rot90(seen, -1),
}
LOSSLESS: dict[str, dict[str, Any]] = {"PNG": {}, "TIFF": {}, "WEBP": {"lossless": True}}
FILES = LOSSLESS | {"JPEG": {"quality": 100, "subsampling": 0}, "TIFF ": {"compression": "tiff_lzw"}}


def _exif(orientation: object) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    return exif


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", FILES)
def test_an_image_is_seen_upright_as_its_exif_orientation_says(kind: str, orientation: int) -> None:
    seen = np.asarray(picture(24, 40))
    stored = Image.fromarray(np.ascontiguousarray(STORED[orientation](seen)))
    data = encoded(stored, kind.strip(), exif=_exif(orientation), **FILES[kind])
    pixels = as_it_is("RGB", 24, 40).to_pixels(opened(data))
    assert np.abs(pixels.astype(np.int16) - seen).max() <= (8 if kind == "JPEG" else 0)


def test_the_orientation_counts_before_the_resizing() -> None:
    image = picture(40, 20)
    data = encoded(image, "PNG", exif=_exif(6))
    preprocess = as_it_is("RGB", 10, 20).model_copy(update={"resize": 10})
    upright = image.transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(preprocess.to_pixels(opened(data)), preprocess.to_pixels(upright))


def test_where_memory_does_not_suffice_to_read_the_orientation_none_is_guessed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def no_memory(_: Image.Image) -> Image.Exif:
        raise MemoryError

    data = encoded(picture(), "PNG", exif=_exif(3))
    monkeypatch.setattr(Image.Image, "getexif", no_memory)
    with pytest.raises(MemoryError):
        pixels_of(data, "RGB")


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_means_nothing_is_ignored(orientation: int) -> None:
    image = picture()
    assert np.array_equal(pixels_of(encoded(image, "PNG", exif=_exif(orientation)), "RGB"), np.asarray(image))


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")  # Pillow's words for it
@pytest.mark.parametrize("kind", sorted(LOSSLESS.keys() - {"TIFF"} | {"JPEG"}))
@pytest.mark.parametrize("damage", range(12))
def test_damaged_exif_is_ignored(kind: str, damage: int) -> None:
    exif = _exif(6).tobytes()
    random = np.random.default_rng(damage)
    if damage < 6:  # cut short
        exif = exif[: 6 + int(random.integers(0, len(exif) - 6))]
    else:  # some bytes changed, but not the orientation's own
        broken = bytearray(exif)
        for _ in range(4):
            broken[int(random.integers(6, len(exif)))] = int(random.integers(256))
        exif = bytes(broken)
    upright, turned = picture(20, 30), picture(20, 30).transpose(Image.Transpose.ROTATE_270)
    options = FILES[kind]
    data = encoded(upright, kind, exif=exif, **options)
    try:
        pixels = as_it_is("RGB", 20, 30).to_pixels(opened(data))
    except ImageError:
        pytest.fail("damaged EXIF made the image unusable")
    # What of it could still be read may count.
    allowed = [as_it_is("RGB", 20, 30).to_pixels(image) for image in (upright, turned)]
    assert min(np.abs(pixels.astype(np.int16) - a).max() for a in allowed) <= (8 if kind == "JPEG" else 0)


def _on(background: int, colours: Array, alpha: Array) -> Array:
    """What is seen of colours [height, width, channels] through alpha [height, width], by definition."""
    opacity = alpha[..., None] / 255
    seen: Array = np.rint(colours * opacity + background * (1 - opacity))
    return seen


def _levels_apart(pixels: Array, expected: Array) -> int:
    return int(np.abs(pixels.astype(np.int16) - expected).max())


@pytest.mark.parametrize("background", [0, 130, 255])
@pytest.mark.parametrize("kind", LOSSLESS)
def test_rgba_is_flattened_on_the_background(kind: str, background: int) -> None:
    values = noise(17, 19, 4)
    data = encoded(Image.fromarray(values), kind, **({"exact": True} if kind == "WEBP" else {}), **LOSSLESS[kind])
    expected = _on(background, values[..., :3], values[..., 3])
    assert _levels_apart(pixels_of(data, "RGB", background=background), expected) <= 1
    grey = np.asarray(Image.fromarray(expected.astype(np.uint8)).convert("L"))[..., None]
    assert _levels_apart(pixels_of(data, "L", background=background), grey) <= 1


@pytest.mark.parametrize("background", [0, 130, 255])
@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_grey_with_alpha_is_flattened_on_the_background(kind: str, background: int) -> None:
    values = noise(17, 19, 2)
    data = encoded(Image.fromarray(values, "LA"), kind)
    expected = _on(background, values[..., :1], values[..., 1])
    assert _levels_apart(pixels_of(data, "L", background=background), expected) <= 1
    assert _levels_apart(pixels_of(data, "RGB", background=background), expected.repeat(3, axis=2)) <= 1


def test_what_is_opaque_keeps_its_colours_and_what_is_transparent_shows_the_background_alone() -> None:
    values = noise(17, 19, 4)
    values[..., 3] = 255
    values[:9, :, 3] = 0
    pixels = pixels_of(encoded(Image.fromarray(values), "PNG"), "RGB", background=77)
    assert (pixels[:9] == 77).all()
    assert np.array_equal(pixels[9:], values[9:, :, :3])


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_transparent_entry_of_the_palette_shows_the_background(kind: str) -> None:
    image = Image.fromarray(np.array([[0, 1, 2], [2, 1, 0]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    pixels = pixels_of(encoded(image, kind, transparency=1), "RGB", background=200)
    assert pixels[0].tolist() == [[10, 20, 30], [200, 200, 200], [70, 80, 90]]


def test_each_entry_of_a_palette_may_have_its_own_alpha() -> None:
    image = Image.fromarray(np.array([[0, 1, 2, 3]], np.uint8), "P")
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90, 250, 250, 250])
    pixels = pixels_of(encoded(image, "PNG", transparency=bytes([255, 0, 128])), "RGB", background=200)
    expected = [[10, 20, 30], [200, 200, 200], [135, 140, 145], [250, 250, 250]]
    assert _levels_apart(pixels[0], np.array(expected)) <= 1


DEEP = struct.pack(">9H", *range(0, 9000, 1000))
# A PNG's colour key is in the file's own depth; the pixel that is to be transparent is the second of three.
KEYED = {
    "1 bit": (png(3, 1, depth=1, colour=0, rows=[b"\x40"], key=b"\0\1"), [0, 99, 0]),
    "2 bits": (png(3, 1, depth=2, colour=0, rows=[b"\x18"], key=b"\0\1"), [0, 99, 170]),
    "4 bits": (png(3, 1, depth=4, colour=0, rows=[b"\x0f\x30"], key=b"\0\x0f"), [0, 99, 51]),
    "8 bits": (png(3, 1, depth=8, colour=0, rows=[bytes((7, 8, 9))], key=b"\0\x08"), [7, 99, 9]),
    "16 bits": (
        png(3, 1, depth=16, colour=0, rows=[struct.pack(">3H", 0x1200, 0x1234, 0x3412)], key=b"\x12\x34"),
        [0x12, 99, 0x34],
    ),
    "RGB": (
        png(3, 1, depth=8, colour=2, rows=[bytes((1, 2, 3, 4, 5, 6, 4, 5, 7))], key=struct.pack(">3H", 4, 5, 6)),
        [[1, 2, 3], [99, 99, 99], [4, 5, 7]],
    ),
    "RGB of 16 bits": (
        png(3, 1, depth=16, colour=2, rows=[DEEP], key=DEEP[6:12]),
        [[0, 3, 7], [99, 99, 99], [23, 27, 31]],
    ),
}


@pytest.mark.parametrize("depth", KEYED)
def test_the_colour_key_of_a_png_shows_the_background_in_every_depth(depth: str) -> None:
    data, expected = KEYED[depth]
    mode = "RGB" if depth.startswith("RGB") else "L"
    pixels = pixels_of(data, mode, background=99)[0]
    assert (pixels if mode == "RGB" else pixels[:, 0]).tolist() == expected


def test_the_same_image_gives_the_same_pixels_twice() -> None:
    for data, _ in KEYED.values():
        image, preprocess = opened(data), as_it_is("RGB", 1, 3, background=99)
        assert np.array_equal(preprocess.to_pixels(image), preprocess.to_pixels(image))


@pytest.mark.parametrize("colour", [4, 6], ids=["grey", "RGB"])
def test_alpha_of_16_bits_counts(colour: int) -> None:
    level = (0x40FF,) if colour == 4 else (0x40FF, 0x80FF, 0xC0FF)
    row = struct.pack(f">{3 * (len(level) + 1)}H", *(*level, 0), *(*level, 0x8000), *(*level, 0xFFFF))
    pixels = pixels_of(png(3, 1, depth=16, colour=colour, rows=[row]), "RGB", background=0)[0]
    whole = np.array([v >> 8 for v in level] * (3 if colour == 4 else 1))
    assert _levels_apart(pixels, np.rint(whole * np.array([[0], [128 / 255], [1]]))) <= 1


LEVELS = (np.arange(64, dtype=np.uint16) * 1023).reshape(8, 8)
GREY = LEVELS.tobytes()
SIXTEEN_BITS: dict[str, tuple[Callable[[], bytes], Array]] = {
    "PNG": (lambda: encoded(Image.fromarray(LEVELS), "PNG"), LEVELS >> 8),
    "TIFF, Intel": (lambda: tiff(8, 8, GREY, bits=16), LEVELS >> 8),
    "TIFF, Motorola": (lambda: tiff(8, 8, LEVELS.astype(">u2").tobytes(), bits=16, order=">"), LEVELS >> 8),
    "TIFF, compressed": (lambda: tiff(8, 8, zlib.compress(GREY), bits=16, compression=8), LEVELS >> 8),
    "TIFF, 0 is white": (lambda: tiff(8, 8, GREY, bits=16, photometric=0), 255 - (LEVELS >> 8)),
}


@pytest.mark.parametrize("kind", SIXTEEN_BITS)
def test_16_bits_keep_their_upper_half(kind: str) -> None:
    data, expected = SIXTEEN_BITS[kind]
    assert opened(data()).mode.startswith("I;16")
    assert np.array_equal(pixels_of(data(), "L")[..., 0], expected)
    assert np.array_equal(pixels_of(data(), "RGB"), expected[..., None].repeat(3, axis=2))


@pytest.mark.parametrize("compression", [1, 8])
def test_12_bits_span_all_levels_too(compression: int) -> None:
    levels = [64 * i for i in range(64)]
    bits = int("".join(f"{level:012b}" for level in levels), 2).to_bytes(96, "big")
    data = tiff(8, 8, zlib.compress(bits) if compression == 8 else bits, bits=12, compression=compression)
    assert pixels_of(data, "L").ravel().tolist() == [level >> 4 for level in levels]


def test_a_turned_image_of_16_bits_comes_out_right() -> None:
    data = encoded(Image.fromarray(LEVELS), "PNG", exif=_exif(3))
    assert np.array_equal(pixels_of(data, "L")[..., 0], (LEVELS >> 8)[::-1, ::-1])


@pytest.mark.parametrize("mode", ["I", "F"])
def test_pixels_without_an_agreed_range_are_refused(mode: str) -> None:
    data = encoded(Image.new(mode, (4, 4), 7), "TIFF")
    with pytest.raises(ImageError, match=f"mode {mode}"):
        pixels_of(data, "L")


def _blocks(*colours: tuple[int, ...]) -> Array:
    """One 16x16 block of each colour: a JPEG keeps them nearly as they are."""
    return np.concatenate([np.full((16, 16, len(colour)), colour, np.uint8) for colour in colours], axis=1)


INKS = ((0, 0, 0, 0), (255, 0, 0, 0), (0, 200, 0, 0), (0, 0, 100, 50), (20, 40, 60, 80), (0, 0, 0, 255))


@pytest.mark.parametrize("kind", ["TIFF", "JPEG"])
def test_cmyk_becomes_the_colours_of_its_inks(kind: str) -> None:
    inks = _blocks(*INKS)
    data = encoded(Image.fromarray(inks, "CMYK"), kind, **({"quality": 100} if kind == "JPEG" else {}))
    assert (b"Adobe" in data) == (kind == "JPEG")  # such a JPEG holds its inks inverted
    levels = 255 - inks.astype(np.float64)
    expected = np.rint(levels[..., :3] * levels[..., 3:] / 255)
    assert _levels_apart(pixels_of(data, "RGB"), expected) <= 4


def test_a_cmyk_jpeg_that_adobe_did_not_write_is_not_inverted() -> None:
    inks = _blocks(*INKS)
    data = encoded(Image.fromarray(255 - inks, "CMYK"), "JPEG", quality=100)
    start = data.index(b"\xff\xee")  # the marker says who wrote it; Pillow inverts where it is there
    plain = data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") :]
    levels = 255 - inks.astype(np.float64)
    assert _levels_apart(pixels_of(plain, "RGB"), np.rint(levels[..., :3] * levels[..., 3:] / 255)) <= 4


@pytest.mark.parametrize("subsampling", [0, 1, 2])
def test_a_jpegs_ycbcr_becomes_rgb(subsampling: int) -> None:
    colours = _blocks((255, 0, 0), (0, 255, 0), (0, 0, 255), (10, 200, 90), (255, 255, 255), (0, 0, 0))
    data = encoded(Image.fromarray(colours), "JPEG", quality=100, subsampling=subsampling)
    middle = (slice(8, 9), slice(8, None, 16))  # the colours of neighbouring blocks run into each other
    assert _levels_apart(pixels_of(data, "RGB")[middle], colours[middle]) <= 4


@pytest.mark.parametrize("kind", ["PNG", "GIF", "BMP", "TIFF"])
def test_a_palette_becomes_its_colours(kind: str) -> None:
    image = picture().quantize(200)
    expected = image.convert("RGB")
    data = encoded(image, kind)
    assert opened(data).mode == "P"
    assert np.array_equal(pixels_of(data, "RGB"), np.asarray(expected))
    assert np.array_equal(pixels_of(data, "L")[..., 0], np.asarray(expected.convert("L")))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF"])
def test_1_bit_becomes_black_and_white(kind: str) -> None:
    bits = noise(13, 21, 1)[..., 0] > 127
    data = encoded(Image.fromarray(bits), kind)
    expected = np.where(bits, 255, 0)
    assert np.array_equal(pixels_of(data, "L")[..., 0], expected)
    assert np.array_equal(pixels_of(data, "RGB"), expected[..., None].repeat(3, axis=2))


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize(
    "source",
    ["1", "L", "P", "RGB", "RGBA", "RGBa", "RGBX", "LA", "La", "PA", "CMYK", "YCbCr", "HSV", "LAB", "I;16", "I;16B"],
)
def test_no_mode_that_a_file_can_have_is_left_out(source: str, mode: str) -> None:
    assert as_it_is(mode, 4, 4).to_pixels(Image.new(source, (4, 4))).shape == (4, 4, 1 if mode == "L" else 3)


def test_lab_becomes_rgb_and_its_grey() -> None:
    profiles = (ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"))
    colours = Image.fromarray(_blocks((200, 30, 40), (20, 90, 220), (128, 128, 128)))
    lab = ImageCms.profileToProfile(colours, *profiles, outputMode="LAB")
    assert lab is not None
    data = encoded(lab, "TIFF")
    assert opened(data).mode == "LAB"
    assert _levels_apart(pixels_of(data, "RGB"), np.asarray(colours)) <= 8  # 8 bits of Lab tell fewer colours apart
    assert _levels_apart(pixels_of(data, "L")[..., 0], np.asarray(colours.convert("L"))) <= 8


@pytest.mark.parametrize(("kind", "options"), [("GIF", {}), ("WEBP", {"lossless": True}), ("PNG", {}), ("TIFF", {})])
def test_an_animated_image_gives_its_first_frame(kind: str, options: dict[str, Any]) -> None:
    frames = [Image.new("RGB", (12, 9), colour) for colour in ("red", "lime", "blue")]
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert getattr(opened(data), "n_frames", 1) == 3
    assert np.array_equal(pixels_of(data, "RGB"), np.asarray(frames[0]))
