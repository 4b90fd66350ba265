"""The servers that take part: how each is started, and how it takes an image.

Each is in its best configuration for two cores.
"""

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
        command: the arguments of Python, with {port} and {store} to be filled in.
        environment: variables beside CHECKPOINT, the path of the checkpoint.
        takes_form: whether an image comes in a multipart form. Otherwise it is the body itself.
        package: the package that has to be installed.
        tree: the folder that the server is started in, whose code it runs.
    """

    name: str
    command: str
    environment: Mapping[str, str] = field(default_factory=dict, hash=False)
    takes_form: bool = True
    package: str | None = None
    tree: Path = ROOT

    @property
    def installed(self) -> bool:
        """Whether its package is there."""
        return self.package is None or find_spec(self.package) is not None

    def arguments(self, *, port: int, store: str) -> list[str]:
        """Returns the arguments of Python, filled in."""
        return [part.format(port=port, store=store) for part in self.command.split()]

    def environment_with(self, *, checkpoint: str, scratch: str) -> dict[str, str]:
        """Returns all of the environment; `scratch` is a folder for temporary files."""
        return {**os.environ, "CHECKPOINT": checkpoint, "TMPDIR": scratch, **self.environment}


PLAIN = Contestant("plain endpoint", _PLAIN)

FLAMBEAU = (
    Contestant("flambeau, one process", f"{_FLAMBEAU} --front-ends 0"),
    Contestant("flambeau, front end", f"{_FLAMBEAU} --front-ends 1"),
)

ALL = (
    PLAIN,
    # With two threads of torch in each of two workers, the threads wait for one another: 50 requests/s, not 2,000.
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
