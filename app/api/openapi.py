"""The OpenAPI document: FastAPI's own, with the errors, and with the hot route, which FastAPI does not see."""

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from pydantic.json_schema import models_json_schema

from app.api.multipart import FIELD
from app.api.openapi_examples import ANSWERS, DETAILS, ONE_IMAGE, SEVERAL_IMAGES
from app.api.predict import PATH
from app.api.prediction import TOP_K
from app.api.schemas import AnswerBody, AnswersBody, ProblemBody
from app.http.problems import PROBLEM_TYPE, PROBLEMS

_SCHEMA = "#/components/schemas/"

_IMAGES = """JPEG, PNG, WebP, GIF, BMP or TIFF; of an animated image the first frame counts.

The bytes of one image may also be the whole body, of any content type or none: `curl --data-binary @seven.png`. In a
form without a field `file`, the files count that all have one other name."""

_PREDICT_PROBLEMS = (
    "bad_multipart",
    "no_file",
    "model_not_found",
    "version_not_found",
    "version_not_loaded",
    "upload_too_slow",
    "upload_too_large",
    "too_many_files",
    "too_many_pixels",
    "unsupported_content_type",
    "unsupported_content_encoding",
    "unsupported_format",
    "bad_image",
    "bad_parameter",
    "ambiguous_model",
    "prediction_failed",
    "overloaded",
    "not_ready",
    "draining",
    "behind",
    "deadline_exceeded",
)


def problems(*codes: str, **details: str) -> dict[int | str, dict[str, Any]]:
    """Returns the error responses of a route, by status, with an example for each code.

    Args:
        details: the details, by code, of examples that differ from those in `DETAILS`.
    """
    responses: dict[int | str, dict[str, Any]] = {}
    for code in codes:
        status, title = PROBLEMS[code]
        response = responses.setdefault(
            status,
            {
                "description": "",
                "content": {PROBLEM_TYPE: {"schema": {"$ref": f"{_SCHEMA}ProblemBody"}, "examples": {}}},
            },
        )
        response["description"] = "; ".join(filter(None, (response["description"], title)))
        response["content"][PROBLEM_TYPE]["examples"][code] = {
            "value": {
                "type": "about:blank",
                "title": title,
                "status": status,
                "detail": details.get(code, DETAILS[code]),
                "code": code,
                "request_id": "6f1d0c9b2a3e4f58",
            }
        }
    return responses


def document(api: FastAPI) -> dict[str, Any]:
    """Returns the OpenAPI document of everything that is served. It is made once."""
    if api.openapi_schema is None:
        whole = get_openapi(
            title=api.title, version=api.version, summary=api.summary, description=api.description, routes=api.routes
        )
        ours = models_json_schema(
            [(body, "serialization") for body in (AnswerBody, AnswersBody, ProblemBody)],
            ref_template=_SCHEMA + "{model}",
        )[1]["$defs"]
        schemas = whole.setdefault("components", {}).setdefault("schemas", {})
        schemas.update(ours)
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        whole["paths"] = {PATH: {"post": _predict()}, **whole["paths"]}
        for operations in whole["paths"].values():
            for operation in operations.values():
                _complete(operation)
        api.openapi_schema = whole
    return api.openapi_schema


def _complete(operation: dict[str, Any]) -> None:
    """Adds examples to the answers of one operation, and the errors that any request may meet."""
    responses = operation["responses"]
    if responses.get("422", {}).get("description") == "Validation Error":
        del responses["422"]  # FastAPI's own, for a parameter that is just any text
    for status, response in responses.items():
        if (example := ANSWERS.get((operation["operationId"], int(status)))) is not None:
            response["content"]["application/json"]["example"] = example
    codes = ("bad_request", "header_too_large", "internal_error")
    examples = {
        code: example
        for response in problems(*codes).values()
        for code, example in response["content"][PROBLEM_TYPE]["examples"].items()
    }
    responses["default"] = {
        "description": "Any other error, in the same form",
        "content": {PROBLEM_TYPE: {"schema": {"$ref": f"{_SCHEMA}ProblemBody"}, "examples": examples}},
    }


def _predict() -> dict[str, Any]:
    binary = {"type": "string", "format": "binary"}
    form = {
        "type": "object",
        "required": [FIELD],
        "properties": {FIELD: {"type": "array", "items": binary, "minItems": 1, "description": "one image or several"}},
    }
    return {
        "tags": ["predict"],
        "operationId": "predict",
        "summary": "Predict",
        "description": "Classifies one image, or several in one form. Of several, each is answered on its own. "
        "`PUT` does the same as `POST`.",
        "parameters": [
            _parameter("model", {"type": "string"}, "which model; the default one, or the only one, if left out"),
            _parameter("version", {"type": "integer", "minimum": 1}, "which version; the served one if left out"),
            _parameter(
                "top_k",
                {"type": "integer", "minimum": 1, "default": TOP_K},
                "how many predictions; all classes if there are fewer",
            ),
            _parameter(
                "Flambeau-Min-Version",
                {"type": "integer", "minimum": 1},
                "the least version that may answer, for clients of several servers: one that is behind answers 503 "
                "`behind`, and another try meets another server; a `version` that is named is answered all the same",
                place="header",
            ),
        ],
        "requestBody": {
            "required": True,
            "description": _IMAGES,
            # One type alone: of several, generators of clients make parameters that exclude one another.
            "content": {"multipart/form-data": {"schema": form}},
        },
        "responses": {
            "200": {
                "description": "The predictions, the likeliest first",
                "content": {
                    "application/json": {
                        "schema": {"anyOf": [{"$ref": f"{_SCHEMA}AnswerBody"}, {"$ref": f"{_SCHEMA}AnswersBody"}]},
                        "examples": {"one image": {"value": ONE_IMAGE}, "several images": {"value": SEVERAL_IMAGES}},
                    }
                },
            },
            **{str(status): response for status, response in problems(*_PREDICT_PROBLEMS).items()},
        },
    }


def _parameter(name: str, schema: dict[str, Any], description: str, place: str = "query") -> dict[str, Any]:
    return {"name": name, "in": place, "required": False, "schema": schema, "description": description}
