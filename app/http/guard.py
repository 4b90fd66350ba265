"""What every request passes, below ASGI and by ASGI: it gets an id, and is counted while it is in flight.

`Exchange` calls this on the one way, `RequestIdAndMetrics` on the other, and no request comes to a route but by one of
them. Whatever is to guard all requests belongs here, so that no way goes round it.
"""

import random
import re
from collections.abc import Mapping

from app.telemetry.metrics import Metrics

_REQUEST_ID = re.compile(rb"[A-Za-z0-9._-]{1,64}")


def enter_request(headers: Mapping[bytes, bytes], metrics: Metrics) -> bytes:
    """Counts a request in, and returns its id.

    The id is the client's own, if that is fit to be repeated in headers and logs. Otherwise it is a new one.

    Args:
        headers: by their names in lower case.
    """
    metrics.began()
    given = headers.get(b"x-request-id")
    return given if given is not None and _REQUEST_ID.fullmatch(given) else new_request_id()


def leave_request(metrics: Metrics) -> None:
    """Counts a request out, whether it was answered or not."""
    metrics.ended()


def new_request_id() -> bytes:
    """Returns 64 random bits in hexadecimal."""
    return b"%016x" % random.getrandbits(64)
