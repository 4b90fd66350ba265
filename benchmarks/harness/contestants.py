"""Who takes part: how each server is started, in its best configuration for two cores, and how it takes an image."""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path

ROOT = Path(__file__).parents[2]

_PLAIN = "-m uvicorn benchmarks.servers.plain_endpoint:app --port {port} --no-access-log --log-level warning"
_FLAMBEAU = "-m app --port {port} --store {store} --log-level warning"


@dataclass(frozen=True, slots=True)
class Contestant:
    """A server that may take part.

    Args:
        command: what Python is given, with {port} and {store} to be filled in; CHECKPOINT is in the environment.
        takes_form: whether an image comes in a multipart form, or else as the body itself.
        package: what has to be installed for it.
        tree: the folder that it is run in, whose code it runs.
    """

    name: str
    command: str
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)
    takes_form: bool = True
    package: str | None = None
    tree: Path = ROOT

    @property
    def installed(self) -> bool:
        return self.package is None or find_spec(self.package) is not None

    def arguments(self, *, port: int, store: str) -> list[str]:
        return [part.format(port=port, store=store) for part in self.command.split()]

    def environment_with(self, *, checkpoint: str, scratch: str) -> dict[str, str]:
        return {**os.environ, "CHECKPOINT": checkpoint, "TMPDIR": scratch, **self.environment}


PLAIN = Contestant("plain endpoint", _PLAIN)

FLAMBEAU = (
    Contestant("flambeau, one process", f"{_FLAMBEAU} --front-ends 0"),
    Contestant("flambeau, front end", f"{_FLAMBEAU} --front-ends 1"),
)

ALL = (
    PLAIN,
    # Two threads of torch in each of two workers would wait for one another: 50 requests/s in all, not 2,000.
    Contestant("plain, two workers", f"{_PLAIN} --workers 2", environment={"OMP_NUM_THREADS": "1"}),
    *FLAMBEAU,
    Contestant("LitServe", "-m benchmarks.servers.litserve_server {port}", takes_form=False, package="litserve"),
    Contestant(
        "Mosec",
        "-m benchmarks.servers.mosec_server --address 127.0.0.1 --port {port} --timeout 30000 --log-level error",
        takes_form=False,
        package="mosec",
    ),
)
