"""Events with values, as lines for people or as JSON for machines."""

import json
import logging
import math
import sys
from datetime import UTC, datetime
from typing import Any


def event(logger: logging.Logger, message: str, *, level: int = logging.INFO, **values: Any) -> None:
    """Logs what happened and the values that belong to it, e.g. `serving model=mnist version=3`."""
    logger.log(level, message, extra={"values": values})


def configure(*, level: str, json_lines: bool) -> None:
    """Sends all logging of this process to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonFormatter() if json_lines else _LineFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    logging.getLogger("uvicorn.access").setLevel(logging.WARNING)
    logging.getLogger("watchfiles").setLevel(logging.WARNING)
    # They warn of every request that is not sound: what a client sends would fill the log.
    logging.getLogger("uvicorn.error").setLevel(logging.ERROR)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)


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
    """A value on one line, whatever a file name or a client put into it."""
    text = str(value)
    return json.dumps(text, ensure_ascii=not text.isprintable()) if set(' ="') & set(text) else _printable(text)


def _printable(text: str) -> str:
    """Line ends, terminal codes and the like are escaped."""
    return text if text.isprintable() else json.dumps(text)[1:-1]


def _is_json(value: object) -> bool:
    return not isinstance(value, float) or math.isfinite(value)


def _traceback(formatter: logging.Formatter, record: logging.LogRecord) -> str:
    return "\n" + formatter.formatException(record.exc_info) if record.exc_info else ""
