"""Why an engine does not answer. The messages are for clients."""

from collections.abc import Callable, Mapping
from typing import Literal


class EngineError(Exception):
    """Why an engine did not answer. The message is for the client.

    EngineError
    ├── NotFound      the model or the version is not there
    ├── NotReady      nothing to serve yet, or no longer
    ├── Ambiguous     several models, and none was named
    ├── Stale         the version swapped in meanwhile wants other pixels: decode again
    ├── Overloaded    as much is waiting as may wait
    └── Expired       the deadline has passed
    """

    code: str = "internal_error"


class NotFound(EngineError):
    def __init__(self, code: Literal["model_not_found", "version_not_found", "version_not_loaded"], detail: str):
        super().__init__(detail)
        self.code = code


class NotReady(EngineError):
    code = "not_ready"


class Draining(NotReady):
    code = "draining"


class Ambiguous(EngineError):
    code = "ambiguous_model"


class Stale(EngineError):
    code = "stale"


class Overloaded(EngineError):
    code = "overloaded"


class Expired(EngineError):
    code = "deadline_exceeded"


# By their names, as they go from process to process. NotFound is not among them: it is made with a code.
ENGINE_ERRORS: Mapping[str, Callable[[str], EngineError]] = {
    error.__name__: error for error in (EngineError, NotReady, Draining, Ambiguous, Stale, Overloaded, Expired)
}
