"""The log: events with values, as lines for people or as JSON for machines. Imports no torch."""

import json
import logging
import math
import sys
from datetime import UTC, datetime
from typing import Any


def event(logger: logging.Logger, message: str, *, level: int = logging.INFO, **values: Any) -> None:
    """Logs what happened and the values that belong to it, such as `serving model=mnist version=3`.

    A value that is None is left out of a line.
    """
    logger.log(level, message, extra={"values": values})


def configure(*, level: str, json_lines: bool) -> None:
    """Sends all logging of this process to standard error.

    Args:
        level: the least level that is written: debug, info, warning or error.
        json_lines: whether each event is a JSON document, and not a line for people.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if json_lines else _LineFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    # They warn of every malformed request, so a client could fill the log.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)
    # What opens a store behind a URL: it would log each request, at debug with what signs it.
    for name in ("fsspec", "s3fs", "aiobotocore", "botocore", "gcsfs", "google", "adlfs", "azure", "huggingface_hub"):
        logging.getLogger(name).setLevel(logging.WARNING)


class _LineFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        values = getattr(record, "values", {})
        told = "".join(f" {name}={_quoted(value)}" for name, value in values.items() if value is not None)
        time = datetime.fromtimestamp(record.created).astimezone().strftime("%H:%M:%S")
        line = f"{time} {record.levelname.lower():7} {_printable(record.getMessage())}{told}"
        return line + _traceback(self, record)


class _JsonFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "event": record.getMessage(),
        }
        for name, value in getattr(record, "values", {}).items():
            document.setdefault(name, value if _is_json(value) else str(value))
        if traceback := _traceback(self, record):
            document["traceback"] = traceback
        return json.dumps(document, default=str)


def _quoted(value: object) -> str:
    """Writes a value on one line, whatever a file name or a client put into it."""
    text = str(value)
    return json.dumps(text, ensure_ascii=not text.isprintable()) if set(' ="') & set(text) else _printable(text)


def _printable(text: str) -> str:
    """Escapes line ends, terminal codes and the like."""
    return text if text.isprintable() else json.dumps(text)[1:-1]


def _is_json(value: object) -> bool:
    """JSON has no infinity, and nothing that is not a number."""
    return not isinstance(value, float) or math.isfinite(value)


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return "\n" + formatter.formatException(record.exc_info) if record.exc_info else ""
