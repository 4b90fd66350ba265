"""Measures how long the slowest accepted files of each format take to decode, over a baseline JPEG of the most pixels.

    python -m benchmarks.serving.decoding_limits [--megapixels 12] [--json benchmarks/results/decoding_limits.json]

Each file is made to be slow, and as large as is accepted. The baseline has all its colours in full resolution, quality
95 and grain. Beside it stands a lighter one: colours halved, quality 75. All times are of the thread's CPU, with the
resizing for a network of 224x224. The baseline is decoded before each file, as the machine is not always equally fast.
The ratio is the median of several such pairs. Nothing may take longer than twice the baseline.
"""

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from PIL import Image
from rich.console import Console
from rich.table import Table

from app.decoding.formats import ImageProblem
from app.decoding.image import open_image, to_pixels
from benchmarks.harness.report import machine
from benchmarks.harness.slow_images import bmp_of_runs, encoded, gif, jpeg_of_scans, picture, png, tiff
from classifier.preprocess import Preprocess

_PREPROCESS = Preprocess(mode="RGB", resize=256, crop=(224, 224), mean=(0.0,) * 3, std=(1.0,) * 3)
_PAIRS = 5
_SAMPLE = 8  # times as many pixels are allowed as the first file of each kind has
_SMALLER = 0.9  # what is refused is tried again with so many times the pixels

Make = Callable[[int, int], bytes]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megapixels", type=float, default=12, help="the most pixels of an image, in millions")
    parser.add_argument("--json", type=Path, help="where the figures are kept")
    arguments = parser.parse_args()
    most = int(arguments.megapixels * 1e6)
    demanding = _jpeg(*_size(most))
    rows: list[dict[str, object]] = []
    for name, make in {"baseline JPEG": _jpeg, **_files()}.items():
        data, pixels = (demanding, most) if make is _jpeg else _largest(make, most)
        if data is not None:
            pairs = [(_seconds(demanding, most), _seconds(data, most)) for _ in range(_PAIRS)]
            rows.append(
                {
                    "file": name,
                    "megapixels": pixels / 1e6,
                    "megabytes": len(data) / 1e6,
                    "seconds": statistics.median(own for _, own in pairs),
                    "ratio": statistics.median(own / baseline for baseline, own in pairs),
                }
            )
    _show(rows)
    if arguments.json is not None:
        document = {"machine": machine(), "max_megapixels": arguments.megapixels, "files": rows}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")


def _files() -> dict[str, Make]:
    def raw_strips(width: int, height: int) -> bytes:
        rows = {278: (4, [1]), 273: (4, (8).to_bytes(4, "little") * height)}
        return tiff(width, height, {**rows, 279: (4, width.to_bytes(4, "little") * height)}, bytes(width))

    return {
        "JPEG, light baseline": lambda w, h: encoded(picture(w, h), "JPEG"),
        "JPEG, inks": lambda w, h: encoded(picture(w, h, "CMYK"), "JPEG", quality=95),
        "JPEG, progressive": lambda w, h: encoded(picture(w, h), "JPEG", quality=90, progressive=True),
        "JPEG, progressive, whole colours": lambda w, h: _jpeg(w, h, progressive=True),
        "JPEG, 20 scans more": lambda w, h: jpeg_of_scans(w, h, 20),
        "JPEG, 1000 scans more": lambda w, h: jpeg_of_scans(w, h, 1000),
        "JPEG, arithmetic, 20 scans more": lambda w, h: jpeg_of_scans(w, h, 20, frame=0xCA),
        "PNG, grey": lambda w, h: png(w, h, colour=0),
        "PNG, RGB": png,
        "PNG, RGB, interlaced": lambda w, h: png(w, h, interlaced=True),
        "PNG, RGBA": lambda w, h: png(w, h, colour=6),
        "PNG, RGB of 16 bits": lambda w, h: png(w, h, depth=16),
        "PNG, RGBA of 16 bits, interlaced": lambda w, h: png(w, h, depth=16, colour=6, interlaced=True),
        "PNG, chunks of 50 bytes": lambda w, h: png(w, h, piece=50),
        "WebP": lambda w, h: encoded(picture(w, h), "WEBP", quality=90, method=0),
        "WebP, lossless": lambda w, h: encoded(picture(w, h), "WEBP", lossless=True, method=0, quality=0),
        "WebP, lossless, alpha": lambda w, h: encoded(_seen_through(w, h), "WEBP", lossless=True, method=0, quality=0),
        "TIFF, LZW": lambda w, h: encoded(picture(w, h), "TIFF", compression="tiff_lzw"),
        "TIFF, deflate": lambda w, h: encoded(picture(w, h), "TIFF", compression="tiff_adobe_deflate"),
        "TIFF, LZMA": lambda w, h: encoded(picture(w, h), "TIFF", compression="lzma"),
        "TIFF, JPEG": lambda w, h: encoded(picture(w, h), "TIFF", compression="jpeg"),
        "TIFF, fax": lambda w, h: encoded(picture(w, h, "1"), "TIFF", compression="group4"),
        "TIFF, a strip for each row": raw_strips,
        "GIF": gif,
        "GIF, a photo": lambda w, h: encoded(picture(w, h).quantize(256, method=2), "GIF"),
        "BMP": lambda w, h: encoded(picture(w, h), "BMP"),
        "BMP, runs of one": lambda w, h: bmp_of_runs(w, h, b"\x01\x05" * w),
        "BMP, ends of rows": lambda w, h: bmp_of_runs(w, h, b"\x01\x05"),
    }


def _jpeg(width: int, height: int, **options: bool) -> bytes:
    return encoded(picture(width, height), "JPEG", quality=95, subsampling=0, **options)


def _seen_through(width: int, height: int) -> Image.Image:
    image = picture(width, height, "RGBA").copy()
    image.putalpha(picture(width, height, "L"))
    return image


def _size(pixels: float) -> tuple[int, int]:
    width = min(16_000, int(math.sqrt(pixels * 4 / 3)))
    return width, int(pixels / width)


def _largest(make: Make, most: int) -> tuple[bytes | None, int]:
    """Returns the file with the most pixels that is accepted, and how many it has; None if none of any use is."""
    # A small one tells how large one may be: all work but a little grows with the pixels.
    sample = make(*_size(most / _SAMPLE))
    least, enough = most / _SAMPLE, 1000.0 * most
    while enough > 1.02 * least:
        middle = math.sqrt(least * enough)
        least, enough = (least, middle) if _is_accepted(sample, int(middle)) else (middle, enough)
    pixels = min(1.0, most / _SAMPLE / enough) * most
    while pixels > most / 1000:
        width, height = _size(pixels)
        data = make(width, height)
        if _is_accepted(data, most):
            return data, width * height
        pixels *= _SMALLER
    return None, 0


def _is_accepted(data: bytes, most: int) -> bool:
    try:
        open_image(data, max_pixels=most)
    except ImageProblem:
        return False
    return True


def _seconds(data: bytes, most: int) -> float:
    began = time.thread_time()
    to_pixels(open_image(data, max_pixels=most), _PREPROCESS)
    return time.thread_time() - began


def _show(rows: list[dict[str, object]]) -> None:
    table = Table("file", title="The slowest files that are accepted", title_justify="left")
    for column in ("megapixels", "megabytes", "seconds", "ratio"):
        table.add_column(column, justify="right")
    for row in rows:
        table.add_row(
            str(row["file"]),
            *(f"{row[name]:.2f}" for name in ("megapixels", "megabytes", "seconds", "ratio")),
        )
    Console(width=110).print(table)


if __name__ == "__main__":
    main()
