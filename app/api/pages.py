"""The static pages: the one for people at /, the reference of the API at /docs. Nothing comes from elsewhere."""

from pathlib import Path

from fastapi import APIRouter
from starlette.responses import FileResponse, Response

from app.api.errors import Problem

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
async def index() -> Response:
    return FileResponse(_WEB / "index.html", headers=_HEADERS)


@router.get("/docs")
async def docs() -> Response:
    return FileResponse(_WEB / "docs.html", headers=_HEADERS)


@router.get("/web/{name}")
async def asset(name: str) -> Response:
    """A script, a style sheet or a picture; the folder is flat, so a name is all there is to check."""
    path = _WEB / name
    if path.parent != _WEB or path.suffix not in (".js", ".css", ".svg") or not path.is_file():
        raise Problem("not_found", f"/web/{name}")
    return FileResponse(path, headers=_HEADERS)
