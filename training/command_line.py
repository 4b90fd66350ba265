"""Defines what can be typed behind `python -m training`: the commands, their flags, and the list that --help shows."""

import argparse
import math
import os
from pathlib import Path
from typing import Any, NoReturn

from classifier.paths import typed_path
from classifier.store.address import store_address
from training.recipes.builtin import DEFAULTS, OF_PHOTOS, default_values, names
from training.recipes.dataset_table import TORCHVISION_DATASETS

_GROUPS = {
    "Train, and publish the next version of a model": {
        "strokes": ("digits that are drawn here: needs no data", "strokes"),
        **{name: (row.what, row.example) for name, row in TORCHVISION_DATASETS.items()},
        "photos": ("a folder of your photos, one folder per class", "photos bees-and-ants --recipe alexnet_transfer"),
        "shards": ("photos in tar files, as WebDataset writes them", "shards 'birds/data-{000..099}.tar'"),
        "table": ("photos that a CSV or TSV file lists, with their labels", "table birds/labels.csv"),
    },
    "Bring weights that were trained elsewhere, and take ours away": {
        "import": (
            "publish weights of a file, torchvision's or timm's own, or a network that torch.export.save wrote",
            "import --pretrained resnet50",
        ),
        "export": (
            "write a checkpoint's state_dict, .pt2 or ONNX file, and what import needs beside it",
            "export models_store/mnist/1.safetensors net.onnx",
        ),
    },
    "Look at a checkpoint again": {
        "evaluate": (
            "measure it on its data's test set",
            "evaluate models_store/mnist/1.safetensors --data ../shared/data/mnist",
        ),
        "reproduce": ("print the command that makes it", "reproduce models_store/mnist/1.safetensors"),
    },
    "Tidy up": {"prune": ("remove all but the newest sound versions", "prune mnist --keep 5")},
}

# How a person names photos, by the command: the placeholder, and what may stand there.
_PLACES = {
    "photos": (
        "DIR",
        "a folder with one folder of photos per class, or with splits of such folders: train/, val/, test/",
    ),
    "table": (
        "FILE",
        "a CSV or TSV file with the columns path, label and, if you like, split; paths begin at its folder",
    ),
    "shards": (
        "PATTERN",
        "tar files, or their URLs, with an image and a .cls file for each sample, e.g. 'birds/{00..15}.tar', in quotes",
    ),
}


def parser() -> argparse.ArgumentParser:
    """Returns the parser of all commands. It ends the process with 2 and one line on stderr for what it cannot read."""
    main = _Parser(
        prog="python -m training",
        usage="python -m training COMMAND ...",
        description=_map(),
        epilog="A network of your own (docs/bring-your-own.md): python -m training strokes --network my_net.py:Net\n\n"
        "Each command has its own --help.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = main.add_subparsers(dest="command", required=True, metavar="COMMAND", help=argparse.SUPPRESS)
    add = {
        name: commands.add_parser(
            name, prog=f"{main.prog} {name}", description=f"{what}. Example: {main.prog} {example}"
        )
        for group in _GROUPS.values()
        for name, (what, example) in group.items()
    }
    for data in DEFAULTS:
        _training_flags(add[data], data)
    _import_flags(add["import"])
    _export_flags(add["export"])
    _evaluate_flags(add["evaluate"])
    add["reproduce"].add_argument(
        "checkpoint", type=_address, metavar="CHECKPOINT", help="a published .safetensors file, or its URL"
    )
    add["prune"].add_argument("model", metavar="MODEL", help="the model's name, which is a folder of the store")
    add["prune"].add_argument("--keep", type=int, required=True, metavar="N", help="how many sound versions to keep")
    _store_flag(add["prune"])
    return main


class _Parser(argparse.ArgumentParser):
    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.register("type", Path, _path)  # every flag and argument of `type=Path`

    def error(self, message: str) -> NoReturn:
        # torchrun starts several, and the first one says it.
        one_of_many = "MASTER_PORT" in os.environ and os.environ.get("RANK", "0") != "0"
        self.exit(2, None if one_of_many else f"{self.prog}: {message} (see {self.prog} --help)\n")


def _map() -> str:
    lines = []
    for title, commands in _GROUPS.items():
        lines += ["", f"{title}:"]
        for name, (what, example) in commands.items():
            lines += [f"  {name:<14} {what}", f"  {'':<14} python -m training {example}"]
    return "\n".join(lines).lstrip()


def _training_flags(parser: argparse.ArgumentParser, data: str) -> None:
    if data in OF_PHOTOS:
        metavar, help_ = _PLACES[data]
        parser.add_argument("data", type=_address, metavar=metavar, help=help_)
    recipe = parser.add_argument_group("what to train")
    known = f"{', '.join(names())}, where timm/NAME is an architecture, too; or a .toml file"
    recipe.add_argument("--recipe", type=_name_or_file, metavar="NAME", help=f"{known} (default: {DEFAULTS[data]})")
    recipe.add_argument(
        "--network",
        metavar="FILE.py:CLASS",
        help="a network of your own, also as package.module:function; --recipe is then scratch (the default), "
        "transfer, finetune or a .toml file, and --set network.width=32 gives it more values",
    )
    default = default_values(data)
    epochs = f"passes over the training set, in the first stage (default: {default['epochs']})"
    recipe.add_argument("--epochs", type=int, help=epochs)
    recipe.add_argument("--batch-size", type=int, help=f"images per step (default: {default['batch_size']})")
    rate = f"peak learning rate of the first stage (default: {default['lr']:g})"
    recipe.add_argument("--lr", type=float, help=rate)
    recipe.add_argument("--seed", type=int, help="seed of all random numbers (default: 0)")
    recipe.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="change any other value of the recipe, e.g. label_smoothing=0.1, augment.flip=true, unfreeze.epochs=3",
    )
    recipe.add_argument(
        "--compile", action="store_true", help="use torch.compile, which needs about a minute before the first step"
    )
    recipe.add_argument(
        "--all-reduce",
        action="store_true",
        help="let each of torchrun's processes do one share of a batch, and add up in whatever order is fast: the "
        "weights then depend on how many there are (without it: --set virtual_ranks=N)",
    )
    recipe.add_argument(
        "--from", dest="parent", type=_address, metavar="CHECKPOINT", help="start from this published .safetensors file"
    )
    run = parser.add_argument_group("how to run")
    run.add_argument("--name", help="the model's name in the store (default: the data's)")
    run.add_argument("--resume", action="store_true", help="go on where the same command was kept last")
    run.add_argument(
        "--save-minutes",
        type=_minutes,
        default=10.0,
        metavar="N",
        help="keep for --resume what is done of an epoch whenever so many minutes have passed (default: %(default)g); "
        "a whole epoch is kept at once",
    )
    run.add_argument("--save-steps", type=_positive, metavar="N", help="keep it whenever so many batches are done, too")
    run.add_argument("--no-pictures", dest="pictures", action="store_false", help="draw no pictures at the end")
    _device_flags(run)
    _store_flag(run)
    _runs_flag(run)
    if data == "shards":
        _cache_flag(run)
    else:
        parser.set_defaults(cache_bytes=None)
    if data not in OF_PHOTOS:
        where = "folder where the data set is, or is downloaded to (default: %(default)s)"
        run.add_argument("--data", type=Path, default=Path("data"), metavar="DIR", help=where)


def _import_flags(parser: argparse.ArgumentParser) -> None:
    what = parser.add_mutually_exclusive_group()
    what.add_argument(
        "file", nargs="?", type=Path, metavar="FILE", help="weights: .pth, .pth.tar, .ckpt or .safetensors"
    )
    what.add_argument(
        "--pretrained",
        metavar="ARCHITECTURE",
        help="publish torchvision's own weights of this architecture, or timm's of timm/NAME, with their labels",
    )
    what.add_argument(
        "--exported", type=Path, metavar="FILE", help="publish a network that torch.export.save wrote, e.g. model.pt2"
    )
    parser.add_argument("--architecture", help="the network, e.g. alexnet (default: what the file says)")
    parser.add_argument(
        "--network",
        metavar="FILE.py:CLASS",
        help="a network of your own, also as package.module:function. Without FILE, the weights are those that it "
        "makes itself",
    )
    labels = "a text file with one label per line, or JSON (default: what the file says)"
    parser.add_argument("--labels", type=Path, metavar="FILE", help=labels)
    weights = "the key of the weights in FILE, or a prefix of their names, e.g. model_ema (default: what is usual)"
    parser.add_argument("--weights", metavar="KEY", help=weights)
    parser.add_argument(
        "--set",
        dest="settings",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="say how images are prepared, as for training, e.g. preprocess.resize=[64,64]; or give a network of your "
        "own more values, e.g. network.width=32",
    )
    prepared = "prepare images as this published .safetensors file does"
    parser.add_argument("--preprocess-from", type=_address, metavar="CHECKPOINT", help=prepared)
    examples = "folder of images by which the server checks the weights (default: drawn images)"
    parser.add_argument("--examples", type=Path, metavar="DIR", help=examples)
    parser.add_argument(
        "--name", help="the model's name in the store (default: the architecture's, or the .pt2 file's)"
    )
    _store_flag(parser)


def _export_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint", type=_address, metavar="CHECKPOINT", help="a published .safetensors file, or its URL"
    )
    parser.add_argument("file", type=Path, metavar="FILE", help="what to write, e.g. net.pth; and net.pth.json")
    formats = "what FILE holds (default: by its ending: .pt2, .onnx; any other is a state_dict)"
    parser.add_argument("--format", choices=("state_dict", "pt2", "onnx"), help=formats)
    parser.add_argument("--force", action="store_true", help="write FILE and FILE.json even if they are there already")


def _evaluate_flags(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "checkpoint", type=_address, metavar="CHECKPOINT", help="a published .safetensors file, or its URL"
    )
    parser.add_argument(
        "--data",
        type=_address,
        default=Path("data"),
        metavar="DIR",
        help="folder of the data set, as for training (default: %(default)s)",
    )
    parser.add_argument(
        "--test", action="store_true", help="measure on the test/ of a folder of photos, which training leaves out"
    )
    _device_flags(parser)
    _runs_flag(parser)
    _cache_flag(parser)


def _device_flags(parser: "argparse._ActionsContainer") -> None:
    parser.add_argument("--device", default="auto", help="cuda, cuda:1, mps or cpu (default: the best that is there)")
    parser.add_argument("--workers", type=_count, help="processes that decode images (default: one per core)")
    parser.add_argument(
        "--strict", action="store_true", help="stop at a file that is not a sound image, instead of skipping it"
    )


def _cache_flag(parser: "argparse._ActionsContainer") -> None:
    parser.add_argument(
        "--cache-gb",
        dest="cache_bytes",
        type=_gigabytes,
        metavar="N",
        help="how much of shards behind a URL may be in <runs>/shards at a time (default: 4/5 of the free disk)",
    )


def _path(text: str) -> Path:
    try:
        return typed_path(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _name_or_file(text: str) -> str | Path:
    return _path(text) if text.endswith(".toml") else text


def _address(text: str) -> Path | str:
    try:
        return store_address(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _count(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) < 5):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of processes from 0 to 9999")
    return int(text)


def _positive(text: str) -> int:
    if not (text.isascii() and text.isdigit() and int(text[:19]) > 0):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of batches from 1")
    return int(text)


def _gigabytes(text: str) -> int:
    """Returns how many bytes so many GB are."""
    if not 0 < (count := _number(text)) < 1e9:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of GB above 0")
    return int(count * 1e9)


def _minutes(text: str) -> float:
    if not (count := _number(text)) >= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of minutes")
    return count


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _store_flag(parser: "argparse._ActionsContainer") -> None:
    parser.add_argument(
        "--store",
        type=_address,
        default=Path("models_store"),
        metavar="DIR",
        help="folder or URL of the published models, such as s3://bucket/folder (default: %(default)s)",
    )


def _runs_flag(parser: "argparse._ActionsContainer") -> None:
    parser.add_argument(
        "--runs",
        type=Path,
        default=Path("runs"),
        metavar="DIR",
        help="folder for what a run writes: state, log, pictures (default: %(default)s)",
    )
