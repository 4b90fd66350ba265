"""The static pages: at / the one for people, at /docs the reference of the API. They load nothing from elsewhere."""

from mimetypes import guess_type
from pathlib import Path

from fastapi import APIRouter
from starlette.responses import Response

from app.http.problems import Problem

_WEB = Path(__file__).parent.parent / "web"

# The pages need nothing but their own files, and the API beside them.
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}

router = APIRouter(include_in_schema=False)


@router.get("/")
def index() -> Response:
    """The page on which a person tries the models."""
    return _page("index.html")


@router.get("/docs")
def docs() -> Response:
    """The reference of the API."""
    return _page("docs.html")


@router.get("/web/{name}")
def asset(name: str) -> Response:
    """A script, a style sheet or a picture of those pages."""
    if name.endswith(".html") or name not in (path.name for path in _WEB.iterdir()):
        raise Problem("not_found", f"/web/{name}")
    return _page(name)


def _page(name: str) -> Response:
    # Not a FileResponse: its answers to ranges that cannot be are no problem documents, and a page needs no ranges.
    return Response((_WEB / name).read_bytes(), headers=_HEADERS, media_type=guess_type(name)[0])
