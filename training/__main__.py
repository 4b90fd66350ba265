"""Runs `python -m training`: calls what a person asks for, and says what goes wrong in one line and an exit code."""

import argparse
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from classifier.cores import find_cores
from classifier.torchvision_parts import TorchvisionError
from training.command_line import parser
from training.errors import Interrupted, TrainingError
from training.recipes.recipe import Recipe

_INTERRUPTED = 130  # what a shell reports for Ctrl-C


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit code.

    It is 0 if all went well, 2 for expected trouble, and 130 for Ctrl-C. Trouble is one line on stderr.

    Args:
        argv: what is typed behind `python -m training`; None: the arguments of this process.
    """
    arguments = parser().parse_args(argv)
    # Threads that wait for each other by spinning would keep cores from other processes: a fifth of the speed remained.
    os.environ.setdefault("GOMP_SPINCOUNT", "2000")
    find_cores().bound_libraries(os.environ)
    if "runs" in arguments:  # what libraries keep for the next time stays in this folder too
        os.environ.setdefault("MPLCONFIGDIR", str(arguments.runs.absolute() / "matplotlib"))
        os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(arguments.runs.absolute() / "compiled"))
    commands = {
        "import": _import,
        "export": _export,
        "evaluate": _evaluate,
        "reproduce": _reproduce,
        "prune": _prune,
    }
    try:
        commands.get(arguments.command, _train)(arguments)
    except Interrupted as interruption:
        return _fail(str(interruption), _INTERRUPTED)
    except KeyboardInterrupt:
        return _fail("interrupted; start again with the same command", _INTERRUPTED)
    except (TrainingError, TorchvisionError) as error:
        return _fail(str(error), 2)
    except OSError as error:
        return _fail(_in_words(error), 2)
    return 0


# Imports stand in the functions: torch takes a second or two to import, and --help does not need it.


def _train(arguments: argparse.Namespace) -> None:
    from training.commands.train import train
    from training.progress import Progress

    progress = Progress()
    progress.say(f"cores: {find_cores()}")
    train(
        _recipe(arguments),
        store=arguments.store,
        name=arguments.name,
        data=arguments.data,
        runs=arguments.runs,
        device=arguments.device,
        parent=arguments.parent,
        resume=arguments.resume,
        workers=arguments.workers,
        strict=arguments.strict,
        pictures=arguments.pictures,
        progress=progress,
    )


def _recipe(arguments: argparse.Namespace) -> Recipe:
    from training.recipes.builtin import builtin
    from training.recipes.overrides import changed, from_file, with_settings

    named: str | Path | None = arguments.recipe
    recipe = from_file(arguments.command, named) if isinstance(named, Path) else builtin(arguments.command, named)
    if arguments.parent is not None and recipe.start == "backbone":
        from training.publishing.open_checkpoint import header_of

        # A backbone reads best what it was trained to read.
        recipe = changed(recipe, {"preprocess": header_of(arguments.parent).manifest.preprocess.model_dump()})
    fields = ("epochs", "batch_size", "lr", "seed")
    changes = {field: value for field in fields if (value := getattr(arguments, field)) is not None}
    if "lr" in changes:
        changes["lr_continued"] = changes["lr"]  # who names a rate means it, whatever training starts from
    if arguments.compile:
        changes["compiled"] = True
    return with_settings(changed(recipe, changes), arguments.settings)


def _import(arguments: argparse.Namespace) -> None:
    from training.commands.import_weights import import_pretrained, import_weights
    from training.networks.labels import labels_from
    from training.progress import Progress
    from training.publishing.open_checkpoint import header_of

    progress = Progress()
    if arguments.pretrained is not None:
        for flag in ("architecture", "weights", "settings", "preprocess_from"):
            if getattr(arguments, flag):
                name = "set" if flag == "settings" else flag.replace("_", "-")
                raise TrainingError(f"--{name}: --pretrained brings its own; name it for weights in a file only")
        path = import_pretrained(
            arguments.pretrained,
            labels=None if arguments.labels is None else labels_from(arguments.labels),
            store=arguments.store,
            name=arguments.name,
            examples=arguments.examples,
            progress=progress,
        )
    else:
        prepared = arguments.preprocess_from
        path = import_weights(
            arguments.file,
            architecture=arguments.architecture,
            labels=None if arguments.labels is None else labels_from(arguments.labels),
            store=arguments.store,
            name=arguments.name,
            entry=arguments.weights,
            preprocess=None if prepared is None else header_of(prepared).manifest.preprocess,
            settings=arguments.settings,
            examples=arguments.examples,
            progress=progress,
        )
    progress.say(f"published {path}")


def _export(arguments: argparse.Namespace) -> None:
    from training.commands.export import export

    export(arguments.checkpoint, arguments.file, overwrite=arguments.force)
    print(f"wrote {arguments.file} and {arguments.file}.json")


def _evaluate(arguments: argparse.Namespace) -> None:
    from training.commands.evaluate import evaluate
    from training.progress import Progress

    progress = Progress()
    progress.say(f"cores: {find_cores()}")
    evaluate(
        arguments.checkpoint,
        data=arguments.data,
        runs=arguments.runs,
        device=arguments.device,
        workers=arguments.workers,
        strict=arguments.strict,
        test=arguments.test,
        progress=progress,
    )


def _reproduce(arguments: argparse.Namespace) -> None:
    from training.commands.reproduce import reproduce

    print(reproduce(arguments.checkpoint))


def _prune(arguments: argparse.Namespace) -> None:
    from training.commands.prune import prune

    removed = prune(arguments.store, arguments.model, keep=arguments.keep)
    print(f"removed {', '.join(map(str, removed)) or 'nothing'}")


def _fail(message: str, code: int) -> int:
    print(f"python -m training: {message}", file=sys.stderr)
    return code


def _in_words(error: OSError) -> str:
    where = f" ({error.filename})" if error.filename else ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"the disk is full{where}; free some space, then run the same command again, "
            "with --resume if an epoch was finished"
        )
    return f"{error.strerror or error}{where}"


if __name__ == "__main__":
    sys.exit(main())
