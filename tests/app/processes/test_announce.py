"""What the log says once the server answers."""

import socket

import pytest

from app.engine.model_info import Status
from app.processes.announce import address_of, announce
from classifier.cores import find_cores

ADDRESS = "http://127.0.0.1:8000"


@pytest.mark.parametrize(("host", "address"), [("127.0.0.1", "http://127.0.0.1"), ("::1", "http://[::1]")])
def test_an_address_is_a_url_with_the_port_that_the_system_gave(host: str, address: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        assert address_of(host, listener) == f"{address}:{listener.getsockname()[1]}"


def test_a_server_that_is_ready_is_one_event(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    announce(Status(True, "ready", "cpu", {"digits": 2, "letters": 1}, 0), ADDRESS)
    (record,) = caplog.records
    assert record.getMessage() == "ready"
    assert vars(record)["values"] == {
        "address": ADDRESS,
        "models": "digits 2, letters 1",
        "device": "cpu",
        "cores": str(find_cores()),
    }


def test_a_server_that_is_not_says_what_is_missing_too(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    announce(Status(False, "the store is empty", "cpu", {}, 0), ADDRESS)
    assert [record.getMessage() for record in caplog.records] == ["not ready", "the store is empty"]
    assert vars(caplog.records[0])["values"]["models"] == "none"
