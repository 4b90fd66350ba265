"""What should be loaded: the highest version that passes its checks is served."""

from collections.abc import Mapping

from app.lifecycle.version import Version


def to_load(versions: Mapping[int, Version], serving: Version | None) -> list[Version]:
    """Lists the versions that would take over if they passed, the highest first. A pure function.

    Versions above the served one are tried. So is the served number itself, if its file is another one by now. Where
    the served file has gone, every version is tried.

    Args:
        versions: those that have a file, by number.
        serving: the version that answers; None where none does.
    """
    lowest = serving.number if serving is not None and serving.number in versions else 0
    return [versions[n] for n in sorted(versions, reverse=True) if n >= lowest and versions[n].may_be_loaded]
