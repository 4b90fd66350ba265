"""What a fleet has to do, each step as a function that raises AssertionError and returns what was measured.

The steps are one story: each goes on where the one before has ended.
"""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from classifier.checkpoint import Checkpoint
from tests.support.s3 import s3_server
from tests.system.kube import job
from tests.system.kube.fleet import Fleet, volume
from tests.system.kube.load import Answer, crowd
from tests.system.kube.pods import PROJECT, Pod, PodSpec

MODEL = "strokes"
BUCKET = "s3://models/flambeau"  # as the overlay s3 has it
IMAGES = ("localhost/flambeau:1", "localhost/flambeau:2")
_SETTLE = 3.0  # seconds of load before something happens, and after it
_PATIENCE = 120.0  # seconds
_LOOK = 0.1  # seconds between two looks
_SAMPLES = ("--set", "source.samples=3000", "--set", "source.test_samples=500", "--epochs", "2", "--no-pictures")
_GB = 2**30
# What the Job trains, in steps so small that it is killed amid an epoch.
_JOB = (
    *(MODEL, "--set=virtual_ranks=2", "--save-steps=3", "--no-pictures", "--epochs=3", "--batch-size=32"),
    *("--set=source.samples=4000", "--set=source.test_samples=500"),
)


def train(store: Path | str, runs: Path, variables: Mapping[str, str] | None = None) -> None:
    """Publishes the next version of a small network. Raises: AssertionError."""
    command = [sys.executable, "-m", "training", MODEL, *_SAMPLES, "--store", str(store), "--runs", str(runs)]
    environment = {**os.environ, **(variables or {})}
    ended = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr


def two_pods_start(fleet: Fleet) -> str:
    """Both pass their start-up and readiness probes."""
    began = time.monotonic()
    for _ in range(2):
        fleet.add(IMAGES[0])
    return f"both ready after {time.monotonic() - began:.1f} s"


def a_pod_may_do_no_more_than_it_must(fleet: Fleet) -> str:
    """No root, no capability, no new privileges, a filter of system calls, and files that only read."""
    for pod in fleet.pods:
        status = dict(line.split(":\t", 1) for line in pod.run("cat", "/proc/1/status").splitlines() if ":\t" in line)
        assert set(status["Uid"].split()) == {"10001"}, status["Uid"]
        assert {int(status[name], 16) for name in ("CapPrm", "CapEff", "CapBnd")} == {0}
        assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
        for folder in ("/srv", "/tmp", "/models_store"):  # noqa: S108  of the container
            assert pod.run("sh", "-c", f"touch {folder}/x || echo refused", may_fail=True) == "refused\n", folder
    return "user 10001"


def its_limits_are_those_of_the_manifest(fleet: Fleet) -> str:
    """The kernel has been told the limits."""
    uses = [pod.use() for pod in fleet.pods]
    assert {(use.cores, use.memory) for use in uses} == {(2.0, 2 * _GB)}, uses
    return "2 cores, 2 GiB"


def a_new_image_is_rolled_out(fleet: Fleet) -> str:
    """Each pod gets a successor under load: nothing is lost, and nothing has to be sent a second time."""
    before = fleet.balancer.tried_again()
    with fleet.load() as clients:
        time.sleep(_SETTLE)
        took = fleet.roll(IMAGES[1])
        time.sleep(_SETTLE)
    assert not clients.lost, clients.lost[:3]
    assert {pod.image for pod in fleet.pods} == {IMAGES[1]}
    assert fleet.balancer.tried_again() == before, "a pod has refused a connection"
    return f"{clients}; the old pods ended with 0 after {' and '.join(f'{each:.1f} s' for each in took)}"


def a_new_version_reaches_every_pod(fleet: Fleet) -> str:
    """Training publishes under load: nothing is lost, and no pod answers by an older version after a newer one."""
    with fleet.load() as clients:
        time.sleep(_SETTLE)
        train(fleet.store, fleet.runs)
        names, give_up = {str(pod.port) for pod in fleet.pods}, time.monotonic() + _PATIENCE
        while {answer.pod for answer in clients.answers if answer.version == 2 and answer.pod} != names:
            assert time.monotonic() < give_up, f"version 2 does not reach every pod: {clients}"
            time.sleep(_SETTLE)
    assert not clients.lost, clients.lost[:3]
    answers = clients.answers
    for name in names:
        _only_forward([answer for answer in answers if answer.pod == name])
    newer = [answer.ended for answer in answers if answer.version == 2]
    older = [answer.ended for answer in answers if answer.version == 1]
    both = max(0.0, older[-1] - newer[0])
    return f"{clients}; version 2 answers in both pods, and both versions answered for {both * 1000:.0f} ms"


def a_killed_pod_loses_only_what_it_held(fleet: Fleet) -> str:
    """SIGKILL: no client loses more than the one request that the pod may have held, and the pod answers again."""
    pod = fleet.pods[0]
    with fleet.load() as clients:
        time.sleep(_SETTLE)
        took = fleet.kill(pod)
        back = time.monotonic()
        time.sleep(_SETTLE)
    assert any(answer.pod == str(pod.port) and answer.began > back for answer in clients.answers)
    for client in clients.clients:
        assert len(client.lost) <= 1, client.lost
    return f"{clients} (of {len(clients.clients)} clients); asked again after {took:.1f} s"


def limits_hold(fleet: Fleet) -> str:
    """A pod of half a core takes no more. What takes more memory than the pod may have is ended, and it serves on."""
    pod = Pod.start(fleet.maker, PodSpec(IMAGES[1], fleet.free_port, limits={"cpu": "500m", "memory": "1Gi"}))
    try:
        pod.wait_until_ready()
        with crowd(fleet.image, [pod.port] * 8) as clients:
            time.sleep(_SETTLE)
            before, began = pod.use(), time.monotonic()
            time.sleep(10)
            after, seconds = pod.use(), time.monotonic() - began
            pod.run("python", "-c", "bytearray(b'x') * 2_000_000_000", may_fail=True)
            time.sleep(_SETTLE)
        cores, killed = (after.seconds - before.seconds) / seconds, pod.use().killed
        assert not clients.lost, clients.lost[:3]
        assert (after.cores, after.memory) == (0.5, _GB)
        assert cores < 0.55, f"it took {cores:.2f} cores"
        assert after.throttled > before.throttled, "the load was too small to need the limit"
        assert after.anonymous < after.memory, f"it takes {after.anonymous:,} bytes"
        assert killed == after.killed + 1, f"the kernel has ended {killed} processes"
    finally:
        pod.remove()
    return f"{cores:.2f} of 0.5 cores, {after.anonymous / 2**20:.0f} of 1024 MiB; {clients}"


def a_pod_of_the_overlay_s3_reads_a_bucket(fleet: Fleet) -> str:
    """It serves what lies there, takes a new version, and is ready again from its cache when the bucket is gone."""
    with s3_server() as s3:
        s3.make("models")
        train(BUCKET, fleet.runs, s3.environment)
        made = PodSpec(IMAGES[1], fleet.free_port, overlay="s3", variables=s3.environment)
        pod = Pod.start(fleet.maker, made)
        try:
            pod.wait_until_ready()
            with crowd(fleet.image, [pod.port]) as clients:
                train(BUCKET, fleet.runs, s3.environment)
                give_up = time.monotonic() + _PATIENCE
                while not any(answer.version == 2 for answer in clients.answers):
                    assert time.monotonic() < give_up, f"version 2 was not taken\n{pod.log()}"
                    time.sleep(_LOOK)
                s3.stop()
                time.sleep(_SETTLE)
            assert not clients.lost, clients.lost[:3]
            pod.kill()
            pod.wait_until_ready()
            with crowd(fleet.image, [pod.port]) as again:
                time.sleep(_SETTLE)
            assert not again.lost, again.lost[:3]
            assert {answer.version for answer in again.answers} == {2}
        finally:
            pod.remove()
    return f"{clients}; killed and started again without the bucket: {again}"


def the_fleet_ends(fleet: Fleet) -> str:
    """SIGTERM to both: each ends with 0."""
    return " and ".join(f"{fleet.end(pod):.1f} s" for pod in list(fleet.pods))


def a_training_job_survives_a_killed_pod(fleet: Fleet) -> str:
    """Its two pods train together, and one is killed: the weights are those of one process that nobody disturbed."""
    podman = fleet.maker.podman
    job.build(podman, server=IMAGES[1])
    data = volume(podman, "flambeau-training")
    (fleet.store / MODEL).chmod(0o777)  # as fsGroup would have it
    alone = fleet.runs / "alone"
    shutil.rmtree(alone, ignore_errors=True)  # of an earlier check in the same folder
    arguments = [*_JOB, f"--runs={alone}", f"--store={alone / 'store'}"]
    ended = subprocess.run(
        [sys.executable, "-m", "training", *arguments], cwd=PROJECT, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    began = time.monotonic()
    arguments = [*_JOB, "--resume", "--runs=/data/runs", "--store=/models_store"]
    running = job.Job.start(podman, fleet.maker.kubectl, arguments, run=data / "runs" / MODEL)
    try:
        running.wait_until_kept(5)
        running.kill(running.names[1])
        running.wait_until_completed()
    finally:
        running.remove()
    took = time.monotonic() - began
    newest = max((fleet.store / MODEL).glob("*.safetensors"), key=lambda path: int(path.stem))
    one, other = (Checkpoint.load(path).network for path in (alone / "store" / MODEL / "1.safetensors", newest))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one), "the weights differ"
    return f"version {newest.stem} after {took:.0f} s, its weights equal bit for bit"


CHECKS: tuple[Callable[[Fleet], str], ...] = (
    two_pods_start,
    a_pod_may_do_no_more_than_it_must,
    its_limits_are_those_of_the_manifest,
    a_new_image_is_rolled_out,
    a_new_version_reaches_every_pod,
    a_killed_pod_loses_only_what_it_held,
    limits_hold,
    a_pod_of_the_overlay_s3_reads_a_bucket,
    the_fleet_ends,
    a_training_job_survives_a_killed_pod,
)


def _only_forward(answers: Sequence[Answer]) -> None:
    """Raises: AssertionError, if a request that began after an answer of version 2 was answered by version 1."""
    first = min(answer.ended for answer in answers if answer.version == 2)
    late = [answer for answer in answers if answer.version == 1 and answer.began > first]
    assert not late, f"{len(late)} answers of the older version after the newer one"
