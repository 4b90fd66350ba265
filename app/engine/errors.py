"""Why an engine does not answer. The messages are for clients."""

from collections.abc import Callable, Mapping
from typing import Literal


class EngineError(Exception):
    """Says why an engine did not answer. The message is for the client.

    EngineError
    ├── NotFound          the model or the version is not there
    ├── NotReady          there is nothing to serve yet
    │   ├── Starting      it is being started, or its first look at the store is not over
    │   └── Draining      the server is shutting down
    ├── Ambiguous         several models are served, and none was named
    ├── Stale             the version was replaced since it was resolved: resolve, and decode, again
    ├── Overloaded        as much is waiting as may wait
    └── DeadlineExceeded  the deadline has passed
    """

    code: str = "internal_error"


class NotFound(EngineError):
    """There is no such model or version; the code says which."""

    def __init__(self, code: Literal["model_not_found", "version_not_found", "version_not_loaded"], detail: str):
        super().__init__(detail)
        self.code = code


class NotReady(EngineError):
    """There is nothing to serve yet."""

    code = "not_ready"


class Starting(NotReady):
    """The first look at the store is not over, or the engine process is being started: in a moment it is known."""


class Draining(NotReady):
    """The server is shutting down."""

    code = "draining"


class Ambiguous(EngineError):
    """Several models are served, and none was named."""

    code = "ambiguous_model"


class Stale(EngineError):
    """The version was replaced since it was resolved. Clients never see this."""

    code = "stale"


class Overloaded(EngineError):
    """As much is waiting as may wait."""

    code = "overloaded"


class DeadlineExceeded(EngineError):
    """The deadline has passed."""

    code = "deadline_exceeded"


# By their names, as they go from process to process. NotFound is not among them: it is made with a code.
ENGINE_ERRORS: Mapping[str, Callable[[str], EngineError]] = {
    error.__name__: error
    for error in (EngineError, NotReady, Starting, Draining, Ambiguous, Stale, Overloaded, DeadlineExceeded)
}
