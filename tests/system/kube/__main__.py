"""Builds the images, and plays `deploy/kubernetes`: two pods behind haproxy, under load, and a run of training.

    python -m tests.system.kube [--folder DIR]

It rolls out a new image, publishes a new version, kills a pod, and looks whether limits hold, and whether a pod serves
from a bucket. It needs root, Debian's packages (apt-get install podman runc haproxy debootstrap), kubectl and the extra
`cluster` (`make kube-check` brings both), a network to packages, some 25 GB of disk, and a quarter of an hour, half
of it for the image. Pods and haproxy listen on 127.0.0.1.
The exit code is 0 if all is well, 1 if a step fails, and 2, with one line, if this machine cannot check.
"""

import argparse
import importlib.util
import socket
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.support.checkpoints import png
from tests.support.cluster import kubectl
from tests.system.container import image as image_of
from tests.system.container.command import exit_code
from tests.system.container.engine import Engine
from tests.system.container.errors import CannotCheck
from tests.system.kube.balancer import SENDERS, balancer
from tests.system.kube.checks import CHECKS, IMAGES, train
from tests.system.kube.fleet import Fleet, volume
from tests.system.kube.job import IMAGE as TRAINING_IMAGE
from tests.system.kube.podman import podman
from tests.system.kube.pods import Maker, PodSpec, Probe

_CLAIM = "flambeau-models"
_PLACES = 3  # two pods, and the one that takes the place of another


def main(arguments: Sequence[str] | None = None) -> int:
    """Returns the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.system.kube", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--folder", type=Path, help="keep everything here, so that the next time is quicker")
    parsed = parser.parse_args(arguments)
    return exit_code("kube-check", parsed.folder, _check)


def _check(folder: Path) -> int:
    try:
        with ExitStack() as stack:
            _play(folder, stack)
    except AssertionError as error:
        print(f"FAILED\n    {str(error).strip()}", file=sys.stderr)
        return 1
    return 0


def _play(folder: Path, stack: ExitStack) -> None:
    """Takes each step. Raises: AssertionError; CannotCheck."""
    began = time.monotonic()
    program = kubectl(folder)
    if program is None:
        raise CannotCheck("there is no kubectl: make kube-check downloads one")
    engine = stack.enter_context(podman(folder / "podman"))
    if importlib.util.find_spec("moto") is None:
        raise CannotCheck("the extra cluster is not installed: make kube-check installs it")
    print("building the image", end=" … ", flush=True)
    # What they are made of stays in the folder.
    stack.callback(engine.call, "rmi", "--force", *IMAGES, TRAINING_IMAGE, may_fail=True)
    _build(engine, folder)
    print(f"{time.monotonic() - began:.0f} s", flush=True)
    fleet = stack.enter_context(_fleet(engine, program, folder))
    for check in CHECKS:
        print(check.__name__.replace("_", " "), end=" … ", flush=True)
        print(check(fleet), flush=True)
    print(f"all is well, after {time.monotonic() - began:.0f} s")


def _build(engine: Engine, folder: Path) -> None:
    """Builds the image, and a second one that differs in a label: a rollout wants another image."""
    image_of.build(engine, folder, tag=IMAGES[0], extras="s3")
    engine.call("build", "--tag", IMAGES[1], "-", text=f"FROM {IMAGES[0]}\nLABEL build=2\n")


@contextmanager
def _fleet(engine: Engine, kubectl: str, folder: Path) -> Iterator[Fleet]:
    """Gives a fleet without pods: a volume with version 1 of a model, and a balancer that sends to nobody."""
    store = volume(engine, _CLAIM)
    train(store, folder / "runs")
    *places, service, ingress = _free_ports(_PLACES + len(SENDERS))
    maker = Maker(engine, kubectl, folder / "pods")
    deployment = maker.deployment(PodSpec(IMAGES[0], places[0]))
    (container,) = deployment["spec"]["template"]["spec"]["containers"]
    readiness = Probe.of(container["readinessProbe"], places[0])
    ports = dict(zip(SENDERS, (service, ingress), strict=True))
    with balancer(folder, readiness, ports=ports, places=places) as haproxy:
        yield Fleet(maker, haproxy, store, folder / "runs", png())


def _free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [each.getsockname()[1] for each in sockets]


if __name__ == "__main__":
    sys.exit(main())
