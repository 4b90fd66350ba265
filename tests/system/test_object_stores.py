"""A server whose store is a container of Azure, or a bucket of Google; `test_s3.py` has what can go wrong."""

from pathlib import Path

import httpx2
import pytest

from classifier.store.remote import RemoteStore
from tests.support.azure import AzureServer
from tests.support.checkpoints import checkpoint, png
from tests.support.google import GoogleServer
from tests.support.server import PATIENCE, ServerProcess, serving
from tests.support.waiting import until
from training.__main__ import main
from training.publishing.publish import publish

pytestmark = [pytest.mark.slow, pytest.mark.process, pytest.mark.cluster, pytest.mark.anyio]


async def served(server: ServerProcess) -> int:
    async with httpx2.AsyncClient(base_url=server.url, timeout=PATIENCE) as client:
        answer = await client.post("/predict", content=png(), headers={"content-type": "image/png"})
        assert answer.status_code == 200, answer.text
        return int(answer.json()["version"])


@pytest.mark.parametrize("kind", ["azure", "google"])
async def test_a_version_that_is_published_is_served_and_the_oldest_can_be_pruned(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    there: AzureServer | GoogleServer = request.getfixturevalue(kind)
    url = there.new_url()
    assert publish(checkpoint(), url) == f"{url}/digits/1.safetensors"
    flags = ["--device", "cpu", "--front-ends", "0", "--poll-seconds", "0.2", "--cache", str(tmp_path / "cache")]
    with serving(url, *flags) as server:
        assert await served(server) == 1
        assert publish(checkpoint(seed=1), url) == f"{url}/digits/2.safetensors"

        async def is_taken() -> bool:
            return await served(server) == 2

        await until(is_taken)
    assert main(["prune", "digits", "--keep", "1", "--store", url]) == 0
    assert [entry.name for entry in RemoteStore(url).entries("digits")] == ["2.safetensors"]
