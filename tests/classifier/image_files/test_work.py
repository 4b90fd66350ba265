"""The work of a file is added up until it is too much."""

import pytest

from classifier.image_files.work import BASELINE_NS, TooLarge, Work, check_size


def test_twice_a_baseline_jpeg_of_the_most_pixels_is_allowed_and_no_more() -> None:
    work = Work("PNG", 50_000_000)
    work.add(BASELINE_NS * 60_000_000)
    work.add(BASELINE_NS * 40_000_000)
    with pytest.raises(TooLarge, match=r"this PNG .* 2 times .* baseline JPEG of 50 million pixels; make it smaller"):
        work.add(1)


def test_where_few_pixels_are_allowed_what_is_the_same_for_all_files_is_still_allowed() -> None:
    Work("PNG", 100).add(BASELINE_NS * 2_000_000)


def test_more_pixels_than_an_image_may_have_are_named() -> None:
    check_size(100, 100, 10_000)
    with pytest.raises(TooLarge, match=r"the image has 101x100 pixels; at most 0\.01 million are accepted"):
        Work("PNG", 10_000).add_pixels(101, 100, 0)


def test_without_a_limit_there_is_none() -> None:
    Work("PNG", float("inf")).add_pixels(1 << 31, 1 << 31, 1e9)
