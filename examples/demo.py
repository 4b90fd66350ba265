"""Shows the main job from end to end with real processes: train, publish, serve, ask and swap, without a lost request.

    python examples/demo.py

The exit code is 0, or 1 if anything was lost or wrong. A good model stays in the store, in at most five versions.
"""

import argparse
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from io import BytesIO
from pathlib import Path
from statistics import quantiles
from typing import Any

import numpy as np
import torch
from PIL import Image

from app.lifecycle.storage import LocalFolder
from classifier.checkpoint import Checkpoint, CheckpointError
from classifier.manifest import Manifest
from classifier.progress import Progress
from training.data.dataset import load_dataset
from training.errors import TrainingError
from training.recipes.builtin import builtin
from training.recipes.dataset_table import DIGIT
from training.recipes.recipe import Recipe

PROJECT = Path(__file__).parent.parent
MODEL = "strokes"
KEEP = 5
CLIENTS = 8
BOUNDARY = "flambeau-demo"


class Wrong(Exception):
    """Something was lost, or is not as it should be."""


@dataclass(slots=True)
class Tally:
    """What the clients saw. Their threads share it: they only append, and each image belongs to one of them."""

    seconds: list[float] = field(default_factory=list)  # that each answer took
    by: list[int] = field(default_factory=list)  # the version of each answer
    answers: dict[int, str] = field(default_factory=dict)  # the likeliest label of each image
    lost: list[str] = field(default_factory=list)  # the error of each request that was lost

    @property
    def versions(self) -> Counter[int]:
        """How many answers each version gave."""
        return Counter(self.by)


def main() -> int:
    """Runs the demo. Returns the exit code."""
    parser = argparse.ArgumentParser(description="Train, publish, serve, ask and swap, with real processes.")
    parser.add_argument(
        "--store", type=Path, default=PROJECT / "models_store", help="the folder where the model is published"
    )
    parser.add_argument("--runs", type=Path, default=PROJECT / "runs", help="the folder where training keeps its files")
    arguments = parser.parse_args()
    began = time.monotonic()
    try:
        _demo(arguments.store, arguments.runs)
    except Wrong as wrong:
        print(f"\nWRONG: {wrong}", file=sys.stderr)
        return 1
    except (OSError, HTTPException, TrainingError, CheckpointError, subprocess.SubprocessError) as error:
        print(f"\nthe demo cannot go on: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; what was published stays in the store", file=sys.stderr)
        return 130
    print(f"\nThe demo took {time.monotonic() - began:.0f} s. Next: run `make serve` and open http://127.0.0.1:8000/")
    return 0


def _demo(store: Path, runs: Path) -> None:
    newest = _newest(store)
    if newest is None or Checkpoint.load(newest).manifest.preprocess != DIGIT:  # of an earlier demo
        _say("1. Train a small network on digits that the project draws itself, and publish it")
        _train(store, runs)
        newest = _published(store, after=0 if newest is None else _version(newest))
    else:
        _say(f"1. Train: not needed, {_shown(newest)} is in the store already")
    manifest = Checkpoint.load(newest).manifest
    images, labels = _test_digits(manifest, runs)

    _say("2. Start the server on a free port")
    with _server(store) as (address, port, server):
        print(f"   {address} serves {MODEL} {_version(newest)}")

        seven = PROJECT / "seven.png"
        seven.write_bytes(images[_typical(images, labels, "7")])
        _say(f"3. Ask it what {seven.name} shows")
        _bars(_post(HTTPConnection("127.0.0.1", port, timeout=60), seven.read_bytes()))
        print(f"   You can do the same:  curl -F file=@{seven.name} {address}/predict")

        _say(f"4. Post all {len(images):,} test digits, with {CLIENTS} clients at once")
        crowd, seconds = _post_all(port, images)
        _check(not crowd.lost, f"{len(crowd.lost)} requests were lost; the first: {crowd.lost[:1]}")
        right = sum(crowd.answers.get(i) == label for i, label in enumerate(labels))
        print(f"   {right / len(labels):.2%} of the answers are right")
        if manifest.metrics is not None and manifest.metrics.samples == len(labels):
            _check(
                right == round(manifest.metrics.accuracy * len(labels)),
                f"over HTTP {right} answers are right, but training measured {manifest.metrics.accuracy:.2%}",
            )

        _say("5. Train for one more epoch and publish a new version, while clients go on posting")
        with _posting(port, images) as meanwhile:
            _train(store, runs, "--epochs", "1", "--from", str(newest))
            following = _published(store, after=_version(newest))
            _wait_for_answers_of(_version(following), meanwhile)
        told = ", ".join(f"{count:,} by version {version}" for version, count in sorted(meanwhile.versions.items()))
        print(f"   Answers meanwhile: {told}. Now {_shown(following)} answers")

        _say("6. Stop the server")
        server.send_signal(signal.SIGTERM)
        _check(server.wait(60) == 0, f"the server ended with {server.returncode}")
    _prune(store)

    lost = [*crowd.lost, *meanwhile.lost]
    percentiles = quantiles(crowd.seconds, n=100)
    _say("Measured")
    print(f"   accuracy over HTTP   {right / len(labels):.2%} of {len(labels):,} digits")
    print(
        f"   requests/s           {len(crowd.seconds) / seconds:,.0f} ({CLIENTS} clients in Python share the processor)"
    )
    print(f"   p50 / p99            {percentiles[49] * 1000:.1f} ms / {percentiles[98] * 1000:.1f} ms")
    print(f"   swaps                {len(meanwhile.versions) - 1}")
    print(f"   lost requests: {len(lost)}")
    _check(not lost, f"the first lost request: {lost[:1]}")


def _say(text: str) -> None:
    print(f"\n{text}", flush=True)


def _check(holds: bool, otherwise: str) -> None:
    if not holds:
        raise Wrong(otherwise)


# The store.


def _newest(store: Path) -> Path | None:
    """Returns the path of the highest version that can be loaded, or None."""
    listing = LocalFolder(store).versions(MODEL, {})
    for found in () if listing is None else listing.versions.values():
        try:
            Checkpoint.load(found.path)
        except (CheckpointError, OSError):
            continue
        return found.path
    return None


def _published(store: Path, *, after: int) -> Path:
    newest = _newest(store)
    if newest is None or _version(newest) <= after:
        raise Wrong("training ended, but there is no new version in the store")
    return newest


def _version(path: Path) -> int:
    return int(path.stem)


def _shown(path: Path) -> str:
    return f"{MODEL} {_version(path)}"


# The processes.


def _train(store: Path, runs: Path, *flags: str) -> None:
    command = ["-m", "training", MODEL, "--store", str(store), "--runs", str(runs), *flags]
    code = subprocess.run([sys.executable, *command], cwd=PROJECT, check=False).returncode
    _check(code == 0, f"training ended with {code}; its last line says why")


def _prune(store: Path) -> None:
    command = ["-m", "training", "prune", MODEL, "--keep", str(KEEP), "--store", str(store)]
    subprocess.run([sys.executable, *command], cwd=PROJECT, check=True, stdout=subprocess.DEVNULL)


@contextmanager
def _server(store: Path) -> "Iterator[tuple[str, int, subprocess.Popen[str]]]":
    """Starts `python -m app`, and ends it when the block is left.

    Yields: Its address, its port and its process, once it is ready.
    Raises: Wrong.
    """
    flags = ["--store", str(store), "--model", MODEL, "--host", "127.0.0.1", "--port", "0", "--log-format", "json"]
    command = [sys.executable, "-m", "app", *flags]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("FLAMBEAU_")}
    server = subprocess.Popen(command, cwd=PROJECT, env=environment, stderr=subprocess.PIPE, text=True)
    try:
        ready = _until_ready(server)
        yield ready["address"], int(ready["address"].rpartition(":")[2]), server
    finally:
        if server.poll() is None:
            server.kill()
        server.wait()


def _until_ready(server: "subprocess.Popen[str]") -> dict[str, Any]:
    for line in server.stderr or ():
        try:
            event: dict[str, Any] = json.loads(line)
        except ValueError:
            print(f"   {line.rstrip()}", file=sys.stderr)
            continue
        if "address" in event:
            _check(event["event"] == "ready", f"the server is not ready: {event}")
            # Somebody has to go on reading, or one day the server would wait for room in the pipe.
            threading.Thread(target=lambda: [None for _ in server.stderr or ()], daemon=True).start()
            return event
    raise Wrong("the server ended before it was ready")


# The clients.


def _test_digits(manifest: Manifest, runs: Path) -> tuple[list[bytes], list[str]]:
    """Returns PNG files of the digits that the model was tested on, and what they show. Training never saw them."""
    recipe = builtin("strokes") if manifest.provenance is None else Recipe.model_validate(manifest.provenance.recipe)
    dataset = load_dataset(recipe, folder=runs, scratch=runs, progress=Progress.silent())
    files = []
    everything = torch.arange(len(dataset.test))
    ((images, _),) = dataset.test.batches([everything], device=torch.device("cpu"))
    for pixels in images.numpy():
        buffer = BytesIO()
        Image.fromarray(pixels.squeeze()).save(buffer, "PNG")
        files.append(buffer.getvalue())
    return files, [dataset.labels[target] for target in dataset.test.targets.tolist()]


def _typical(images: Sequence[bytes], labels: Sequence[str], label: str) -> int:
    """Returns the index of the image that is nearest to the mean of all images with this label."""
    of_label = [i for i, each in enumerate(labels) if each == label]
    pixels = np.stack([np.asarray(Image.open(BytesIO(images[i])), dtype=np.float32) for i in of_label])
    return of_label[int(((pixels - pixels.mean(axis=0)) ** 2).sum(axis=(1, 2)).argmin())]


def _post(connection: HTTPConnection, image: bytes) -> dict[str, Any]:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="file"; filename="digit.png"\r\n\r\n'
    body = head.encode() + image + f"\r\n--{BOUNDARY}--\r\n".encode()
    connection.request("POST", "/predict", body, {"Content-Type": f"multipart/form-data; boundary={BOUNDARY}"})
    response = connection.getresponse()
    answer: dict[str, Any] = json.loads(response.read())
    if response.status != 200:
        raise HTTPException(f"{response.status}: {answer}")
    return answer


def _post_all(port: int, images: Sequence[bytes]) -> tuple[Tally, float]:
    """Posts each image once. Returns what the clients saw, and the seconds that it took."""
    tally = Tally()
    work = iter(list(enumerate(images)))
    began = time.monotonic()
    _join([_client(port, work, tally) for _ in range(CLIENTS)])
    return tally, time.monotonic() - began


@contextmanager
def _posting(port: int, images: Sequence[bytes]) -> Iterator[Tally]:
    """Posts until the block is left, at a moderate pace, because training needs the processor too."""
    tally, over = Tally(), threading.Event()

    def paced() -> Iterator[tuple[int, bytes]]:
        for i in itertools.count():
            if over.wait(0.02):
                return
            yield i, images[i % len(images)]

    clients = [_client(port, paced(), tally) for _ in range(2)]
    try:
        yield tally
    finally:
        over.set()
        _join(clients)


def _client(port: int, work: Iterator[tuple[int, bytes]], tally: Tally) -> threading.Thread:
    """Starts a thread that posts on one connection, until the work is done or a request is lost."""

    def post() -> None:
        connection = HTTPConnection("127.0.0.1", port, timeout=60)
        for i, image in work:
            began = time.perf_counter()
            try:
                answer = _post(connection, image)
            except (OSError, HTTPException, ValueError) as error:
                tally.lost.append(repr(error))
                return
            tally.seconds.append(time.perf_counter() - began)
            tally.by.append(answer["version"])
            tally.answers[i] = answer["predictions"][0]["label"]
        connection.close()

    thread = threading.Thread(target=post)
    thread.start()
    return thread


def _join(threads: Sequence[threading.Thread]) -> None:
    for thread in threads:
        thread.join()


def _wait_for_answers_of(version: int, tally: Tally) -> None:
    deadline = time.monotonic() + 30
    while tally.versions[version] < 20:
        _check(not tally.lost, f"a request was lost: {tally.lost[:1]}")
        _check(time.monotonic() < deadline, f"no answers by version {version} within 30 s of its publication")
        time.sleep(0.05)


def _bars(answer: dict[str, Any]) -> None:
    for prediction in answer["predictions"]:
        bar = "█" * round(prediction["probability"] * 40)
        print(f"   {prediction['label']:>3}  {prediction['probability']:>6.1%}  {bar}")


if __name__ == "__main__":
    sys.exit(main())
