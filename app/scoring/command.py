"""Runs `python -m app score`: flags, one line for what goes wrong, and an exit code."""

import argparse
import hashlib
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from importlib.metadata import version
from importlib.util import find_spec
from typing import NoReturn

from rich.console import Console

from app.lifecycle.stores import storage_of
from app.scoring.errors import ScoringError
from app.scoring.model import Chosen, choose
from app.scoring.output import Output
from app.scoring.rows import COLUMNS, ScoredRow
from app.scoring.setup import DECIDING, Setup
from app.scoring.sources import Found, Source, find
from app.settings import Settings, SettingsError
from classifier.cores import find_cores, usable_cores
from classifier.header import CheckpointError
from classifier.paths import typed_path
from classifier.progress import Progress

# Flags of the server that mean the same here.
_OF_THE_SERVER = {
    "store": "where the published checkpoints are: a folder or a URL (default: models_store)",
    "cache": "the folder for what is fetched of a store behind a URL (default: ~/.cache/flambeau)",
    "cache-gb": "how many gigabytes the cache may have (default: 20)",
    "device": "cuda, cuda:1, mps or cpu (default: the first that is there)",
    "precision": "fp32, or bf16, which is quicker and not quite as exact (default: fp32)",
    "max-megapixels": "how many megapixels one image may have (default: 50)",
}
_SWITCHES = {
    "compile": "compile the network with torch.compile first",
    "jpeg-draft": "decode large JPEGs at a half, a quarter or an eighth of their size: quicker, and not quite the same",
}
_BATCH = 32  # images that a thread decodes and computes at once
_INTERRUPTED = 130  # what a shell reports for Ctrl-C


def main(arguments: Sequence[str]) -> int:
    """Scores images, and returns the exit code.

    It is 0 if all went well, 1 if every image failed, 2 for what has to be put right first, and 130 for Ctrl-C. Trouble
    is one line on standard error.
    """
    parsed = parser().parse_args(arguments)
    warnings.filterwarnings("ignore", module="PIL")  # what Pillow finds odd, but reads
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")
    find_cores().bound_libraries(os.environ)
    try:
        settings = Settings.read(_settings_of(parsed))
        return _score(parsed, settings, Progress(_Console()))
    except CheckpointError as error:
        return _fail(f"the model cannot be used: {error}", 2)
    except (ScoringError, SettingsError, ImportError, ValueError, RuntimeError, MemoryError) as error:
        # The latter ones if the device is not there, a package, or memory on either.
        return _fail(str(error) or type(error).__name__, 2)
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        return _fail(f"{error.strerror or error}{where}", 2)
    except KeyboardInterrupt:
        return _fail("interrupted: the same command and --resume goes on", _INTERRUPTED)


class _Console(Console):
    """Writes to nobody once nobody reads any more: that ends no work."""

    def on_broken_pipe(self) -> None:
        self.quiet = True
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the flags. It ends the process with 2 and one line for what it cannot read."""
    flags = _Parser(
        prog="python -m app score",
        description="Scores images offline, each once: one row for each, in their order, with "
        f"{', '.join(COLUMNS)}. Example: python -m app score photos/ --model birds --out birds.parquet",
        allow_abbrev=False,
    )
    flags.add_argument(
        "inputs",
        nargs="+",
        metavar="INPUT",
        help="a folder, an image, a .txt with a path in each line, a .csv or .tsv with a column path, a .tar, or a URL "
        "of a folder, such as s3://bucket/photos",
    )
    flags.add_argument("--model", metavar="NAME[@VERSION]", help="default: the store's only model, its newest version")
    flags.add_argument("--out", required=True, type=typed_path, metavar="FILE", help=".parquet, .csv or .jsonl")
    flags.add_argument(
        "--top-k", type=_positive, default=5, metavar="K", help="likeliest classes in a row (default: 5)"
    )
    flags.add_argument("--resume", action="store_true", help="go on with what the same command has begun")
    flags.add_argument("--ray", metavar="ADDRESS", help="score on a Ray cluster: auto, or host:port of its head")
    flags.add_argument(
        "--threads", type=_positive, metavar="N", help="batches at the same time (default: one per core)"
    )
    for name, text in _OF_THE_SERVER.items():
        flags.add_argument(f"--{name}", default=argparse.SUPPRESS, help=text)
    for name, text in _SWITCHES.items():
        flags.add_argument(f"--{name}", action="store_true", default=argparse.SUPPRESS, help=text)
    return flags


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 10_000):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number from 1 to 9999")
    return int(text)


def _settings_of(parsed: argparse.Namespace) -> list[str]:
    """Returns the flags that are the server's as the server reads them."""
    given = vars(parsed)
    flags = [f"--{name}={given[key]}" for name in _OF_THE_SERVER if (key := name.replace("-", "_")) in given]
    return flags + [f"--{name}" for name in _SWITCHES if name.replace("-", "_") in given]


def _score(parsed: argparse.Namespace, settings: Settings, progress: Progress) -> int:
    if parsed.resume and Output.is_complete(parsed.out):
        progress.say(f"{parsed.out} is complete: nothing is left to do")
        return 0
    chosen = choose(storage_of(settings), parsed.model)
    found = find(parsed.inputs)
    _say_left_out(found, parsed.inputs, progress)
    setup = Setup(
        version=chosen.version,
        top_k=parsed.top_k,
        device=settings.device if parsed.ray else _device(settings.device),
        precision=settings.precision,
        max_pixels=int(settings.max_megapixels * 1e6),
        draft=settings.jpeg_draft,
        compiled=settings.compile,
        batch=_BATCH,
    )
    with Output.opened(parsed.out, _about(found, chosen, setup), resume=parsed.resume) as output:
        total = len(found.sources)
        if output.rows:
            progress.say(f"resumed after {output.rows:,} of {total:,} images")
        batches = _rows(found.sources[output.rows :], chosen, setup, parsed.threads, parsed.ray)
        title = f"scoring with {chosen.model}@{chosen.version}"
        with progress.step(title, total=total - output.rows, unit="images") as advance:
            failed = 0
            try:
                for rows in batches:
                    output.add(rows)
                    failed += sum(row["error"] is not None for row in rows)
                    advance(len(rows), f"{failed:,} failed" if failed else "")
            finally:  # after Ctrl-C too
                output.keep()
        failed = output.finish()
    progress.say(
        f"wrote {parsed.out}: {total:,} rows" + (f", {failed:,} of them say why there is no answer" if failed else "")
    )
    return 1 if failed == total else 0


def _rows(
    sources: Sequence[Source], chosen: Chosen, setup: Setup, threads: int | None, ray: str | None
) -> Iterator[list[ScoredRow]]:
    # Here, not above: flags and files are checked without waiting for torch.
    if ray is not None:
        if find_spec("ray") is None:
            raise ScoringError("--ray needs more than is installed: pip install 'flambeau[ray]'")
        from app.scoring.ray_data import scored_by_ray

        return scored_by_ray(ray, sources, chosen, setup)
    from app.scoring.pipeline import scored
    from app.scoring.scorer import Scorer

    return scored(Scorer(chosen.file, setup, threads=threads or usable_cores()), sources)


def _device(name: str) -> str:
    """Returns which device `auto` is here: rows of one are not gone on with on another. Raises: ValueError."""
    from classifier.device import select_device  # which imports torch

    return str(select_device(name))


def _say_left_out(found: Found, inputs: Sequence[str], progress: Progress) -> None:
    if not found.sources:
        raise ScoringError(f"there is no image in {', '.join(inputs)}")
    if found.left_out:
        progress.say(f"left out: {found.left_out:,} files that are not called like images")
    if found.repeated:
        progress.say(f"named more than once: {found.repeated:,} images, each of which is scored once")


def _about(found: Found, chosen: Chosen, setup: Setup) -> dict[str, object]:
    """Returns all that decides the rows, by what a person calls it. The content of images is not looked at."""
    listed = hashlib.sha256(
        "\0".join("\0".join(map(str, each)) for each in found.sources).encode(errors="surrogateescape")
    )
    decides = {f"--{name.replace('_', '-')}": value for name, value in asdict(setup).items() if name != "version"}
    return {
        "list of images": listed.hexdigest()[:16],
        "model": f"{chosen.model}@{chosen.version} {chosen.sha256[:16]}",
        **decides,
        **{f"version of {name}": version(name) for name in DECIDING},
    }


def _fail(message: str, code: int) -> int:
    print(f"python -m app score: {' '.join(message.split())}", file=sys.stderr)
    return code
