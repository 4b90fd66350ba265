"""A server whose store is a bucket of a real S3 server: publishing, swapping, and a network that goes and comes."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from classifier.checkpoint import Checkpoint
from classifier.store.remote import RemoteStore
from tests.support.checkpoints import checkpoint, png
from tests.support.proxy import cutting_proxy
from tests.support.s3 import S3Server, s3_server
from tests.support.server import PATIENCE, PROJECT, ServerProcess, serving
from tests.support.variables import set_variables
from tests.support.waiting import until
from training.publishing.publish import publish

pytestmark = [pytest.mark.slow, pytest.mark.anyio]

FIRST, SECOND = checkpoint(), checkpoint(seed=1)
BUCKET = "models-of-a-test"
URL = f"s3://{BUCKET}/models"


@pytest.fixture
def own_s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[S3Server]:
    """A server that this test alone asks, and may kill."""
    with s3_server() as server:
        set_variables(monkeypatch, server.environment)
        server.make(BUCKET)
        yield server


@pytest.fixture
def flags(tmp_path: Path) -> list[str]:
    return ["--device", "cpu", "--front-ends", "1", "--poll-seconds", "0.2", "--cache", str(tmp_path / "cache")]


def published(content: Checkpoint) -> str:
    return publish(content, URL).removeprefix(f"{URL}/")


async def served(server: ServerProcess) -> int | None:
    """Asks for a prediction, and returns the version that answered."""
    async with httpx2.AsyncClient(base_url=server.url, timeout=PATIENCE) as client:
        answer = await client.post("/predict", content=png(), headers={"content-type": "image/png"})
        assert answer.status_code == 200, answer.text
        version: int = answer.json()["version"]
        return version


async def is_served(server: ServerProcess, version: int) -> bool:
    return await served(server) == version


async def is_said(server: ServerProcess, path: str, text: str) -> bool:
    return text in (await seen(server, path)).text


async def seen(server: ServerProcess, path: str) -> httpx2.Response:
    async with httpx2.AsyncClient(base_url=server.url, timeout=PATIENCE) as client:
        return await client.get(path)


async def test_a_version_that_is_published_is_served_without_a_restart(own_s3: S3Server, flags: list[str]) -> None:
    assert published(FIRST) == "digits/1.safetensors"
    with serving(URL, *flags) as server:
        assert await served(server) == 1
        assert published(SECOND) == "digits/2.safetensors"
        await until(lambda: is_served(server, 2))
        infos = (await seen(server, "/models/digits")).json()
        assert [(each["version"], each["state"]) for each in infos["versions"]] == [(2, "ready"), (1, "available")]


async def test_without_the_network_what_is_loaded_serves_on_and_the_reason_is_said_until_it_is_back(
    own_s3: S3Server, flags: list[str]
) -> None:
    published(FIRST)
    with serving(URL, *flags) as server:
        own_s3.stop()
        await until(lambda: is_said(server, "/metrics", "flambeau_store_unreadable 1.0"))
        await until(lambda: is_said(server, "/models", "it cannot be read"))
        assert await served(server) == 1
        assert (await seen(server, "/health/ready")).status_code == 200
        own_s3.start_again()  # as if the bucket had been deleted
        await until(lambda: is_said(server, "/metrics", "flambeau_store_unreadable 1.0"))
        assert await served(server) == 1
        own_s3.make(BUCKET)
        for content in (FIRST, SECOND):
            published(content)
        await until(lambda: is_served(server, 2))
        await until(lambda: is_said(server, "/metrics", "flambeau_store_unreadable 0.0"))


async def test_a_server_that_is_started_without_the_network_serves_from_its_cache(
    own_s3: S3Server, flags: list[str]
) -> None:
    published(FIRST)
    with serving(URL, *flags) as server:
        assert await served(server) == 1
    own_s3.stop()
    with serving(URL, *flags) as server:
        assert await served(server) == 1
        assert await is_said(server, "/models", "it cannot be read")


async def test_a_damaged_object_is_refused_and_what_serves_goes_on(
    own_s3: S3Server, flags: list[str], tmp_path: Path
) -> None:
    published(FIRST)
    with serving(URL, *flags) as server:
        SECOND.save(tmp_path / "file")
        whole = (tmp_path / "file").read_bytes()
        (tmp_path / "file").write_bytes(whole[:-4] + b"junk")
        RemoteStore(URL).create("digits", "2.safetensors", content=tmp_path / "file")
        await until(lambda: is_said(server, "/models", "does not match its hash"))
        assert await served(server) == 1


async def test_an_object_that_is_cut_off_on_its_way_is_fetched_again_when_it_can_be(
    own_s3: S3Server, flags: list[str], tmp_path: Path
) -> None:
    published(FIRST)
    with cutting_proxy(own_s3.port) as proxy:
        environment = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{proxy.port}"}
        with serving(URL, *flags, environment=environment) as server:
            assert await served(server) == 1
            proxy.bytes_left = 100_000  # the header is shorter, and the weights are longer than five times that
            published(SECOND)
            await until(lambda: is_said(server, "/models", "cannot be read"))
            assert await served(server) == 1
            assert list((tmp_path / "cache").glob("*.part")) == []
            proxy.bytes_left = None
            await until(lambda: is_served(server, 2))


@pytest.mark.parametrize("front_ends", ["0", "1"])
def test_a_store_that_takes_connections_and_never_answers_does_not_hold_up_the_end(
    own_s3: S3Server, flags: list[str], front_ends: str
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(PATIENCE)
        environment = {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{silent.getsockname()[1]}"}
        command = [sys.executable, "-m", "app", "--store", URL, "--port", "0", *flags, "--front-ends", front_ends]
        with subprocess.Popen(
            command, cwd=PROJECT, env={**os.environ, **environment}, stderr=subprocess.PIPE
        ) as process:
            asked, _ = silent.accept()
            with asked:
                process.send_signal(signal.SIGTERM)
                _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 0
    assert b"killing" not in said
