"""2,000 damaged images over real connections: each is answered, none by a fault of the server, which stays as it is."""

import asyncio
import io
import random
import struct
import zlib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx2
import pytest
from PIL import Image

from tests.support.checkpoints import png
from tests.support.images import encoded
from tests.support.raw import Connection, connection, request
from tests.support.server import ServerProcess

COUNT = 2000
CONNECTIONS = 8
# The pool may hold 1 million pixels of each image in each thread, in a few copies; beyond that nothing should stay.
MAX_GROWTH_MB = 100

Damage = Callable[[random.Random, bytearray], bytes]


def sound_images() -> list[bytes]:
    """All six formats in several modes, small and large, with what they can carry along."""
    images = []
    for size in ((28, 28), (190, 140)):
        grey = Image.open(io.BytesIO(png(1, size)))
        colour = Image.open(io.BytesIO(png(2, size, "RGB")))
        see_through = colour.convert("RGBA")
        see_through.putalpha(grey)
        exif = Image.Exif()
        exif[0x0112] = 6
        images += [
            encoded(grey),
            encoded(colour, compress_level=0),
            encoded(see_through),
            encoded(colour.convert("P"), transparency=3),
            encoded(grey.convert("I;16")),
            encoded(grey, "JPEG", exif=exif),
            encoded(colour, "JPEG", progressive=True),
            encoded(colour.convert("CMYK"), "JPEG"),
            encoded(colour, "WEBP"),
            encoded(see_through, "WEBP", lossless=True, exif=exif),
            encoded(colour, "WEBP", save_all=True, append_images=[colour.rotate(90)]),
            encoded(colour.convert("P"), "GIF", save_all=True, append_images=[colour.rotate(90).convert("P")]),
            encoded(grey, "BMP"),
            encoded(colour, "BMP"),
            encoded(grey.convert("1"), "BMP"),
            encoded(grey, "TIFF"),
            encoded(colour, "TIFF", compression="tiff_lzw"),
            encoded(colour, "TIFF", compression="jpeg"),
            encoded(grey.convert("1"), "TIFF", compression="group4"),
            encoded(see_through, "TIFF", compression="tiff_adobe_deflate"),
        ]
    return images


def damaged(seeded: random.Random, images: list[bytes], count: int) -> Iterator[bytes]:
    def splice(seeded: random.Random, image: bytearray) -> bytes:
        """The start of one and the end of another format."""
        other = seeded.choice(images)
        return bytes(image[: seeded.randrange(8, len(image))] + other[seeded.randrange(len(other)) :])

    kinds: list[Damage] = [flip_bytes, cut_short, shuffle_pieces, lie_in_the_head, repeat_a_piece, lie_in_a_png, splice]
    for i in range(count):
        yield seeded.choice(kinds)(seeded, bytearray(images[i % len(images)]))


def flip_bytes(seeded: random.Random, image: bytearray) -> bytes:
    for _ in range(seeded.choice([1, 2, 5, 50])):
        image[seeded.randrange(len(image))] = seeded.randrange(256)
    return bytes(image)


def cut_short(seeded: random.Random, image: bytearray) -> bytes:
    return bytes(image[: seeded.randrange(1, len(image))])


def shuffle_pieces(seeded: random.Random, image: bytearray) -> bytes:
    """The first bytes stay, so that the format is still known."""
    size = seeded.choice([4, 16, 100])
    pieces = [image[i : i + size] for i in range(12, len(image), size)]
    seeded.shuffle(pieces)
    return bytes(image[:12] + b"".join(pieces))


def lie_in_the_head(seeded: random.Random, image: bytearray) -> bytes:
    """A length, an offset or a size that cannot be, where the formats keep theirs."""
    lie = seeded.choice([0, 1, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, seeded.randrange(1 << 32)])
    at = seeded.randrange(4, min(len(image) - 4, 120))
    form, wrapped = seeded.choice([("<I", lie), (">I", lie), ("<H", lie & 0xFFFF), (">H", lie & 0xFFFF)])
    struct.pack_into(form, image, at, wrapped)
    return bytes(image)


def repeat_a_piece(seeded: random.Random, image: bytearray) -> bytes:
    at = seeded.randrange(8, len(image))
    return bytes(image[:at] + image[at : at + 64] * seeded.choice([2, 100, 1000]) + image[at:])


def lie_in_a_png(seeded: random.Random, image: bytearray) -> bytes:
    """With a sound checksum, so that it is believed."""
    lying = image if image[:4] == b"\x89PNG" else bytearray(encoded(Image.open(io.BytesIO(image)).convert("RGB")))
    position = 8
    while position + 12 <= len(lying):
        (length,) = struct.unpack_from(">I", lying, position)
        if length and seeded.random() < 0.5:
            lying[position + 8 + seeded.randrange(min(length, 13))] = seeded.randrange(256)
            body = bytes(lying[position + 4 : position + 8 + length])
            struct.pack_into(">I", lying, position + 8 + length, zlib.crc32(body))
        position += 12 + length
    return bytes(lying)


async def post(client: Connection, image: bytes) -> tuple[int, str]:
    await client.send(request("/predict?model=digits", image, content_type="application/octet-stream"))
    answer = await client.response()
    assert answer.headers["content-type"] == (
        "application/json" if answer.status_code == 200 else "application/problem+json"
    )
    return answer.status_code, answer.json().get("code", "predictions")


def megabytes(server: ServerProcess) -> float:
    """Of memory that the process holds."""
    status = Path(f"/proc/{server.process.pid}/status")
    if not status.exists():
        pytest.skip("this system does not tell how much memory a process holds")
    (line,) = [line for line in status.read_text().splitlines() if line.startswith("VmRSS")]
    return int(line.split()[1]) / 1000


@pytest.mark.slow
@pytest.mark.anyio
async def test_damaged_images_are_answered_and_leave_the_server_as_it_was(server: ServerProcess) -> None:
    images = sound_images()
    before = await predicted(server, images)
    grown_from = megabytes(server)
    hostile = damaged(random.Random(2), images, COUNT)
    counted: Counter[tuple[int, str]] = Counter()

    async def work() -> None:
        async with connection(server.port) as client:
            for image in hostile:
                counted[await post(client, image)] += 1

    async with asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(work())

    assert counted.total() == COUNT
    assert {status for status, _ in counted} <= {200, 413, 415, 422}, counted
    assert {code for _, code in counted} >= {"predictions", "bad_image", "too_many_pixels"}
    assert counted[422, "bad_image"] > COUNT / 4  # or they would hardly be damaged
    assert await predicted(server, images) == before
    assert megabytes(server) - grown_from < MAX_GROWTH_MB


async def predicted(server: ServerProcess, images: list[bytes]) -> list[object]:
    async with httpx2.AsyncClient(base_url=server.url) as client:
        answers = [await client.post("/predict?model=digits", files={"file": image}) for image in images]
    assert {answer.status_code for answer in answers} == {200}
    return [answer.json() for answer in answers]
