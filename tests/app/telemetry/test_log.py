"""What the log looks like: one line for each event, whatever its values hold."""

import json
import logging
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from app.api.multipart import files_in
from app.telemetry.log import configure, event

NASTY = [
    "two\nlines",
    "carriage\rreturn",
    'quotes " and \\ backslashes',
    "next\x85line, separators\u2028\u2029",
    "terminal \x1b[31mcodes\x9b and \x07 bells \x7f",
    "\u202eright to left",
    "lone \ud800 surrogate",
    "nul \x00",
    "",
    "key=value",
]


@pytest.fixture
def written(capsys: pytest.CaptureFixture[str]) -> Iterator[Callable[[], str]]:
    """Returns a function that says what has been logged since its last call. Afterwards logging is as before."""
    loggers = [logging.getLogger(), *map(logging.getLogger, logging.root.manager.loggerDict)]
    levels = [logger.level for logger in loggers]
    yield lambda: capsys.readouterr().err
    logging.root.handlers.clear()
    for logger, level in zip(loggers, levels, strict=True):
        logger.setLevel(level)


logger = logging.getLogger("app.test")


class TestLines:
    def test_an_event_is_its_words_and_its_values(self, written: Callable[[], str]) -> None:
        configure(level="info", json_lines=False)
        event(logger, "serving", model="strokes", version=3, was=None)
        time, level, *rest = written().split()
        datetime.strptime(time, "%H:%M:%S")
        assert level == "info"
        assert rest == ["serving", "model=strokes", "version=3"]

    @pytest.mark.parametrize("value", NASTY)
    def test_a_value_stays_on_one_printable_line_whatever_it_holds(
        self, written: Callable[[], str], value: str
    ) -> None:
        configure(level="info", json_lines=False)
        event(logger, "refused", reason=value, version=4)
        (line,) = written().splitlines()
        assert line.isprintable()
        assert line.endswith(" version=4")

    @pytest.mark.parametrize("value", NASTY)
    def test_a_message_stays_on_one_printable_line_too(self, written: Callable[[], str], value: str) -> None:
        configure(level="info", json_lines=False)
        event(logger, f"not ready: {value}", version=4)
        logger.warning("by another library: %s", value)
        lines = written().splitlines()
        assert len(lines) == 2
        assert "".join(lines).isprintable()

    @pytest.mark.parametrize("value", ["two words", 'a "quoted" one', "sieben β", "a=b"])
    def test_a_value_with_spaces_can_be_told_from_the_next(self, written: Callable[[], str], value: str) -> None:
        configure(level="info", json_lines=False)
        event(logger, "refused", reason=value)
        assert json.loads(written().partition("reason=")[2]) == value

    def test_an_error_brings_its_traceback(self, written: Callable[[], str]) -> None:
        configure(level="info", json_lines=False)
        try:
            raise ValueError("broken")
        except ValueError:
            logger.exception("the engine has failed")
        assert written().splitlines()[-1] == "ValueError: broken"


class TestJson:
    @pytest.mark.parametrize("value", [*NASTY, 3, 0.5, None, True, ["a"], {"b": 1}])
    def test_each_event_is_one_document_with_its_values(self, written: Callable[[], str], value: object) -> None:
        configure(level="info", json_lines=True)
        event(logger, "refused", reason=value)
        (line,) = written().splitlines()
        document = json.loads(line)
        assert document["reason"] == value
        assert (document["event"], document["level"], document["logger"]) == ("refused", "info", "app.test")
        assert datetime.fromisoformat(document["time"]).tzinfo is not None

    def test_what_json_does_not_know_is_written_as_text(self, written: Callable[[], str]) -> None:
        configure(level="info", json_lines=True)
        event(logger, "refused", path=Path("models_store"), error=OSError("full"))
        assert json.loads(written()).items() >= {"path": "models_store", "error": "full"}.items()

    def test_numbers_that_json_does_not_have_are_written_as_text(self, written: Callable[[], str]) -> None:
        configure(level="info", json_lines=True)
        event(logger, "measured", loss=float("nan"), bound=float("inf"))

        def refused(constant: str) -> None:
            raise AssertionError(f"{constant} is no JSON")

        document = json.loads(written(), parse_constant=refused)
        assert (document["loss"], document["bound"]) == ("nan", "inf")

    def test_a_value_does_not_take_the_place_of_what_the_line_is_about(self, written: Callable[[], str]) -> None:
        configure(level="info", json_lines=True)
        event(logger, "refused", time="then", event="another")
        document = json.loads(written())
        assert document["event"] == "refused"
        assert document["time"] != "then"

    def test_a_traceback_is_part_of_the_document(self, written: Callable[[], str]) -> None:
        configure(level="info", json_lines=True)
        try:
            raise ValueError("broken")
        except ValueError:
            logger.exception("the engine has failed")
        (line,) = written().splitlines()
        assert json.loads(line)["traceback"].endswith("ValueError: broken")


class TestLevels:
    def test_what_is_below_the_level_is_not_written(self, written: Callable[[], str]) -> None:
        configure(level="warning", json_lines=False)
        event(logger, "serving")
        event(logger, "refused", level=logging.WARNING)
        assert len(written().splitlines()) == 1

    def test_what_clients_do_wrong_is_no_warning(self, written: Callable[[], str]) -> None:
        configure(level="info", json_lines=False)
        with pytest.raises(Exception, match="bad_multipart"):
            files_in(b"no form", b"multipart/form-data; boundary=b", max_files=1)
        logging.getLogger("uvicorn.error").warning("Invalid HTTP request received.")
        assert written() == ""


@pytest.mark.parametrize("name", ["botocore.auth", "aiobotocore.credentials", "s3fs", "google.auth", "azure.core"])
def test_what_opens_stores_behind_urls_logs_no_request_and_so_nothing_that_signs_it(
    written: Callable[[], str], name: str
) -> None:
    configure(level="debug", json_lines=False)
    foreign = logging.getLogger(name)
    foreign.debug("Authorization: secret")
    foreign.info("Found credentials")
    assert written() == ""
    foreign.warning("something is wrong")
    assert "something is wrong" in written()
