"""Paths as people type them: `~` at the beginning is a home folder."""

from pathlib import Path

import pytest

from classifier.paths import typed_path


@pytest.fixture(autouse=True)
def _at_home(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ada")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("~/models", "/home/ada/models"),
        ("~", "/home/ada"),
        ("~/", "/home/ada"),
        ("~root/models", f"{Path('~root').expanduser()}/models"),
        ("models/~/x", "models/~/x"),
        ("models~", "models~"),
        ("/srv/~", "/srv/~"),
        ("", "."),
    ],
)
def test_a_tilde_means_home_at_the_beginning_and_nowhere_else(text: str, path: str) -> None:
    assert typed_path(text) == Path(path)


def test_a_name_that_really_begins_with_one_is_said_with_a_dot_and_stays_what_it_is_when_it_is_read_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    path = typed_path("./~/models")
    assert path == tmp_path / "~" / "models"
    assert typed_path(str(path)) == path


@pytest.mark.parametrize("text", ["~nobody-of-this-name", "~nobody-of-this-name/models", "~~"])
def test_a_home_that_nobody_knows_is_refused_with_what_to_type_instead(text: str) -> None:
    with pytest.raises(ValueError, match=f"not known here; ./{text} means"):
        typed_path(text)
