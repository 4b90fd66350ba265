"""The training Job of `deploy/kubernetes/training`: its pods by podman, as the controller of Jobs makes them.

The manifest is kept but for what to train, and for what lies between machines: the pods share this machine's network,
so all have its address, also in place of the first one's name.
"""

import contextlib
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.cluster import kustomized
from tests.system.container.engine import Engine
from tests.system.kube.pods import PROJECT, kill

IMAGE = "localhost/flambeau-training:1"
_FOLDER = PROJECT / "deploy" / "kubernetes" / "training"
_DOCKERFILE = PROJECT / "deploy" / "training" / "Dockerfile"
_PATIENCE = 240.0  # seconds
_LOOK = 0.05  # seconds between two looks
_KEPT = ("partial_epoch.pth.tar", "checkpoint.pth.tar")


def build(podman: Engine, *, server: str) -> None:
    """Builds the image that trains on top of the one that serves. Raises: AssertionError."""
    ignore = ("--ignorefile", f"{_DOCKERFILE}.dockerignore")
    podman.call(
        *("build", "--file", str(_DOCKERFILE), *ignore, "--build-arg", f"SERVER={server}", "--tag", IMAGE, str(PROJECT))
    )


@dataclass(frozen=True, slots=True)
class Job:
    """Is a Job that was started.

    Args:
        run: the folder where its run keeps its state.
        names: of its containers.
    """

    podman: Engine
    run: Path
    names: Sequence[str]

    @classmethod
    def start(cls, podman: Engine, kubectl: str, arguments: Sequence[str], *, run: Path) -> "Job":
        """Starts each of its pods. Raises: AssertionError."""
        (job,) = (each for each in kustomized(kubectl, _FOLDER) if each["kind"] == "Job")
        names = [_start(podman, job, arguments, index) for index in range(job["spec"]["parallelism"])]
        return cls(podman, run, names)

    def wait_until_kept(self, times: int) -> None:
        """Waits until the state was kept so many times more. Raises: AssertionError."""
        seen = self._kept()
        for _ in range(times):
            self._wait("kept its state", lambda before=seen: self._kept() != before)  # type: ignore[misc]
            seen = self._kept()

    def kill(self, name: str) -> None:
        """Kills a container as the kernel does. It is started again, as the manifest says."""
        kill(self.podman.state(name)["Pid"])

    def wait_until_completed(self) -> None:
        """Waits until all its pods have ended with 0. Raises: AssertionError."""

        def has_ended() -> bool:
            states = [self.podman.state(name) for name in self.names]
            return all(not state["Running"] and state["ExitCode"] == 0 for state in states)

        self._wait("completed", has_ended)

    def remove(self) -> None:
        """Takes its pods away, whatever they do."""
        for name in self.names:
            self.podman.call("pod", "rm", "--force", "--time", "1", name.rpartition("-")[0], may_fail=True)

    def _kept(self) -> list[int]:
        times = []
        for name in _KEPT:
            with contextlib.suppress(FileNotFoundError):
                times.append((self.run / name).stat().st_mtime_ns)
        return times

    def _wait(self, what: str, happens: Callable[[], bool]) -> None:
        give_up = time.monotonic() + _PATIENCE
        while not happens():
            assert time.monotonic() < give_up, "\n".join([f"the job has not {what}", *map(self.podman.log, self.names)])
            time.sleep(_LOOK)


def _start(podman: Engine, job: Any, arguments: Sequence[str], index: int) -> str:
    """Starts the pod of one index, and returns the name of its container."""
    name, spec = f"{job['metadata']['name']}-{index}", json.loads(json.dumps(job["spec"]["template"]["spec"]))
    (container,) = spec["containers"]
    command = [re.sub(r"^(--rdzv-endpoint=).+:", r"\g<1>127.0.0.1:", word) for word in container["command"]]
    command = [word.replace("$(POD_IP)", "127.0.0.1") for word in command]
    variables = [each for each in container["env"] if each["name"] != "POD_IP"]
    container |= {"image": IMAGE, "command": command, "args": list(arguments), "env": variables}
    spec["hostNetwork"] = True
    for place in (*spec["volumes"], *container["volumeMounts"]):
        if place["name"] == "scratch":  # podman would give both pods the same
            place["name"] += f"-{index}"
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec}
    podman.call("play", "kube", "-", text=json.dumps(pod))
    return f"{name}-{container['name']}"
