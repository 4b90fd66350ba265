"""`python -m app score` as a process: killed at any moment, and beside the server that says the same."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.support.checkpoints import checkpoint, png, publish
from tests.support.server import PATIENCE, PROJECT, ServerProcess
from tests.support.waiting import block_until

pytestmark = pytest.mark.slow

COUNT = 3000


def command(photos: Path, store: Path, out: Path, *flags: str) -> list[str]:
    asked = [str(photos), "--store", str(store), "--model", "digits", "--out", str(out), "--device", "cpu"]
    return [sys.executable, "-m", "app", "score", *asked, *flags]


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(COUNT):
        (folder / f"{i:04}.png").write_bytes(png(i % 50))
    return folder


def test_whoever_is_killed_again_and_again_has_in_the_end_each_row_once(photos: Path, tmp_path: Path) -> None:
    publish(tmp_path / "store", 1, checkpoint())
    out, parts = tmp_path / "rows.jsonl", tmp_path / "rows.jsonl.parts"
    patient = "import app.scoring.output as o; o._EVERY_SECONDS = -1.0; "  # each batch is kept at once

    def started() -> "subprocess.Popen[bytes]":
        script = f"{patient}import sys; from app.__main__ import main; sys.exit(main(sys.argv[1:]))"
        whole = command(photos, tmp_path / "store", out, "--resume")
        return subprocess.Popen([sys.executable, "-c", script, *whole[3:]], cwd=PROJECT, stdout=subprocess.DEVNULL)

    for kept in (1, 9):
        with started() as process:
            block_until(lambda: len(list(parts.glob("*.jsonl"))) >= kept or process.poll() is not None)  # noqa: B023
            process.kill()
    assert not out.exists()
    with started() as process:
        assert process.wait(PATIENCE) == 0
    assert [row["path"] for row in rows(out)] == [f"{photos}/{i:04}.png" for i in range(COUNT)]
    assert not parts.exists()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_keeps_the_rows_and_is_no_success(
    photos: Path, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    publish(tmp_path / "store", 1, checkpoint())
    for i in range(COUNT, 10 * COUNT):
        (photos / f"{i:05}.png").hardlink_to(photos / "0000.png")
    out, parts = tmp_path / "rows.jsonl", tmp_path / "rows.jsonl.parts"
    whole = command(photos, tmp_path / "store", out)
    with subprocess.Popen(whole, cwd=PROJECT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as process:
        block_until(lambda: any(parts.glob("*.jsonl")) or process.poll() is not None)
        process.send_signal(number)
        _, errors = process.communicate(timeout=PATIENCE)
    assert process.returncode == code
    assert errors.count("\n") == (number == signal.SIGINT)
    assert any(parts.glob("*.jsonl"))
    assert not out.exists()


def test_whoever_reads_no_more_ends_no_work(photos: Path, tmp_path: Path) -> None:
    publish(tmp_path / "store", 1, checkpoint())
    out = tmp_path / "rows.jsonl"
    with subprocess.Popen(
        command(photos, tmp_path / "store", out), cwd=PROJECT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.close()
        assert process.wait(PATIENCE) == 0
    assert len(rows(out)) == COUNT


def test_it_says_what_the_server_says(server: ServerProcess, client: httpx2.Client, tmp_path: Path) -> None:
    for i in range(5):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    publish(tmp_path / "store", 2, checkpoint(2))  # as the server has it
    ended = subprocess.run(
        command(tmp_path, tmp_path / "store", tmp_path / "rows.jsonl"), cwd=PROJECT, capture_output=True, check=False
    )
    assert ended.returncode == 0, ended.stderr
    for i, row in enumerate(rows(tmp_path / "rows.jsonl")):
        answer = client.post("/predict?model=digits", content=png(i), headers={"content-type": "image/png"}).json()
        result = answer["predictions"][0]
        assert row["version"] == answer["version"] == 2
        assert row["label"] == result["label"]
        assert row["probability"] == pytest.approx(result["probability"], abs=1e-5)
