"""What should be loaded, as a pure function of what is found and what is served."""

from pathlib import Path

import pytest

from app.lifecycle.storage import Fingerprint, VersionFile
from app.lifecycle.version import Version
from app.lifecycle.version_policy import to_load
from classifier.header import Header
from tests.support.checkpoints import checkpoint

HEADER = Header(checkpoint().manifest, "", "0" * 64, 8, "0" * 64)


def version(number: int, state: str = "available", *, readable: bool = True) -> Version:
    """One that is `available`, `rejected`, or rejected `for now`; not `readable`: its headers are not known."""
    path, fingerprint = Path(f"{number}.safetensors"), Fingerprint(number, 1, 1, 1)
    version = Version(VersionFile(number, path, fingerprint, HEADER if readable else None))
    if state == "available":
        version.becomes_available()
    else:
        version.is_rejected("no", transient=state == "for now")
    return version


def numbers(*found: Version, serving: Version | None = None) -> list[int]:
    return [each.number for each in to_load({each.number: each for each in found}, serving)]


def test_where_nothing_is_served_all_that_may_be_loaded_is_tried_the_highest_first() -> None:
    assert numbers(version(2), version(10), version(1, "rejected"), version(3)) == [10, 3, 2]


def test_only_higher_versions_than_the_served_one_are_tried() -> None:
    serving = version(2)
    serving.begins_to_load()  # and is not tried again
    assert numbers(version(1), serving, version(3), serving=serving) == [3]


def test_the_served_number_is_tried_where_its_file_is_another_one() -> None:
    assert numbers(version(1), version(2), serving=version(2)) == [2]


def test_where_the_served_file_has_gone_every_version_is_tried() -> None:
    assert numbers(version(1), version(3), serving=version(2)) == [3, 1]


@pytest.mark.parametrize(("readable", "tried"), [(True, [1]), (False, [])])
def test_what_was_rejected_for_now_is_tried_again_if_its_headers_are_known(readable: bool, tried: list[int]) -> None:
    assert numbers(version(1, "for now", readable=readable)) == tried


def test_of_nothing_nothing_is_tried() -> None:
    assert numbers() == []
