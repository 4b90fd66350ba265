"""What a child process is told arrives as it was said."""

import io
from pathlib import Path

import pytest
from pydantic import SecretStr

from app.processes.child import ChildConfig
from app.settings import Settings


class SettingsWithSecrets(Settings):
    """As settings may be one day."""

    api_key: SecretStr | None = None
    api_keys: tuple[SecretStr, ...] = ()


class ConfigWithSecrets(ChildConfig):
    settings: SettingsWithSecrets


SETTINGS = SettingsWithSecrets(
    store=Path("models β"),
    cors_origins=("https://a.example", "https://b.example"),
    api_key=SecretStr("open\nsesame"),
    api_keys=(SecretStr("one"), SecretStr("two")),
)
CONFIG = ConfigWithSecrets(
    settings=SETTINGS,
    process="engine",
    listener=3,
    rendezvous=4,
    counters={"supervisor": 5, "engine": 6},
    front_ends=2,
    address="http://[::1]:8000",
)


def test_a_child_is_told_all_settings_and_secrets_too() -> None:
    told = ConfigWithSecrets.model_validate_json(CONFIG.line())
    assert told == CONFIG
    assert told.settings.api_key is not None
    assert told.settings.api_key.get_secret_value() == "open\nsesame"


def test_it_is_told_on_one_line() -> None:
    assert len(io.BytesIO(CONFIG.line()).readlines()) == 1


def test_what_a_person_sees_of_it_hides_secrets() -> None:
    for shown in (repr(CONFIG), str(CONFIG), CONFIG.model_dump_json()):
        assert "sesame" not in shown


@pytest.mark.parametrize("name", ["HOST", "FRONT_ENDS", "MODEL"])
def test_what_a_child_is_told_wins_over_its_environment(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(f"FLAMBEAU_{name}", "7")
    assert ConfigWithSecrets.model_validate_json(CONFIG.line()) == CONFIG
