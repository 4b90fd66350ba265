"""While clients post and versions are swapped, no request is lost, and every answer is that of a published version."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import httpx2
import pytest
import torch

from classifier.checkpoint import Checkpoint
from tests.support import programs
from tests.support.checkpoints import DIGITS, checkpoint, logits, png, publish, to_pixels
from tests.support.server import Event, ServerProcess, serving

pytestmark = pytest.mark.anyio

CLIENTS = 32
SWAPS = 20
IMAGE = png(5)


@pytest.mark.slow
async def test_32_clients_see_20_swaps_and_3_bad_files_without_a_failed_answer(tmp_path: Path) -> None:
    published = {1: checkpoint(seed=1)}
    whole = publish(tmp_path, 1, published[1]).read_bytes()
    with serving(tmp_path, "--device", "cpu") as server:
        async with posting(server) as answers:
            await answers.one_by(1)
            for version in range(2, SWAPS + 2):
                published[version] = checkpoint(seed=version)
                publish(tmp_path, version, published[version])
                if version % 2:  # half of them are asked for, half are left to the watcher
                    assert (await reload(server))["served_version"] == version
                await asyncio.to_thread(server.wait_for, partial(is_serving, version))
                await answers.one_by(version)
            bad: dict[int, Checkpoint | bytes] = {
                101: b"junk" * 1000,
                102: whole[: len(whole) // 2],
                103: with_other_logits(checkpoint(seed=103)),
            }
            for version, content in bad.items():
                publish(tmp_path, version, content)
                report = await reload(server, expected=409)
                assert (report["served_version"], report["changed"]) == (SWAPS + 1, False)
            ready = httpx2.get(f"{server.url}/health/ready")
        model = httpx2.get(f"{server.url}/models/digits").json()

    assert answers.failed == []
    assert ready.status_code == 200
    assert {refusal["version"]: refusal["reason"] for refusal in report["refused"]}.keys() == bad.keys()
    reasons = {each["version"]: each["reason"] for each in model["versions"] if each["state"] == "refused"}
    assert "not a safetensors file" in reasons[101]
    assert "bytes where its header says" in reasons[102]
    assert "logits are not repeated" in reasons[103]
    assert model["served_version"] == SWAPS + 1
    assert {version for version, _ in answers.seen} == published.keys()
    for version, scores in answers.seen:
        assert dict(scores) == pytest.approx(scores_of(published[version]), abs=1e-4)


@pytest.mark.slow
@pytest.mark.process
async def test_a_program_serves_on_where_others_that_were_changed_are_refused_until_a_good_one_comes(
    tmp_path: Path,
) -> None:
    published = {1: programs.checkpoint(seed=1), 9: programs.checkpoint(seed=9)}
    publish(tmp_path, 1, published[1])
    assert published[1].program is not None
    text = published[1].program.to_json()
    changed = {
        2: (text[:-1], "no sound JSON"),
        3: (text.replace(b'"op":"relu"', b'"op":"from_file"'), "there is no such operator here"),
        4: (text.replace(b'"op":"relu"', b'"op":"neg"'), "logits are not repeated"),
        5: (text.replace(b"},1568]", b"},1569]"), "cannot compute a batch"),
        6: (text.replace(b'"output":11', b'"output":12'), "the output is value 12 of 11"),
        7: (text.replace(b'[{"value":6},', b'[{"value":9},', 1), "not computed yet"),
        8: (text.replace(b'"output":11', b'"output":10'), "where [2, 10] is expected"),
    }
    with serving(tmp_path, "--device", "cpu", "--max-batch", "64") as server:
        async with posting(server) as answers:
            await answers.one_by(1)
            for version, (document, _) in changed.items():
                assert document != text
                operators = {each["op"] for each in json.loads(document)["nodes"]} if version != 2 else None
                publish(tmp_path, version, programs.file_with(published[1], document, sorted(operators or ()) or None))
                report = await reload(server, expected=409)
                assert (report["served_version"], report["changed"]) == (1, False)
            model = httpx2.get(f"{server.url}/models/digits").json()
            ready = httpx2.get(f"{server.url}/health/ready")
            publish(tmp_path, 9, published[9])
            assert (await reload(server))["served_version"] == 9
            await answers.one_by(9)

    assert answers.failed == []
    assert ready.status_code == 200
    reasons = {each["version"]: each["reason"] for each in model["versions"] if each["state"] == "refused"}
    assert reasons.keys() == changed.keys()
    for version, (_, reason) in changed.items():
        assert reason in reasons[version]
        assert reasons[version].isprintable()  # one line
    for version, scores in answers.seen:
        assert dict(scores) == pytest.approx(scores_of(published[version]), abs=1e-4)


class Answers:
    """What the clients got, with each distinct answer once."""

    def __init__(self) -> None:
        self.seen: set[tuple[int, tuple[tuple[str, float], ...]]] = set()
        self.failed: list[str] = []
        self._news = asyncio.Condition()

    async def add(self, body: dict[str, Any]) -> None:
        scores = tuple(sorted((each["label"], each["probability"]) for each in body["predictions"]))
        async with self._news:
            self.seen.add((body["version"], scores))
            self._news.notify_all()

    async def one_by(self, version: int) -> None:
        async with self._news:
            await self._news.wait_for(lambda: any(seen == version for seen, _ in self.seen))


@asynccontextmanager
async def posting(server: ServerProcess) -> AsyncIterator[Answers]:
    answers = Answers()
    over = asyncio.Event()

    async def client() -> None:
        async with httpx2.AsyncClient(base_url=server.url, timeout=60) as http:
            while not over.is_set():
                try:
                    response = await http.post("/predict?top_k=10", files={"file": IMAGE})
                except httpx2.HTTPError as error:
                    answers.failed.append(repr(error))
                    return
                if response.status_code != 200:
                    answers.failed.append(response.text)
                    return
                await answers.add(response.json())

    async with asyncio.TaskGroup() as clients:
        for _ in range(CLIENTS):
            clients.create_task(client())
        try:
            yield answers
        finally:
            over.set()


def is_serving(version: int, event: Event) -> bool:
    return event["event"] == "serving" and bool(event["version"] == version)


async def reload(server: ServerProcess, *, expected: int = 200) -> dict[str, Any]:
    async with httpx2.AsyncClient(base_url=server.url, timeout=60) as client:
        response = await client.post("/models/digits/reload")
    assert response.status_code == expected, response.text
    report: dict[str, Any] = response.json()
    return report


def with_other_logits(content: Checkpoint) -> Checkpoint:
    return replace(content, reference=replace(content.reference, logits=content.reference.logits + 1))


def scores_of(content: Checkpoint) -> dict[str, float]:
    pixels = torch.from_numpy(to_pixels(IMAGE)[None])
    scores = torch.softmax(logits(content.build(), DIGITS, pixels), dim=1)[0].tolist()
    return dict(zip(content.manifest.labels, scores, strict=True))
