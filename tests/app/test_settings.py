"""Settings come from flags, the environment and `.env`. What is misspelt or impossible is reported in one line each."""

import re
from pathlib import Path
from typing import Any

import pytest

from app.settings import Settings, SettingsError


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder in which the server is started. It may hold a `.env`."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def problems(*flags: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        Settings.read(flags)
    return str(caught.value).splitlines()


class TestSources:
    def test_without_anything_the_server_listens_on_loopback_only(self) -> None:
        settings = Settings.read([])
        assert (settings.host, settings.port, settings.store, settings.device, settings.model) == (
            "127.0.0.1",
            8000,
            Path("models_store"),
            "auto",
            None,
        )
        assert settings.cors_origins == ()

    def test_flags_win_over_the_environment_and_that_over_env_file(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (folder / ".env").write_text("FLAMBEAU_PORT=1\nFLAMBEAU_HOST=one\nFLAMBEAU_MODEL=one\n")
        monkeypatch.setenv("FLAMBEAU_PORT", "2")
        monkeypatch.setenv("FLAMBEAU_HOST", "two")
        settings = Settings.read(["--port", "3"])
        assert (settings.port, settings.host, settings.model) == (3, "two", "one")

    @pytest.mark.parametrize("name", Settings.model_fields)
    def test_every_setting_is_a_flag_of_its_name(self, name: str) -> None:
        default = getattr(Settings(), name)
        value = {"front_ends": 2, "cache": Path("x")}.get(name, "x") if default in (None, ()) else default
        flag = f"--{name.replace('_', '-')}"
        if isinstance(default, bool):
            assert getattr(Settings.read([flag]), name) is True
            assert getattr(Settings.read([flag, flag.replace("--", "--no-")]), name) is False
        else:
            assert getattr(Settings.read([flag, f"{value}"]), name) == (("x",) if default == () else value)

    def test_names_count_in_any_case(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("flambeau_port", "9")
        assert Settings.read([]).port == 9

    def test_foreign_names_are_no_concern_of_ours(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / ".env").write_text(
            "POSTGRES_PASSWORD=x\nPORT=1\nNOT A LINE\n# FLAMBEAU_PROT=1\nexport FLAMBEAU_PORT=7\n"
        )
        monkeypatch.setenv("HOST", "elsewhere")
        settings = Settings.read([])
        assert (settings.port, settings.host) == (7, "127.0.0.1")

    def test_an_empty_value_means_not_set(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (folder / ".env").write_text("FLAMBEAU_PORT=\n")
        monkeypatch.setenv("FLAMBEAU_MODEL", "")
        monkeypatch.setenv("FLAMBEAU_STORE", "")
        settings = Settings.read(["--host="])
        assert (settings.port, settings.model, settings.store) == (8000, None, Path("models_store"))
        assert settings.host == "127.0.0.1"  # an empty address would be all of them

    def test_settings_do_not_change(self) -> None:
        with pytest.raises(ValueError, match="frozen"):
            Settings.read([]).port = 1  # type: ignore[misc]

    @pytest.mark.parametrize(
        ("value", "origins"),
        [
            ("*", ("*",)),
            ("https://a.example", ("https://a.example",)),
            (" https://a.example , http://localhost:3000,", ("https://a.example", "http://localhost:3000")),
        ],
    )
    def test_origins_are_separated_by_commas(
        self, monkeypatch: pytest.MonkeyPatch, value: str, origins: tuple[str, ...]
    ) -> None:
        assert Settings.read(["--cors-origins", value]).cors_origins == origins
        monkeypatch.setenv("FLAMBEAU_CORS_ORIGINS", value)
        assert Settings.read([]).cors_origins == origins

    @pytest.mark.parametrize(
        "name", [name for name, field in Settings.model_fields.items() if field.annotation is Path]
    )
    def test_a_tilde_means_home_in_every_path_wherever_it_is_set(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, name: str
    ) -> None:
        monkeypatch.setenv("HOME", "/home/ada")
        (folder / ".env").write_text(f"FLAMBEAU_{name.upper()}=~/one\n")
        assert getattr(Settings.read([]), name) == Path("/home/ada/one")
        monkeypatch.setenv(f"FLAMBEAU_{name.upper()}", "~/two")
        assert getattr(Settings.read([]), name) == Path("/home/ada/two")
        assert getattr(Settings.read([f"--{name}=~/three"]), name) == Path("/home/ada/three")
        (line,) = problems(f"--{name}=~nobody-of-this-name")
        assert line.startswith(f"FLAMBEAU_{name.upper()}: ")


# What the kubelet sets for a Service with two ports, one of them named; `X` stands for the Service's name.
OF_A_SERVICE = {
    "X_SERVICE_HOST": "10.96.11.7",
    "X_SERVICE_PORT": "8000",
    "X_SERVICE_PORT_HTTP": "8000",
    "X_SERVICE_PORT_HTTP_2": "8001",
    "X_PORT": "tcp://10.96.11.7:8000",
    "X_PORT_8000_TCP": "tcp://10.96.11.7:8000",
    "X_PORT_8000_TCP_PROTO": "tcp",
    "X_PORT_8000_TCP_PORT": "8000",
    "X_PORT_8000_TCP_ADDR": "10.96.11.7",
    "X_PORT_53_UDP": "udp://10.96.11.7:53",
    "X_PORT_53_UDP_PROTO": "udp",
    "X_PORT_53_UDP_PORT": "53",
    "X_PORT_53_UDP_ADDR": "fd00::7",
    "X_PORT_9_SCTP_ADDR": "10.96.11.7",
}


class TestNamesOfServices:
    @pytest.mark.parametrize(
        "service", ["FLAMBEAU", "FLAMBEAU_API", "FLAMBEAU_GPU_2", "FLAMBEAU_PORT", "FLAMBEAU_STORE"]
    )
    @pytest.mark.parametrize("name", OF_A_SERVICE)
    def test_what_kubernetes_sets_for_a_service_of_our_name_sets_nothing(
        self, monkeypatch: pytest.MonkeyPatch, service: str, name: str
    ) -> None:
        monkeypatch.setenv(name.replace("X", service, 1), OF_A_SERVICE[name])
        assert Settings.read([]) == Settings()
        assert Settings.read([]).port == 8000

    @pytest.mark.parametrize("url", ["tcp://10.0.0.1:8000", "udp://10.0.0.1:53", "sctp://[fd00::1]:9"])
    def test_a_port_that_is_the_url_of_a_service_is_not_given(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch, url: str
    ) -> None:
        monkeypatch.setenv("FLAMBEAU_PORT", url)
        assert Settings.read(["--port", "9000"]).port == 9000
        (folder / ".env").write_text("FLAMBEAU_PORT=7\n")
        assert Settings.read([]).port == 7

    @pytest.mark.parametrize("value", ["http://10.0.0.1:8000", "tcp", "10.0.0.1:8000", " tcp://10.0.0.1:8000"])
    def test_any_other_port_that_is_no_number_is_refused(self, monkeypatch: pytest.MonkeyPatch, value: str) -> None:
        monkeypatch.setenv("FLAMBEAU_PORT", value)
        (line,) = problems()
        assert line.startswith("FLAMBEAU_PORT: ")

    def test_a_port_that_a_person_typed_is_no_service(self, folder: Path) -> None:
        (folder / ".env").write_text("FLAMBEAU_PORT=tcp://10.0.0.1:8000\n")
        assert problems()[0].startswith("FLAMBEAU_PORT: ")
        assert problems("--port", "tcp://10.0.0.1:8000")[0].startswith("FLAMBEAU_PORT: ")

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("FLAMBEAU_API_PORT", "8000"),
            ("FLAMBEAU_SERVICE", "10.0.0.1"),
            ("FLAMBEAU_SERVICEHOST", "10.0.0.1"),
            ("FLAMBEAU_SERVICE_HOSTS", "10.0.0.1"),
            ("FLAMBEAU_SERVICE_PORT_", "8000"),
            ("FLAMBEAU_PORT_8000", "tcp://10.0.0.1:8000"),
            ("FLAMBEAU_PORT_TCP", "tcp://10.0.0.1:8000"),
            ("FLAMBEAU_PORT_8000_HTTP_ADDR", "10.0.0.1"),
            ("FLAMBEAU_PORT_8000_TCP_HOST", "10.0.0.1"),
            ("FLAMBEAU_PORTS", "tcp://10.0.0.1:8000"),
        ],
    )
    def test_a_name_of_nearly_such_a_form_is_refused(
        self, monkeypatch: pytest.MonkeyPatch, name: str, value: str
    ) -> None:
        monkeypatch.setenv(name, value)
        (line,) = problems()
        assert f"{name} in the environment is no setting" in line


class TestUnknownNames:
    @pytest.mark.parametrize(
        ("name", "nearest"),
        [
            ("FLAMBEAU_PROT", "FLAMBEAU_PORT"),
            ("flambeau_hosts", "FLAMBEAU_HOST"),
            ("FLAMBEAU_MAXBATCH", "FLAMBEAU_MAX_BATCH"),
            ("FLAMBEAU_MODELS_STORE", "FLAMBEAU_STORE"),
            ("FLAMBEAU_DEADLINE", "FLAMBEAU_DEADLINE_SECONDS"),
        ],
    )
    def test_one_in_the_environment_is_refused_with_the_nearest(
        self, monkeypatch: pytest.MonkeyPatch, name: str, nearest: str
    ) -> None:
        monkeypatch.setenv(name, "1")
        (line,) = problems()
        assert name in line
        assert nearest in line
        assert "environment" in line

    def test_one_in_env_file_is_refused_too_and_the_file_is_named(self, folder: Path) -> None:
        (folder / ".env").write_text("FLAMBEAU_PROT=1\n")
        (line,) = problems()
        assert "FLAMBEAU_PROT in .env" in line
        assert "FLAMBEAU_PORT" in line

    @pytest.mark.parametrize("flag", ["--prot", "--por", "--max_batch", "positional"])
    def test_an_unknown_flag_ends_with_2(self, flag: str, capsys: pytest.CaptureFixture[str]) -> None:
        with pytest.raises(SystemExit) as caught:
            Settings.read([flag, "1"])
        assert caught.value.code == 2
        assert flag in capsys.readouterr().err


class TestValues:
    @pytest.mark.parametrize(
        ("flag", "value"),
        [
            ("--port", "http"),
            ("--port", "65536"),
            ("--port", "-1"),
            ("--port", "80.5"),
            ("--max-batch", "0"),
            ("--max-megapixels", "inf"),
            ("--max-megapixels", "nan"),
            ("--max-megapixels", "1e9"),
            ("--deadline-seconds", "inf"),
            ("--deadline-seconds", "1e300"),
            ("--deadline-seconds", "0"),
            ("--poll-seconds", "0.000001"),
            ("--log-level", "loud"),
            ("--log-format", "xml"),
            ("--store", "no\udcff"),  # bytes that are not UTF-8, as Python reads them
        ],
    )
    def test_one_that_cannot_be_gives_one_line_that_names_it(self, flag: str, value: str) -> None:
        (line,) = problems(f"{flag}={value}")
        assert line.startswith("FLAMBEAU_" + flag[2:].replace("-", "_").upper() + ": ")

    def test_several_give_one_line_each_wherever_they_stand(
        self, folder: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (folder / ".env").write_text("FLAMBEAU_MAX_BATCH=many\n")
        monkeypatch.setenv("FLAMBEAU_MAX_QUEUE", "none")
        lines = problems("--port", "http")
        assert sorted(line.partition(":")[0] for line in lines) == [
            "FLAMBEAU_MAX_BATCH",
            "FLAMBEAU_MAX_QUEUE",
            "FLAMBEAU_PORT",
        ]

    def test_the_largest_values_that_are_allowed_work(self) -> None:
        for name, field in Settings.model_fields.items():
            for bound in field.metadata:
                limit: Any = getattr(bound, "le", None)
                if limit is not None:
                    assert getattr(Settings.read([f"--{name.replace('_', '-')}={limit}"]), name) == limit


def test_help_names_every_setting_with_its_default_and_what_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        Settings.read(["--help"])
    assert caught.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    for name, field in Settings.model_fields.items():
        flag, told = name.replace("_", "-"), re.escape(field.description or "nothing")
        assert re.search(rf"--(?:{flag}|no-{flag}|{flag} \S+) {told} \(default: ", text), name


class TestShares:
    def test_several_processes_together_hold_as_many_bytes_and_pixels_as_the_server_may(self) -> None:
        share = Settings(max_pending_mb=512, max_pending_megapixels=200).share_of(4)
        assert (share.max_pending_mb, share.max_pending_megapixels) == (128, 50)

    def test_one_among_many_takes_all_the_connections_that_happen_to_come_to_it(self) -> None:
        settings = Settings(max_queue=100, max_requests=10, max_connections=50)
        share = settings.share_of(256)
        assert (share.max_queue, share.max_requests, share.max_connections) == (100, 10, 50)
