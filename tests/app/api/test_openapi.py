"""/openapi.json is true: its examples fit its schemas, and so does whatever the server really answers."""

import re
from collections.abc import Iterator
from typing import Any

import httpx2
import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]
from PIL import Image

from app.engine.errors import DeadlineExceeded, Draining, NotReady, Overloaded
from app.engine.predictions import ItemAnswer, ItemError, Prediction
from app.http.problems import PROBLEM_TYPE, PROBLEMS
from tests.support.answers import MAX_FILES, Answer
from tests.support.checkpoints import png
from tests.support.engines import ScriptedEngine
from tests.support.http_side import HttpSide, http_side
from tests.support.images import encoded
from tests.support.raw import request

METHODS = {"get", "put", "post", "delete", "options", "head", "patch", "trace"}


class Document:
    """What /openapi.json says."""

    def __init__(self, content: dict[str, Any]) -> None:
        self.content = content
        self.operations: dict[str, dict[str, Any]] = {
            operation["operationId"]: operation
            for path in content["paths"].values()
            for method, operation in path.items()
            if method in METHODS
        }

    def check(self, value: object, schema: dict[str, Any]) -> None:
        """Nothing may be missing, and nothing may be there that the document does not tell of."""
        schemas = {
            name: {"additionalProperties": False, **body} if "properties" in body else body
            for name, body in self.content["components"]["schemas"].items()
        }
        Draft202012Validator({**schema, "components": {"schemas": schemas}}).validate(value)

    def check_answer(self, operation: str, answer: Answer) -> tuple[str, int, str]:
        """Whether the answer is one that the operation is said to give; operation, status and code of it."""
        responses = self.operations[operation]["responses"]
        response = responses.get(str(answer.status_code), responses["default"])
        media_type = answer.headers["content-type"].partition(";")[0]
        schema = response["content"][media_type]["schema"]
        is_json = media_type.endswith("json")
        self.check(answer.json() if is_json else "text", schema)
        code = answer.json()["code"] if media_type == PROBLEM_TYPE else "-"
        return operation, answer.status_code, code

    def examples(self) -> Iterator[tuple[str, object, dict[str, Any]]]:
        """Each one that stands beside a schema: where, the example, the schema."""
        for name, operation in self.operations.items():
            for parameter in operation.get("parameters", ()):
                if "example" in parameter:
                    yield f"{name} {parameter['name']}", parameter["example"], parameter["schema"]
            for status, response in operation["responses"].items():
                for media in response.get("content", {}).values():
                    given = {"example": {"value": media["example"]}} if "example" in media else {}
                    for title, example in {**media.get("examples", {}), **given}.items():
                        yield f"{name} {status} {title}", example["value"], media["schema"]
        for name, schema in self.content["components"]["schemas"].items():
            for field, inner in schema.get("properties", {}).items():
                for example in inner.get("examples", ()):
                    yield f"{name}.{field}", example, inner


@pytest.fixture
def document(client: httpx2.Client) -> Document:
    answer = client.get("/openapi.json")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/json")
    return Document(answer.json())


class TestOperations:
    def test_every_route_that_is_no_page_is_there(self, document: Document) -> None:
        assert set(document.operations) == {
            "predict",
            "listModels",
            "getModel",
            "reloadModel",
            "live",
            "ready",
            "metrics",
        }

    def test_each_has_an_id_of_its_own_that_a_generator_can_make_a_name_of(self, document: Document) -> None:
        count = sum(method in METHODS for path in document.content["paths"].values() for method in path)
        assert len(document.operations) == count
        assert all(re.fullmatch(r"[a-z][A-Za-z]{2,30}", name) for name in document.operations)

    def test_each_takes_one_type_of_body_at_the_most(self, document: Document) -> None:
        """Of several, orval makes parameters whose code does not compile; see `tests/system/clients_check.py`."""
        bodies = {name: each["requestBody"] for name, each in document.operations.items() if "requestBody" in each}
        assert {name: list(body["content"]) for name, body in bodies.items()} == {"predict": ["multipart/form-data"]}
        assert "any content type" in bodies["predict"]["description"]

    def test_each_says_what_it_is_and_what_it_answers(self, document: Document) -> None:
        for name, operation in document.operations.items():
            assert operation["summary"], name
            assert operation["description"].endswith("."), name
            assert len(operation["tags"]) == 1, name
            for parameter in operation.get("parameters", ()):
                assert parameter["description"], (name, parameter["name"])
            for status, response in operation["responses"].items():
                assert response["description"], (name, status)
                assert response["content"], (name, status)

    def test_every_error_is_a_problem_document(self, document: Document) -> None:
        for name, operation in document.operations.items():
            for status, response in operation["responses"].items():
                if status == "default" or (int(status) >= 400 and (name, status) != ("reloadModel", "409")):
                    assert set(response["content"]) == {PROBLEM_TYPE}, (name, status)

    def test_every_code_is_one_that_there_is_and_stands_under_its_status(self, document: Document) -> None:
        for name, operation in document.operations.items():
            for status, response in operation["responses"].items():
                for code, example in response["content"].get(PROBLEM_TYPE, {}).get("examples", {}).items():
                    value = example["value"]
                    assert (value["status"], value["title"], value["code"]) == (*PROBLEMS[code], code), (name, status)
                    assert status in ("default", str(value["status"]))

    def test_every_schema_that_is_named_is_there_and_none_is_for_nothing(self, document: Document) -> None:
        named = set(re.findall(r"#/components/schemas/(\w+)", str(document.content)))
        assert named == set(document.content["components"]["schemas"])


class TestExamples:
    def test_each_fits_its_schema(self, document: Document) -> None:
        examples = list(document.examples())
        assert len(examples) > 50
        for where, example, schema in examples:
            try:
                document.check(example, schema)
            except Exception as error:
                raise AssertionError(where) from error

    def test_every_answer_in_json_has_one(self, document: Document) -> None:
        for name, operation in document.operations.items():
            for status, response in operation["responses"].items():
                for kind, media in response["content"].items():
                    assert kind == "text/plain" or "example" in media or media.get("examples"), (name, status)

    def test_the_first_answer_of_predict_is_of_one_image_and_the_second_of_several(self, document: Document) -> None:
        examples = document.operations["predict"]["responses"]["200"]["content"]["application/json"]["examples"]
        assert [list(example["value"]) for example in examples.values()] == [
            ["model", "version", "predictions", "in_distribution", "score"],
            ["model", "version", "results"],
        ]


def form(*contents: bytes) -> Any:
    return [("file", (f"{i}.png", content)) for i, content in enumerate(contents)]


def from_the_real_server(document: Document, client: httpx2.Client) -> Iterator[tuple[str, int, str]]:
    one = form(png())
    raw = {"content-type": "image/png"}

    def predict(query: str = "?model=digits", **what: Any) -> tuple[str, int, str]:
        return document.check_answer("predict", client.post(f"/predict{query}", **what))

    yield predict(files=one)
    yield predict(files=form(png(), b"no image"))
    yield predict(files=form(b"no image", b"no image"))
    yield predict(content=png(), headers=raw)
    yield predict(content=b"", headers={"content-type": "multipart/form-data"})
    yield predict(content=b"", headers=raw)
    yield predict("?model=none", files=one)
    yield predict("?model=digits&version=9", files=one)
    yield predict("?model=digits&version=1", files=one)
    yield predict(content=bytes(1_000_001), headers=raw)
    yield predict(files=form(*[png()] * (MAX_FILES + 1)))
    yield predict(files=form(encoded(Image.new("L", (1001, 1000)))))
    yield predict(content=b"x", headers={"content-type": "text/plain"})
    yield predict(content=b"x", headers={**raw, "content-encoding": "gzip"})
    yield predict(files=form(b"%PDF"))
    yield predict(files=form(b"no image"))
    yield predict("?top_k=0", files=one)
    yield predict("", files=one)
    yield predict(files=one, headers={"Flambeau-Min-Version": "3"})
    for operation, method, path in [
        ("listModels", "GET", "/models"),
        ("getModel", "GET", "/models/digits"),
        ("getModel", "GET", "/models/none"),
        ("reloadModel", "POST", "/models/letters/reload"),
        ("reloadModel", "POST", "/models/digits/reload"),
        ("reloadModel", "POST", "/models/none/reload"),
        ("live", "GET", "/health/live"),
        ("ready", "GET", "/health/ready"),
        ("metrics", "GET", "/metrics"),
    ]:
        yield document.check_answer(operation, client.request(method, path))


async def from_an_engine_that_fails(
    document: Document, side: HttpSide, engine: ScriptedEngine
) -> set[tuple[str, int, str]]:
    seen = set()
    async with side.client() as client:
        for error in (
            Overloaded("full"),
            NotReady("empty"),
            Draining("ends"),
            DeadlineExceeded("late"),
            RuntimeError("a bug"),
        ):
            engine.submit_error = error
            seen.add(document.check_answer("predict", await client.post("/predict", files=form(png()))))
        engine.outcome = ItemAnswer((Prediction("7", 7, 0.9),), score=-1.5, in_distribution=False)
        for files in (form(png()), form(png(), b"no image")):
            seen.add(document.check_answer("predict", await client.post("/predict", files=files)))
        engine.outcome = ItemError("prediction_failed", "the scores are not finite")
        seen.add(document.check_answer("predict", await client.post("/predict", files=form(png()))))
        document.check_answer("predict", await client.post("/predict", files=form(png(), png())))
        engine.ready = False
        seen.add(document.check_answer("ready", await client.get("/health/ready")))
        for error in (NotReady("empty"), Draining("ends"), DeadlineExceeded("late"), RuntimeError("a bug")):
            engine.error = error
            seen.add(document.check_answer("reloadModel", await client.post("/models/digits/reload")))
    async with side.connection() as slow:
        await slow.send(request(content_type="image/png", content_length="9") + b"x")
        seen.add(document.check_answer("predict", await slow.response()))
    async with side.connection() as garbage:
        await garbage.send(b"garbage\r\n\r\n")
        seen.add(document.check_answer("predict", await garbage.response()))
    async with side.client() as client:
        side.server.drain()
        seen.add(document.check_answer("ready", await client.get("/health/ready")))
    return seen


@pytest.mark.anyio
async def test_every_documented_answer_is_really_given_in_the_documented_form(
    document: Document, client: httpx2.Client, caplog: pytest.LogCaptureFixture
) -> None:
    seen = set(from_the_real_server(document, client))
    engine = ScriptedEngine()
    async with http_side(engine, upload_seconds=0.05) as side:
        seen |= await from_an_engine_that_fails(document, side, engine)
    documented = {
        (name, int(status), code)
        for name, operation in document.operations.items()
        for status, response in operation["responses"].items()
        if status != "default"
        for code in response["content"].get(PROBLEM_TYPE, {}).get("examples", {"-": None})
    }
    undocumented = {
        (name, PROBLEMS[code][0], code) for name, _, code in seen if code in ("internal_error", "bad_request")
    }
    assert seen - undocumented == documented
    assert len(undocumented) == 3  # what stands under "default"


class TestDocs:
    def test_it_asks_nothing_of_any_other_origin(self, client: httpx2.Client) -> None:
        page = client.get("/docs")
        assert page.headers["content-type"].startswith("text/html")
        names = re.findall(r'(?:href|src)="([^"]+)"', page.text)
        for name in names:
            assert "//" not in name
            if name.startswith("web/"):
                asset = client.get(f"/{name}")
                assert asset.status_code == 200
                for address in re.findall(r"https?://[^\s\"'`)]+", asset.text):
                    assert address.startswith(("http://www.w3.org/", "https://www.w3.org/")), (name, address)
        assert any(name.startswith("web/") for name in names)

    @pytest.mark.parametrize("path", ["/", "/docs", "/web/style.css"])
    def test_a_browser_would_not_let_it_either(self, client: httpx2.Client, path: str) -> None:
        policy = client.get(path).headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self'; style-src 'self'")
        assert "http" not in policy
        assert "unsafe" not in policy
