"""Runs `python -m training`: calls what a person asks for, and says what goes wrong in one line and an exit code."""

from training import import_path

if __name__ == "__main__":
    import_path.current_folder_last()

import argparse
import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classifier.cores import find_cores
from classifier.torchvision_parts import TorchvisionError
from training.command_line import parser
from training.errors import Interrupted, SaidElsewhere, TrainingError
from training.publishing.fetched import fetched
from training.recipes.recipe import Recipe

if TYPE_CHECKING:
    from classifier.progress import Progress
    from training.process_group import ProcessGroup

_INTERRUPTED = 130  # what a shell reports for Ctrl-C
_PARENT = os.getppid()  # before torch is imported, which takes a while


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
        with contextlib.ExitStack() as copies:
            for name in ("checkpoint", "parent", "preprocess_from"):
                if isinstance(url := getattr(arguments, name, None), str):
                    setattr(arguments, name, copies.enter_context(fetched(url)))
            commands.get(arguments.command, _train)(arguments)
    except SaidElsewhere:
        return 2
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
    from classifier.progress import Progress
    from training.commands.train import train
    from training.process_group import ProcessGroup

    group = ProcessGroup.of(os.environ)
    with group.joined(parent=_PARENT):
        if group.max_restarts:
            check_restarts(group, arguments)
        progress = Progress() if group.is_first else Progress.silent()
        progress.say(f"cores: {find_cores()}")
        if group.size > 1:
            progress.say(f"processes: {group.size}, of which {group.local_size} are on this machine")
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
            cache_bytes=arguments.cache_bytes,
            pictures=arguments.pictures,
            save_minutes=arguments.save_minutes,
            save_steps=arguments.save_steps,
            group=group,
            progress=progress,
        )


def check_restarts(group: "ProcessGroup", arguments: argparse.Namespace) -> None:
    """Checks that training can go on when torchrun starts its processes again. Raises: TrainingError."""
    if not arguments.resume:
        raise TrainingError(
            "torchrun --max-restarts needs --resume, or each restart would begin from nothing; "
            f"to begin anew, choose another --name, or remove its folder in {arguments.runs}"
        )
    if group.size > group.local_size and group.shares_store:
        raise TrainingError(
            "with --max-restarts on several machines, torch's agents would ask one that has ended: "
            "--rdzv-backend c10d, and TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 in the environment of each torchrun"
        )


def _recipe(arguments: argparse.Namespace) -> Recipe:
    network = None if arguments.network is None else _own_network(arguments.network)
    from training.recipes.builtin import builtin
    from training.recipes.overrides import changed, from_file, with_settings

    data: str = arguments.command
    named: str | Path | None = arguments.recipe
    recipe = (
        from_file(data, named, network=network) if isinstance(named, Path) else builtin(data, named, network=network)
    )
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
    if arguments.all_reduce:
        changes["all_reduce"] = True
    return with_settings(changed(recipe, changes), arguments.settings)


def _own_network(typed: str) -> str:
    """Loads a person's own code, and returns what it is called as an architecture."""
    file = typed.rpartition(":")[0]
    if file.endswith(".py"):
        import_path.check_name(file)  # before torch is imported, which may be what the file is called like
    from training.networks import own_code

    return own_code.load(typed).architecture


def _import(arguments: argparse.Namespace) -> None:
    from classifier.progress import Progress

    progress = Progress()
    progress.say(f"published {_imported(arguments, progress)}")


def _imported(arguments: argparse.Namespace, progress: "Progress") -> str:
    kept: dict[str, Any] = {
        "store": arguments.store,
        "name": arguments.name,
        "examples": arguments.examples,
        "progress": progress,
    }
    if arguments.pretrained is not None:
        _refuse(arguments, "--pretrained", "architecture", "network", "weights", "settings", "preprocess_from")
        from training.commands.import_pretrained import import_pretrained

        return str(import_pretrained(arguments.pretrained, labels=_labels(arguments), **kept))
    if arguments.exported is not None:
        _refuse(arguments, "--exported", "architecture", "network", "weights")
        from training.commands.import_exported import import_exported

        return str(import_exported(arguments.exported, labels=_labels(arguments), **kept, **_preparation(arguments)))
    if arguments.file is None and arguments.network is None:
        raise TrainingError(
            "import what? Name a FILE, or --exported FILE, --pretrained ARCHITECTURE, or --network FILE.py:CLASS"
        )
    network = None if arguments.network is None else _own_network(arguments.network)
    if arguments.file is None and network is not None:
        _refuse(arguments, "--network", "architecture", "weights")
        labels = _labels(arguments)
        if labels is None:
            raise TrainingError(f"--network {arguments.network}: what are its classes called? --labels is needed")
        from training.commands.import_network import import_network

        return str(import_network(network, labels=labels, **kept, **_preparation(arguments)))
    from training.commands.import_weights import import_weights

    return str(
        import_weights(
            arguments.file,
            architecture=arguments.architecture,
            network=network,
            labels=_labels(arguments),
            entry=arguments.weights,
            **kept,
            **_preparation(arguments),
        )
    )


def _labels(arguments: argparse.Namespace) -> tuple[str, ...] | None:
    from training.networks.labels import labels_from

    return None if arguments.labels is None else labels_from(arguments.labels)


def _preparation(arguments: argparse.Namespace) -> dict[str, Any]:
    """Returns what a person says of how images are prepared."""
    from training.publishing.open_checkpoint import header_of

    prepared = arguments.preprocess_from
    preprocess = None if prepared is None else header_of(prepared).manifest.preprocess
    return {"preprocess": preprocess, "settings": arguments.settings}


def _refuse(arguments: argparse.Namespace, brings: str, *flags: str) -> None:
    """Checks that flags are not there which say what something brings itself. Raises: TrainingError, naming one."""
    for flag in flags:
        if getattr(arguments, flag):
            name = "set" if flag == "settings" else flag.replace("_", "-")
            raise TrainingError(f"--{name}: {brings} brings its own; name it for weights in a file only")


def _export(arguments: argparse.Namespace) -> None:
    from training.commands.export import export

    export(arguments.checkpoint, arguments.file, file_format=arguments.format, overwrite=arguments.force)
    print(f"wrote {arguments.file} and {arguments.file}.json")


def _evaluate(arguments: argparse.Namespace) -> None:
    from classifier.progress import Progress
    from training.commands.evaluate import evaluate

    progress = Progress()
    progress.say(f"cores: {find_cores()}")
    evaluate(
        arguments.checkpoint,
        data=arguments.data,
        runs=arguments.runs,
        device=arguments.device,
        workers=arguments.workers,
        strict=arguments.strict,
        cache_bytes=arguments.cache_bytes,
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
