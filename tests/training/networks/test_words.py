"""Names and values of foreign files in messages: short, printable, on one line."""

from collections import OrderedDict

import torch

from training.networks.words import in_words, listed


def test_a_value_is_named_by_its_type_and_its_beginning() -> None:
    assert in_words(torch.ones(3)) == "a tensor of [3], torch.strided on cpu"
    assert in_words({"a": 1}) == "dict {'a': 1}"
    assert in_words("x" * 10_000_000).startswith("str 'xxxx")
    assert len(in_words("x" * 10_000_000)) <= 64
    assert "\n" not in in_words(["a\nb\x1b[31m"])
    assert "\x1b" not in in_words(["a\nb\x1b[31m"])


def test_a_value_that_is_not_plain_is_not_asked_for_its_text() -> None:
    class Hostile:
        def __repr__(self) -> str:
            raise AssertionError("it was asked")

    assert in_words([Hostile()]) == "list [<Hostile>]"
    assert in_words(OrderedDict(a=1)) == "OrderedDict <OrderedDict>"


def test_the_first_names_stand_for_all() -> None:
    assert listed(["a", "b"]) == "'a', 'b'"
    assert listed("abcdefg") == "'a', 'b', 'c', 'd', 'e', …"
    assert listed("abc", most=2) == "'a', 'b', …"
    assert len(listed(["x" * 1000])) < 100
