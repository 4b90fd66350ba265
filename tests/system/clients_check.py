"""Generates clients of /openapi.json with the usual generators, and checks the types of what they generate.

    python -m tests.system.clients_check      or: make clients-check

It takes a minute, and needs Node and a package index, so it is no test of the suite. Where it cannot run, it says why
in one line, and the exit code is 0. It is 1 where a client cannot be generated or used. Everything is written to a
temporary folder.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path

from starlette.testclient import TestClient

from app.api.application import create_app
from app.settings import Settings
from app.telemetry.metrics import Metrics
from tests.support.engines import ScriptedEngine

# Of one time, and of Node 20 as well: newer ones of openapi-ts want Node 22.18, and no TypeScript from 7 on.
NPM = {"orval": "8.38.0", "@hey-api/openapi-ts": "0.90.0", "typescript": "5.9.3"}
PIP = ("openapi-python-client==0.29.1",)
NODE = (20, 19)

TSCONFIG = {
    "compilerOptions": {
        "strict": True,
        "noEmit": True,
        "skipLibCheck": True,
        "target": "es2022",
        "module": "esnext",
        "moduleResolution": "bundler",
        "lib": ["es2022", "dom", "dom.iterable"],
    }
}
# What a person would write with each client.
USE_TS = """
import * as orval from "./orval/api";
import * as hey from "./hey";

const image = new Blob([new Uint8Array([1])]);
export const answers = [
  orval.predict({ file: [image] }, { top_k: 3 }),
  hey.predict({ body: { file: [image] }, query: { top_k: 3 } }),
];
"""
USE_PY = """
from io import BytesIO

from flambeau_client import Client
from flambeau_client.api.predict import predict
from flambeau_client.models import PredictBody
from flambeau_client.types import File

body = PredictBody(file=[File(payload=BytesIO(b""), file_name="seven.png")])
answer = predict.sync(client=Client("http://127.0.0.1:8000"), body=body, top_k=3)
"""


class CannotRun(Exception):
    """Something that the check needs is not there."""


def main() -> int:
    try:
        _require_node()
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            (folder / "openapi.json").write_text(openapi())
            _typescript(folder)
            _python(folder)
    except CannotRun as reason:
        print(f"clients-check cannot run here: {reason}")
        return 0
    except subprocess.CalledProcessError as error:
        print(f"{error.stdout}\nclients-check: failed: {' '.join(map(str, error.cmd[:4]))}", file=sys.stderr)
        return 1
    print(
        "clients-check: the clients of orval, openapi-ts and openapi-python-client are generated, and their types fit"
    )
    return 0


def openapi() -> str:
    """Returns /openapi.json, as a server answers it."""
    with TestClient(create_app(ScriptedEngine(), Settings(), Metrics()).asgi) as client:
        return client.get("/openapi.json").text


def _require_node() -> None:
    for program in ("node", "npm"):
        if shutil.which(program) is None:
            raise CannotRun(f"there is no {program}")
    found = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout.strip()
    if tuple(map(int, re.findall(r"\d+", found)[:2])) < NODE:
        raise CannotRun(f"Node {found} is older than {'.'.join(map(str, NODE))}")


def _typescript(folder: Path) -> None:
    (folder / "package.json").write_text(json.dumps({"private": True, "type": "module", "devDependencies": NPM}))
    (folder / "tsconfig.json").write_text(json.dumps(TSCONFIG))
    (folder / "use.ts").write_text(USE_TS)
    _install("npm", ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"], folder)
    run = ["npx", "--no-install"]
    _run([*run, "orval", "--input", "openapi.json", "--output", "orval/api.ts", "--client", "fetch"], folder)
    _run([*run, "openapi-ts", "-i", "openapi.json", "-o", "hey", "-c", "@hey-api/client-fetch"], folder)
    _run([*run, "tsc", "--project", "."], folder)


def _python(folder: Path) -> None:
    environment = folder / "venv"
    venv.create(environment, with_pip=True)
    binaries = environment / "bin"
    _install("pip", [binaries / "python", "-m", "pip", "install", "--quiet", *PIP], folder)
    _run([binaries / "openapi-python-client", "generate", "--path", "openapi.json", "--output-path", "python"], folder)
    (folder / "python" / "use.py").write_text(USE_PY)
    mypy: list[str | Path] = [sys.executable, "-m", "mypy", "--strict", "--python-executable", binaries / "python"]
    _run([*mypy, "flambeau_client", "use.py"], folder / "python")


def _install(name: str, command: list[str | Path], folder: Path) -> None:
    try:
        _run(command, folder)
    except subprocess.CalledProcessError as error:
        lines = error.stdout.strip().splitlines()
        raise CannotRun(f"{name} cannot install what is needed: {lines[-1] if lines else 'it says nothing'}") from error


def _run(command: list[str | Path], folder: Path) -> None:
    """Raises: CalledProcessError, with all that the program has said as `stdout`."""
    path = f"{folder / 'venv' / 'bin'}{os.pathsep}{os.environ['PATH']}"  # the Python generator formats with ruff
    subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, "PATH": path},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=True,
    )


if __name__ == "__main__":
    sys.exit(main())
