"""Pods of the Deployment in `deploy/kubernetes`. What Kubernetes' kubelet does with them, this module does.

The manifest is what `kubectl kustomize` makes of an overlay, with what somebody changes who puts several pods on one
machine: the name, the image, and the machine's network with a port for each. Two things are taken out before podman
sees it: the list of ports, which podman wants to map, and the probes, for which it would run a curl that is not there.
"""

import json
import os
import signal
import subprocess
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from tests.support.cluster import kustomized
from tests.system.container.engine import Engine

PROJECT = Path(__file__).parents[3]
_OVERLAYS = PROJECT / "deploy" / "kubernetes" / "overlays"
_LOOK = 0.1  # seconds between two looks at a pod
_OPENER = urllib.request.build_opener(urllib.request.ProxyHandler({}))

# What a control group says of itself, of version 2 or 1.
_USE = """
import json
from pathlib import Path
group = Path("/sys/fs/cgroup")
read = lambda path: (group / path).read_text()
table = lambda path: {key: int(value) for key, value in (line.split() for line in read(path).splitlines())}
if (group / "memory.max").exists():
    quota, period = read("cpu.max").split()
    cpu, events = table("cpu.stat"), table("memory.events")
    found = cpu["usage_usec"] / 1e6, cpu["nr_throttled"], table("memory.stat")["anon"], events["oom_kill"]
    limit = int(read("memory.max"))
else:
    quota, period = read("cpu/cpu.cfs_quota_us"), read("cpu/cpu.cfs_period_us")
    seconds, throttled = int(read("cpuacct/cpuacct.usage")) / 1e9, table("cpu/cpu.stat")["nr_throttled"]
    found = seconds, throttled, table("memory/memory.stat")["total_rss"], table("memory/memory.oom_control")["oom_kill"]
    limit = int(read("memory/memory.limit_in_bytes"))
print(json.dumps([int(quota) / int(period), limit, *found]))
"""


def kill(process: int) -> None:
    """Kills the first process of a container, and waits until it is gone.

    Raises: AssertionError, if there is none: podman says 0 then.
    """
    assert process > 0, "the container does not run"
    os.kill(process, signal.SIGKILL)
    while Path(f"/proc/{process}").exists():
        time.sleep(_LOOK)


@dataclass(frozen=True, slots=True)
class Use:
    """Says what a pod may use, and what it has used.

    Args:
        cores, memory: the limits; memory in bytes.
        seconds: of the processor, since its start.
        throttled: in how many periods it was held back.
        anonymous: bytes of memory that are no file's.
        killed: how many of its processes the kernel has ended for want of memory.
    """

    cores: float
    memory: int
    seconds: float
    throttled: int
    anonymous: int
    killed: int


@dataclass(frozen=True, slots=True)
class PodSpec:
    """Says which pod is made: of which image and overlay, and what differs from it.

    Args:
        port: of the machine, where it listens; no two pods have the same.
        limits: by the name of the resource.
        variables: beside those of the manifest.
    """

    image: str
    port: int
    overlay: str = "cpu"
    limits: Mapping[str, str] = field(default_factory=dict)
    variables: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Maker:
    """Makes pods.

    Args:
        kubectl: its path.
        folder: for the kustomization of each pod.
    """

    podman: Engine
    kubectl: str
    folder: Path

    def deployment(self, made: PodSpec) -> Any:
        """Returns the Deployment as Kubernetes would get it. Raises: AssertionError, if kustomize does not take it."""
        container, name, tag = "/spec/template/spec/containers/0", *made.image.rsplit(":", 1)
        port, variables = made.port, {"FLAMBEAU_PORT": str(made.port), "FLAMBEAU_HOST": "127.0.0.1", **made.variables}
        patch = [
            {"op": "add", "path": "/spec/template/spec/hostNetwork", "value": True},
            {"op": "replace", "path": f"{container}/ports/0/containerPort", "value": port},
        ]
        patch += [
            {"op": "add", "path": f"{container}/env/-", "value": {"name": variable, "value": value}}
            for variable, value in variables.items()
        ]
        patch += [
            {"op": "add", "path": f"{container}/resources/{kind}/{resource}", "value": value}
            for resource, value in made.limits.items()
            for kind in ("requests", "limits")
        ]
        folder = self.folder / str(port)
        folder.mkdir(parents=True, exist_ok=True)
        kustomization = {
            "resources": [os.path.relpath(_OVERLAYS / made.overlay, folder)],
            "nameSuffix": f"-{port}",
            "images": [{"name": "flambeau", "newName": name, "newTag": tag}],
            "patches": [{"target": {"kind": "Deployment"}, "patch": json.dumps(patch)}],
        }
        (folder / "kustomization.yaml").write_text(json.dumps(kustomization))
        (deployment,) = (each for each in kustomized(self.kubectl, folder) if each["kind"] == "Deployment")
        return deployment


@dataclass(frozen=True, slots=True)
class Probe:
    """Asks as the kubelet does, with Kubernetes' own values for what the manifest does not say."""

    url: str
    period: float
    timeout: float
    threshold: int

    @classmethod
    def of(cls, manifest: Mapping[str, Any], port: int) -> Self:
        """Reads one from a manifest."""
        url = f"http://127.0.0.1:{port}{manifest['httpGet']['path']}"
        period, timeout = manifest.get("periodSeconds", 10), manifest.get("timeoutSeconds", 1)
        return cls(url, period, timeout, manifest.get("failureThreshold", 3))

    def passes(self) -> bool:
        """Asks once."""
        try:
            with _OPENER.open(self.url, timeout=self.timeout) as answer:
                return bool(200 <= answer.status < 400)
        except OSError:
            return False


@dataclass(slots=True)
class Pod:
    """Is one pod. It is made by `start`."""

    podman: Engine
    port: int
    image: str
    name: str
    liveness: Probe
    readiness: Probe
    grace: int
    dead: bool = False  # the liveness probe failed as often as makes the kubelet restart a container
    _over: threading.Event = field(default_factory=threading.Event)
    _watch: threading.Thread | None = None
    _end: "subprocess.Popen[str] | None" = None

    @classmethod
    def start(cls, maker: Maker, made: PodSpec) -> Self:
        """Plays a pod, and waits until its start-up probe passes. The liveness probe begins then.

        Raises: AssertionError, with the end of its log, if it does not pass in time.
        """
        deployment = maker.deployment(made)
        spec = deployment["spec"]["template"]["spec"]
        (container,) = spec["containers"]
        del container["ports"]
        startup, liveness, readiness = (
            Probe.of(container.pop(name), made.port) for name in ("startupProbe", "livenessProbe", "readinessProbe")
        )
        name = f"{deployment['metadata']['name']}-pod-0-{container['name']}"  # as podman names it
        pod = cls(maker.podman, made.port, made.image, name, liveness, readiness, spec["terminationGracePeriodSeconds"])
        maker.podman.call("play", "kube", "-", text=json.dumps(deployment))
        pod._until("alive", startup.passes, period=startup.period, times=startup.threshold)
        pod._watch = threading.Thread(target=pod._see_that_it_lives, daemon=True)
        pod._watch.start()
        return pod

    def wait_until_ready(self) -> None:
        """Asks the readiness probe until it passes. Raises: AssertionError, with the end of the log."""
        self._until("ready", self.readiness.passes, period=self.readiness.period, times=60)

    def terminate(self) -> None:
        """Sends SIGTERM, and SIGKILL after the time that a pod is given. A container that ends is no longer probed."""
        self._stop_watching()
        self._end = self.podman.begin("stop", "--time", str(self.grace), self.name)

    def wait_until_ended(self) -> None:
        """Waits for the end that was told to it, and takes the pod away.

        Raises: AssertionError if it has not ended by itself, with exit code 0, in time.
        """
        assert self._end is not None
        said, _ = self._end.communicate()
        code = self.state()["ExitCode"]
        assert (self._end.returncode, code) == (0, 0), f"exit code {code}\n{said}{self.log()}"
        self.remove()

    def kill(self) -> None:
        """Sends SIGKILL to the container's first process, as the kernel does: podman is not asked, and restarts it."""
        kill(self.state()["Pid"])

    def remove(self) -> None:
        """Takes the pod away, whatever it does."""
        self._stop_watching()
        self.podman.call("pod", "rm", "--force", "--time", "1", self.name.rpartition("-")[0])

    def run(self, *command: str, text: str = "", may_fail: bool = False) -> str:
        """Runs a command in the container, and returns its standard output."""
        return self.podman.call("exec", "-i", self.name, *command, text=text, may_fail=may_fail).stdout

    def use(self) -> Use:
        """Returns what the control group of the container says."""
        return Use(*json.loads(self.run("python", "-", text=_USE)))

    def state(self) -> Any:
        """Returns what `podman inspect` says of its state."""
        return self.podman.state(self.name)

    def log(self) -> str:
        """Returns the last lines that it wrote."""
        return self.podman.log(self.name)

    def _until(self, what: str, fulfilled: Callable[[], bool], *, period: float, times: int) -> None:
        for _ in range(times):
            if fulfilled():
                return
            time.sleep(period)
        raise AssertionError(f"{self.name} is not {what} after {period * times:.0f} s\n{self.log()}")

    def _see_that_it_lives(self) -> None:
        failed = 0
        while not self._over.wait(self.liveness.period):
            failed = 0 if self.liveness.passes() else failed + 1
            self.dead = self.dead or failed >= self.liveness.threshold

    def _stop_watching(self) -> None:
        self._over.set()
        if self._watch is not None:
            self._watch.join()
