"""A Ray cluster on loopback, in a process of its own: a head that computes nothing, and nodes of one core each."""

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tests.support.cluster import needed

# Ray takes the loopback address where it believes that there are no other machines.
_ENVIRONMENT = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0", "RAY_USAGE_STATS_ENABLED": "0"}

_SERVE = """
import sys
from ray.cluster_utils import Cluster
size = {"object_store_memory": 100_000_000}
head = {"num_cpus": 0, "include_dashboard": False, "node_ip_address": "127.0.0.1", **size}
cluster = Cluster(initialize_head=True, head_node_args=head)
nodes = []
print("address", cluster.address, flush=True)
for line in sys.stdin:
    if line.strip() == "add":
        nodes.append(cluster.add_node(num_cpus=1, **size))
    else:
        cluster.remove_node(nodes.pop(), allow_graceful=False)
    print("done", flush=True)
cluster.shutdown()
"""


class RayCluster:
    """A cluster that ends with its process."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.address = self._said("address")

    def add_node(self) -> None:
        self._ask("add")

    def kill_node(self) -> None:
        """Kills the node that was added last."""
        self._ask("kill")

    def _ask(self, what: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{what}\n")
        self._process.stdin.flush()
        self._said("done")

    def _said(self, word: str) -> str:
        assert self._process.stdout is not None
        return next(line for line in self._process.stdout if line.startswith(word)).removeprefix(word).strip()


@contextmanager
def ray_cluster(nodes: int) -> Iterator[RayCluster]:
    """Starts a cluster. Skips the test where the extra is not installed; `make test-cluster` fails instead."""
    needed("pyarrow")
    needed("ray")
    with subprocess.Popen(
        [sys.executable, "-c", _SERVE],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=environment(),
    ) as process:
        cluster = RayCluster(process)
        for _ in range(nodes):
            cluster.add_node()
        yield cluster
        assert process.stdin is not None
        process.stdin.close()


def environment() -> dict[str, str]:
    """Returns the environment of a process that asks the cluster."""
    return {**os.environ, **_ENVIRONMENT}
