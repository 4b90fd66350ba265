"""What a container has to do, each as a function that raises AssertionError."""

import json
import time
from collections.abc import Callable
from pathlib import Path

from tests.system.container.running import LOCKED, WITH_TMP, Container, Image

PROJECT = Path(__file__).parents[3]
_STOPS_WITHIN = 10.0  # seconds; docker's own time before it kills
_MOMENTS = (0.0, 0.2, 0.5, 1.0, 2.0)  # seconds after the start, at which SIGTERM comes

# Photos to train on, and a digit to ask about.
_FILES = """
import numpy as np
from PIL import Image
from pathlib import Path
from training.data.strokes.draw import draw_digits

images, targets = draw_digits(64, seed=5)
Image.fromarray(images[list(targets).index(7)]).save("/files/seven.png")
for label in ("bees", "ants"):
    Path("/files/photos", label).mkdir(parents=True)
    for number in range(160):
        noise = np.random.default_rng([ord(label[0]), number]).integers(0, 256, (5, 6, 3), np.uint8)
        Image.fromarray(noise).resize((300, 240)).save(f"/files/photos/{label}/{number:03}.jpg")
"""


def prepare(image: Image) -> None:
    """Makes the files that the checks need, and a checkpoint, with the image's own Python.

    The image holds the server only. Training comes from the project's folder.
    """
    image.files.mkdir(exist_ok=True)
    image.files.chmod(0o777)  # for the user of the image
    image.clear()
    _train(image, "python", "-", text=_FILES)
    sizes = ["--set", "source.samples=3000", "--set", "source.test_samples=500", "--epochs", "2"]
    _train(image, "python", "-m", "training", "strokes", *sizes, *_OUTPUT)


def training_in_64_mb(image: Image) -> None:
    """`training photos` with 4 workers and batch 64, where /dev/shm has 64 MB."""
    sizes = ["--recipe", "scratch:mobilenet_v3_small", "--epochs", "1", "--workers", "4", "--batch-size", "64"]
    _train(image, "python", "-m", "training", "photos", "/files/photos", *sizes, *_OUTPUT)
    assert (image.files / "store" / "photos" / "1.safetensors").is_file()


def answers_as_a_user_without_rights(image: Image) -> None:
    """/predict with --read-only, a /tmp in memory and no capability; /metrics counts it."""
    with image.serving(*WITH_TMP) as container:
        container.ready()
        status, body = container.ask("/predict", method="POST", file="/files/seven.png")
        assert status == 200, body
        assert json.loads(body)["predictions"][0]["label"] == "7", body
        assert "flambeau_" in container.ask("/metrics")[1]
        user = image.engine.call("exec", container.name, "python", "-c", "import os; print(os.getuid())").stdout
        assert int(user) != 0


def answers_without_tmp(image: Image) -> None:
    """The same with --read-only and no /tmp, with a front-end."""
    command = ("python", "-m", "app", "--front-ends", "1")
    with image.serving(*LOCKED, command=command) as container:
        container.ready()
        assert container.ask("/predict?model=strokes", method="POST", file="/files/seven.png")[0] == 200
        status, body = container.ask("/metrics")
        assert (status, "flambeau_" in body) == (200, True), f"/metrics: {status} {body[:200]}"


def is_healthy(image: Image) -> None:
    """HEALTHCHECK says healthy."""
    with image.serving(*WITH_TMP) as container:
        container.wait_until("healthy", lambda: _status(container) == "healthy")


def is_healthy_on_another_port(image: Image) -> None:
    """HEALTHCHECK says healthy when the server was started with --port."""
    with image.serving(*WITH_TMP, command=("python", "-m", "app", "--port", "8123"), port=8123) as container:
        container.ready()
        container.wait_until("healthy", lambda: _status(container) == "healthy")


def stops(image: Image) -> None:
    """`docker stop` ends it with 0 in seconds."""
    with image.serving(*WITH_TMP) as container:
        container.ready()
        start = time.monotonic()
        image.engine.call("stop", "--time", "60", container.name)
        took = time.monotonic() - start
        assert container.state()["ExitCode"] == 0, container.log()
        assert took < _STOPS_WITHIN, f"it took {took:.1f} s"


def stops_while_it_starts(image: Image) -> None:
    """SIGTERM in the first moments ends it, with one process and with several."""
    for front_ends in ("0", "1"):
        for moment in _MOMENTS:
            command = ("python", "-m", "app", "--front-ends", front_ends)
            with image.serving(*WITH_TMP, command=command) as container:
                time.sleep(moment)
                image.engine.call("kill", "--signal", "TERM", container.name, may_fail=True)
                said = f"--front-ends {front_ends}: a SIGTERM {moment} s after its start was lost\n"
                assert container.ended_within(_STOPS_WITHIN), said + container.log()


def sees_its_quota(image: Image) -> None:
    """--cpus N starts as many processes as N cores do."""
    for cores, cpus in (("1", "0"), ("2", "0,1")):
        by_quota, by_set = _processes(image, "--cpus", cores), _processes(image, "--cpuset-cpus", cpus)
        assert by_quota == by_set, f"--cpus {cores}: {by_quota} processes, and {by_set} on so many cores"


CHECKS: tuple[Callable[[Image], None], ...] = (
    answers_as_a_user_without_rights,
    answers_without_tmp,
    is_healthy,
    is_healthy_on_another_port,
    stops,
    stops_while_it_starts,
    sees_its_quota,
    training_in_64_mb,
)

_OUTPUT = ("--no-pictures", "--store", "/files/store", "--runs", "/files/runs")


def _train(image: Image, *command: str, text: str = "") -> None:
    """Runs one command in a container with training's code, and no more of /dev/shm than docker gives."""
    mounts = ("--volume", f"{PROJECT}/training:/srv/training:ro", "--volume", f"{image.files}:/files")
    image.engine.call("run", "--rm", "-i", "--network", "none", *WITH_TMP, *mounts, image.tag, *command, text=text)


def _processes(image: Image, *options: str) -> int:
    with image.serving(*WITH_TMP, *options) as container:
        container.ready()
        return len(image.engine.call("top", container.name).stdout.splitlines()) - 1


def _status(container: Container) -> str:
    health = container.state()["Health"]
    assert health["Status"] != "unhealthy", str(health["Log"][-1]["Output"])[-500:]
    return str(health["Status"])
