"""The command line: `python -m training strokes|mnist` trains and publishes, `… prune MODEL` tidies the store."""

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from training.builtin import builtin
from training.errors import Interrupted, TrainingError
from training.recipes import Recipe

_INTERRUPTED = 130  # what a shell reports for Ctrl-C


def main(argv: Sequence[str] | None = None) -> int:
    """The exit code: 0, 2 for expected trouble (one line on stderr), 130 for Ctrl-C."""
    arguments = _parser().parse_args(argv)
    # Two threads that spin while they wait for each other halt where others want the cores too: a fifth of the speed.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    try:
        if arguments.command == "prune":
            return _prune(arguments)
        return _train(arguments)
    except Interrupted as interruption:
        return _fail(str(interruption), _INTERRUPTED)
    except KeyboardInterrupt:
        return _fail("interrupted; start again with the same command", _INTERRUPTED)
    except TrainingError as error:
        return _fail(str(error), 2)
    except OSError as error:
        return _fail(_in_words(error), 2)


def _train(arguments: argparse.Namespace) -> int:
    # Here, not above: torch takes a second or two to import, and --help does without it.
    from training.progress import Progress
    from training.train import train

    train(
        _recipe(arguments),
        store=arguments.store,
        name=arguments.name,
        data=arguments.data,
        runs=arguments.runs,
        device=arguments.device,
        parent=arguments.parent,
        resume=arguments.resume,
        progress=Progress(),
    )
    return 0


def _prune(arguments: argparse.Namespace) -> int:
    from training.publish import prune

    removed = prune(arguments.store, arguments.model, keep=arguments.keep)
    print(f"removed {', '.join(map(str, removed)) or 'nothing'}")
    return 0


def _recipe(arguments: argparse.Namespace) -> Recipe:
    recipe = builtin(arguments.command)
    fields = ("epochs", "batch_size", "lr", "seed")
    changes = {field: value for field in fields if (value := getattr(arguments, field)) is not None}
    if "lr" in changes:
        changes["lr_continued"] = changes["lr"]  # who names a rate means it, whatever training starts from
    return recipe.but(**changes)


def _fail(message: str, code: int) -> int:
    print(f"python -m training: {message}", file=sys.stderr)
    return code


def _in_words(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the disk is full{where}; make room, then give the same command again, with --resume if an epoch was over"
        )
    return f"{error.strerror or error}{where}"


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m training",
        description="Trains an image classifier and publishes it as the next version of a model in the store.",
        epilog="Each command has its own --help.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    summaries = {
        "strokes": "train on digits that are drawn here, from a seed: needs no data",
        "mnist": "train on the 60,000 real digits of MNIST",
    }
    for data, summary in summaries.items():
        _add_recipe_flags(commands.add_parser(data, help=summary, description=f"{summary}."), data)
    prune = commands.add_parser(
        "prune",
        help="remove old versions of a model",
        description="Removes all versions below the N highest that load without error.",
    )
    prune.add_argument("model", metavar="MODEL", help="its name, a folder of the store")
    prune.add_argument("--keep", type=int, required=True, metavar="N", help="how many versions stay")
    _add_store(prune)
    return parser


def _add_recipe_flags(parser: argparse.ArgumentParser, data: str) -> None:
    recipe = builtin(data)
    _add_store(parser)
    parser.add_argument("--name", default=data, help="the model's name in the store (default: %(default)s)")
    parser.add_argument("--epochs", type=int, help=f"passes over the training set (default: {recipe.epochs})")
    parser.add_argument("--batch-size", type=int, help=f"images per step (default: {recipe.batch_size})")
    rates = f"{recipe.lr:g}; with --from {recipe.lr_continued:g}"
    parser.add_argument("--lr", type=float, help=f"peak learning rate (default: {rates})")
    parser.add_argument("--seed", type=int, help=f"of everything random (default: {recipe.seed})")
    parser.add_argument("--device", default="auto", help="cuda, cuda:1, mps or cpu (default: the best there is)")
    parser.add_argument("--resume", action="store_true", help="go on after the last finished epoch of the same command")
    parser.add_argument(
        "--from", dest="parent", type=Path, metavar="CHECKPOINT", help="a published .safetensors file to start from"
    )
    parser.add_argument(
        "--runs", type=Path, default=Path("runs"), metavar="DIR", help="scratch: state, drawings (default: %(default)s)"
    )
    parser.add_argument(
        "--data", type=Path, default=Path("data"), metavar="DIR", help="where MNIST/raw is (default: %(default)s)"
    )


def _add_store(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--store", type=Path, default=Path("models_store"), metavar="DIR", help="of models (default: %(default)s)"
    )


if __name__ == "__main__":
    sys.exit(main())
