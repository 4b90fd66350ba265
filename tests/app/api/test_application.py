"""Pages of other origins may call the server where a setting says so, and read its errors as well."""

from typing import Any

import httpx2
import pytest

from app.engine.errors import Overloaded
from tests.support.answers import CheckProblem
from tests.support.checkpoints import png
from tests.support.engines import ScriptedEngine
from tests.support.http_side import http_side

ORIGIN = "https://page.example"
ALLOWED = "access-control-allow-origin"

pytestmark = pytest.mark.anyio


async def preflight(client: httpx2.AsyncClient, *, origin: str = ORIGIN, method: str = "POST") -> Any:
    asked = {"access-control-request-method": method, "access-control-request-headers": "content-type"}
    return await client.options("/predict", headers={"origin": origin, **asked})


async def test_it_is_off_by_default(check_problem: CheckProblem) -> None:
    async with http_side(ScriptedEngine()) as side, side.client() as client:
        answer = await client.post("/predict", files={"file": png()}, headers={"origin": ORIGIN})
        assert answer.status_code == 200
        assert not [name for name in answer.headers if name.startswith("access-control")]
        check_problem(await preflight(client), "method_not_allowed")


@pytest.mark.parametrize(("setting", "allowed"), [((ORIGIN, "http://localhost:3000"), ORIGIN), (("*",), "*")])
async def test_an_allowed_page_may_ask_send_and_read(setting: tuple[str, ...], allowed: str) -> None:
    async with http_side(ScriptedEngine(), cors_origins=setting) as side, side.client() as client:
        asked = await preflight(client)
        assert asked.status_code == 200
        assert asked.headers[ALLOWED] == allowed
        assert "POST" in asked.headers["access-control-allow-methods"]
        assert "content-type" in asked.headers["access-control-allow-headers"].lower()
        for answer in (
            await client.post("/predict", files={"file": png()}, headers={"origin": ORIGIN}),
            await client.get("/models", headers={"origin": ORIGIN}),
        ):
            assert answer.status_code == 200
            assert answer.headers[ALLOWED] == allowed
            assert {"x-request-id", "retry-after"} <= set(answer.headers["access-control-expose-headers"].split(", "))


async def test_it_may_read_what_went_wrong_too(check_problem: CheckProblem) -> None:
    engine = ScriptedEngine()
    async with http_side(engine, cors_origins=(ORIGIN,), max_upload_mb=0.001) as side, side.client() as client:
        origin = {"origin": ORIGIN}
        answers = {
            "not_found": await client.get("/nothing", headers=origin),
            "method_not_allowed": await client.get("/predict", headers=origin),
            "bad_image": await client.post("/predict", files={"file": b"x"}, headers=origin),
            "upload_too_large": await client.post("/predict", files={"file": bytes(100_000)}, headers=origin),
        }
        engine.submit_error = Overloaded("full")
        answers["overloaded"] = await client.post("/predict", files={"file": png()}, headers=origin)
        engine.submit_error = RuntimeError("a bug")
        answers["internal_error"] = await client.post("/predict", files={"file": png()}, headers=origin)
    for code, answer in answers.items():
        check_problem(answer, code)
        assert answer.headers[ALLOWED] == ORIGIN


async def test_another_page_may_not() -> None:
    async with http_side(ScriptedEngine(), cors_origins=(ORIGIN,)) as side, side.client() as client:
        other = "https://other.example"
        assert ALLOWED not in (await preflight(client, origin=other)).headers
        answer = await client.post("/predict", files={"file": png()}, headers={"origin": other})
        assert ALLOWED not in answer.headers


async def test_a_cache_is_told_that_the_answer_depends_on_the_origin() -> None:
    async with http_side(ScriptedEngine(), cors_origins=(ORIGIN,)) as side, side.client() as client:
        answer = await client.get("/models", headers={"origin": ORIGIN})
        assert "origin" in answer.headers["vary"].lower()
