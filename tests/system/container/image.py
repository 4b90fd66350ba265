"""The image, built from the Dockerfile as it is."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tests.system.container.engine import Engine
from tests.system.container.errors import CannotCheck

PROJECT = Path(__file__).parents[3]
_CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
_PACKAGES = "python3,python3-venv,ca-certificates"


def build(engine: Engine, folder: Path, *, tag: str, extras: str = "") -> None:
    """Builds the image and gives it a name.

    In an engine of our own, the base image is made by debootstrap, and no registry of images is needed. Elsewhere the
    engine has the base image, or fetches it.

    Args:
        folder: where the base system and the log of the build are kept.
        extras: what the image gets beside the core, as EXTRAS of the Dockerfile.

    Raises: CannotCheck if the base cannot be had; AssertionError if the Dockerfile does not build.
    """
    base = _base()
    if engine.is_ours and engine.call("image", "inspect", base, may_fail=True).returncode:
        _import(engine, _debootstrapped(base, folder), base)
    log = folder / "build.log"
    index = os.environ.get("PIP_INDEX_URL") or _configured_index()
    arguments = ["--build-arg", f"EXTRAS={extras}"] + (["--build-arg", f"PIP_INDEX_URL={index}"] if index else [])
    code = engine.call_to(log, "build", "--network", "host", *arguments, "--tag", tag, str(PROJECT))
    assert code == 0, "the Dockerfile does not build:\n" + "\n".join(log.read_text().splitlines()[-15:])


def _base() -> str:
    (base,) = set(re.findall(r"^FROM (\S+)", (PROJECT / "Dockerfile").read_text(), re.MULTILINE))
    return str(base)


def _configured_index() -> str:
    """Returns the package index that this machine's pip is told to use; empty for pip's default."""
    command = [sys.executable, "-m", "pip", "config", "get", "global.index-url"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def _debootstrapped(base: str, folder: Path) -> Path:
    """Returns a folder with Debian, its Python, and this machine's certificates."""
    if shutil.which("debootstrap") is None:
        raise CannotCheck("the base image is made by debootstrap, which is not there: apt-get install debootstrap")
    suite, root, log = base.rpartition("-")[2], folder / "base", folder / "debootstrap.log"
    if not (root / "etc" / "pip.conf").exists():  # which is written last
        shutil.rmtree(root, ignore_errors=True)
        with log.open("w") as file:
            command = ["debootstrap", "--variant=minbase", f"--include={_PACKAGES}", suite, str(root)]
            code = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT, check=False).returncode
        if code:
            said = (log.read_text().splitlines() or ["it says nothing"])[-1]
            raise CannotCheck(f"debootstrap cannot make {suite}, perhaps for want of a network: {said}")
        (root / "usr" / "bin" / "python").symlink_to("python3")
        if _CERTIFICATES.exists():
            shutil.copy(_CERTIFICATES, root / _CERTIFICATES.relative_to("/"))
        (root / "etc" / "pip.conf").write_text(f"[global]\ncert = {_CERTIFICATES}\n")
    return root


def _import(engine: Engine, root: Path, base: str) -> None:
    archive = root.with_suffix(".tar")
    subprocess.run(["tar", "--create", "--file", str(archive), "--directory", str(root), "."], check=True)
    try:
        engine.call("import", str(archive), base)
    finally:
        archive.unlink()
    version = engine.call("run", "--rm", "--network", "none", base, "python", "-V").stdout.split()[1]
    wanted = base.partition(":")[2].partition("-")[0]
    if not version.startswith(f"{wanted}."):
        raise CannotCheck(f"the Dockerfile wants Python {wanted}, and Debian's is {version}")
