"""Pods and what sends to them: what the controllers of a Deployment and of a Service do."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from tests.system.container.engine import Engine
from tests.system.kube.balancer import SENDERS, Balancer
from tests.system.kube.load import Crowd, crowd
from tests.system.kube.pods import Maker, Pod, PodSpec

# Kubernetes takes an address out of a Service, and tells the pod to end, at the same time: some proxies hear of the
# first after the pod has heard of the second. This many seconds are worse than most clusters, and less than our drain.
_LATE = 3.0
_CLIENTS = 4  # at each of the two senders


def volume(podman: Engine, name: str) -> Path:
    """Makes a volume, and returns its folder, to which every user may write: podman knows no `fsGroup`."""
    podman.call("volume", "create", name)
    folder = Path(podman.call("volume", "inspect", "--format", "{{.Mountpoint}}", name).stdout.strip())
    folder.chmod(0o777)
    return folder


@dataclass(slots=True)
class Fleet:
    """Is all pods of one Deployment, and the balancer before them.

    Args:
        store: the folder behind the claim that the pods mount.
        runs: where training keeps its own files.
        image: a file to ask about.
    """

    maker: Maker
    balancer: Balancer
    store: Path
    runs: Path
    image: bytes
    pods: list[Pod] = field(default_factory=list)

    def add(self, image: str) -> Pod:
        """Starts a pod, waits until it is ready, and lets it have requests. Raises: AssertionError."""
        pod = Pod.start(self.maker, PodSpec(image, self.free_port))
        self.pods.append(pod)
        pod.wait_until_ready()
        self.balancer.send_to(pod.port)
        return pod

    @property
    def free_port(self) -> int:
        """The port of a pod that there may be, and is not."""
        return next(port for port in self.balancer.places if port not in {pod.port for pod in self.pods})

    def end(self, pod: Pod) -> float:
        """Ends a pod as Kubernetes does. Returns the seconds that it took. Raises: AssertionError."""
        began = time.monotonic()
        pod.terminate()
        time.sleep(_LATE)
        self.balancer.send_no_more_to(pod.port)
        pod.wait_until_ended()
        self.pods.remove(pod)
        return time.monotonic() - began

    def kill(self, pod: Pod) -> float:
        """Kills a pod's container, which is started again. Returns the seconds until it gets requests again.

        The kubelet sees the death and starts the container anew, and the Service hears of it as late as of an end.

        Raises: AssertionError, if it is not ready again in time.
        """
        began = time.monotonic()
        pod.kill()
        time.sleep(_LATE)
        self.balancer.send_no_more_to(pod.port)
        pod.wait_until_ready()
        self.balancer.send_to(pod.port)
        return time.monotonic() - began

    def roll(self, image: str) -> list[float]:
        """Gives each pod a successor, one after the other, and returns how long each took to end.

        As the manifest says it (maxSurge 1, maxUnavailable 0): the new one is ready before the old one is told to end.
        """
        took = []
        for old in list(self.pods):
            self.add(image)
            took.append(self.end(old))
        return took

    @contextmanager
    def load(self) -> Iterator[Crowd]:
        """Lets clients ask, half of them through each sender. At the end each pod must have stayed alive."""
        ports = [self.balancer.ports[sender] for sender in SENDERS] * _CLIENTS
        with crowd(self.image, ports) as clients:
            yield clients
        dead = [pod.name for pod in self.pods if pod.dead]
        assert not dead, f"the kubelet would have restarted {', '.join(dead)}: the liveness probe failed"
