"""GIF: the first frame is counted, and what stands before it; not what comes behind."""

import numpy as np
import pytest
from PIL import Image

from benchmarks.harness.slow_images import gif
from classifier.image_files.gif import necessary
from classifier.image_files.work import TooLarge, Work
from tests.support.images import encoded, noise
from tests.support.opening import seen

MOST = 50_000_000
CONTROL = b"\x21\xf9\x04\0\0\0\0\0"


def test_many_blocks_before_the_first_frame_are_too_much_work() -> None:
    for before in (b"\x21\xfe" + b"\x01a" * 100_000 + b"\0", CONTROL * 100_000):
        with pytest.raises(TooLarge, match="this GIF"):
            necessary(gif(8, 8, before=before), Work("GIF", 5_000_000))


def test_a_long_comment_and_a_frame_that_is_larger_than_the_picture_are_read() -> None:
    comment = b"\x21\xfe" + (b"\xff" + b"a" * 255) * 4000 + b"\0"
    assert seen(gif(8, 8, before=comment + CONTROL)).shape == (8, 8, 3)
    data = bytearray(gif(8, 8))
    data[6:10] = bytes((4, 0, 4, 0))
    assert seen(bytes(data)).shape == (8, 8, 3)


def test_a_frame_far_beyond_the_picture_has_too_many_pixels() -> None:
    data = bytearray(gif(8, 8))
    at = data.index(b",")
    data[at + 1 : at + 5] = b"\xff\xff\xff\xff"
    with pytest.raises(TooLarge, match="65543x65543"):
        necessary(bytes(data), Work("GIF", MOST))


def test_frames_behind_the_first_do_not_count() -> None:
    first = Image.fromarray(noise(100, 100)[..., 0])
    others = [Image.fromarray(noise(100, 100, seed=seed)[..., 0]) for seed in range(60)]
    data = encoded(first, "GIF", save_all=True, append_images=others)
    assert np.array_equal(seen(data, "L", max_pixels=10_000)[..., 0], np.asarray(first))


@pytest.mark.parametrize("length", [6, 12, 13, 20])
def test_a_file_that_is_cut_short_is_left_to_pillow(length: int) -> None:
    data = gif(8, 8)[:length]
    assert necessary(data, Work("GIF", MOST)) == data
