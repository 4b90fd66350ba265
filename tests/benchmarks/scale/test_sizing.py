"""The arithmetic of docs/scale.md: worked out by hand once, and the page is what the script prints."""

import pytest

from benchmarks.scale import sizing
from benchmarks.scale.sizing import WORKS, core_hours, publish_seconds, replicas, series
from tests.support.server import PROJECT

PAGE = (PROJECT / "docs" / "scale.md").read_text()


def test_replicas_do_the_load_at_seven_tenths_of_what_they_can() -> None:
    assert replicas(700, 100) == 10
    assert replicas(701, 100) == 11
    assert replicas(1, 1e6) == 1


def test_core_hours_are_of_both_cores() -> None:
    assert core_hours(1e6 / 3600) == pytest.approx(2)


def test_a_version_takes_as_long_as_the_store_sends_it_to_all() -> None:
    assert publish_seconds(1000) == pytest.approx(1000 * 45 / 1250)


def test_rates_are_those_that_are_kept() -> None:
    digits, photos = (work.rate() for work in WORKS)
    assert f"{digits:,.0f} images/s" in " ".join(PAGE.split())
    assert f"{photos:.1f} photos/s" in PAGE
    assert f"{series()} series" in PAGE


def test_the_page_has_the_tables_that_are_printed(capsys: pytest.CaptureFixture[str]) -> None:
    assert sizing.main() == 0
    for line in capsys.readouterr().out.splitlines():
        assert line in PAGE
