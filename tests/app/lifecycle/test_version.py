"""The states of a version, and which may follow which."""

from collections.abc import Callable
from pathlib import Path

import pytest

from app.lifecycle.loaded import LoadedVersion
from app.lifecycle.storage import Fingerprint, VersionFile
from app.lifecycle.version import Version, VersionState

FILE = VersionFile(3, Path("3.safetensors"), Fingerprint(1, 2, 3, 4), None)
LOADED = object.__new__(LoadedVersion)  # nothing is asked of it

STEPS: dict[str, Callable[[Version], None]] = {
    "available": Version.becomes_available,
    "loading": Version.begins_to_load,
    "ready": lambda version: version.becomes_ready(LOADED),
    "retiring": Version.begins_to_retire,
    "rejected": lambda version: version.is_rejected("no", transient=False),
    "rejected_for_now": lambda version: version.is_rejected("not now", transient=True),
}
WAYS = {
    "": {"available", "rejected", "rejected_for_now"},
    "available": {"loading"},
    "available loading": {"ready", "rejected", "rejected_for_now", "available"},
    "available loading ready": {"retiring"},
    "available loading ready retiring": set[str](),
    "rejected": set[str](),
    "rejected_for_now": {"loading"},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("step", STEPS)
def test_a_state_is_followed_by_those_alone_that_may_follow_it(way: str, step: str) -> None:
    version = Version(FILE)
    for each in way.split():
        STEPS[each](version)
    before = version.state
    if step in WAYS[way]:
        STEPS[step](version)
        assert version.state is VersionState[step.upper()]
    else:
        with pytest.raises(AssertionError, match="version 3 cannot become"):
            STEPS[step](version)
        assert version.state is before


def test_a_reason_stays_while_it_is_tried_again_and_goes_when_it_is_ready() -> None:
    version = Version(FILE)
    version.is_rejected("too many open files", transient=True)
    version.begins_to_load()
    assert version.reason == "too many open files"
    version.becomes_ready(LOADED)
    assert version.reason is None
    assert version.loaded_at is not None
