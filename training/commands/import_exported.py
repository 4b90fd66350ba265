"""Publishes a network that was exported elsewhere, as torch.export.save wrote it. Nothing of the file is run."""

from collections.abc import Callable, Sequence
from pathlib import Path

import torch

from classifier.header import CheckpointError
from classifier.preprocess import Preprocess
from classifier.program.check import check
from classifier.program.network import ProgramNetwork
from classifier.progress import Progress
from training.commands.imported import Served, agreed, example_pngs, note_to, publish_served
from training.commands.preprocess_choice import chosen_preprocess
from training.errors import TrainingError, one_line
from training.networks import pt2
from training.networks.logits import with_logits
from training.networks.pt2_operators import Composite
from training.networks.served import EXPORTED, of_exported
from training.publishing import sidecar
from training.publishing.publish import Address, check_name
from training.publishing.reference import images_of
from training.recipes.builtin import usual_preprocess

GOOD_FILE = (
    "torch.export.save(torch.export.export(net.eval(), (torch.zeros(2, 3, 224, 224),), dynamic_shapes="
    "({0: torch.export.Dim('batch')},)).run_decompositions({}), 'model.pt2')"
)
# Torch takes more apart then: what is served as it is becomes slower.
GOOD_FILE_OF_SIMPLE_OPERATORS = GOOD_FILE.replace("({})", "()")
_BATCHES = (1, 2, 3)
_LARGE_BATCH = 64  # of which the shapes are checked, and nothing is computed
_TOLERANCE = 1e-3  # of a logit x, relative to 1 + |x|: as a server allows it
_MARGIN = 256 / 224  # of the shorter edge to what is cut out of it, as torchvision's networks have it
_SMALL = 96  # pixels: smaller images are not cropped


def import_exported(
    path: Path,
    *,
    labels: tuple[str, ...] | None,
    store: Address,
    name: str | None = None,
    preprocess: Preprocess | None = None,
    settings: Sequence[str] = (),
    examples: Path | None = None,
    progress: Progress | None = None,
) -> Address:
    """Publishes the network in a .pt2 file, and returns the path of the new version.

    What the file does not say is taken from `<path>.json`, if `export` wrote one there.

    Args:
        labels: by class index; None: those beside the file.
        name: the model's name; None: the file's, without its ending.
        preprocess: None: what lies beside the file; else what is usual for images of the program's size, with a word.
        settings: changes to the preprocess of the form `preprocess.key=value`.
        examples: a folder of images for the reference batch; None: pictures are drawn.
        progress: is told what was changed and guessed.

    Raises:
        TrainingError: the file, the labels, the preprocess or the name cannot be used.
        OSError: the file cannot be read, or the store cannot be written to.
    """
    note = note_to(progress, path.name)
    name = path.stem if name is None else name
    check_name(name)
    sha256 = sidecar.sha256_of(path)
    exported = _read(path)
    beside = sidecar.read(path, sha256, note=note)
    labels = agreed(path, {sidecar.path_of(path).name: beside.labels} if beside else {}, labels)
    chosen = _preprocess_of(
        exported, path, named=preprocess, said=beside.preprocess if beside else None, settings=settings, note=note
    )
    pngs = example_pngs(examples, chosen)
    exported = _checked(exported, path, chosen, pngs, len(labels))
    for line in exported.notes:
        note(line)
    served = Served(
        architecture=beside.architecture if beside else EXPORTED + path.stem,
        weights={},
        labels=labels,
        preprocess=chosen,
    )
    served = served.with_measured(beside, note) if beside else served
    return publish_served(served, of_exported(exported), pngs, source=path.name, sha256=sha256, store=store, name=name)


def _read(path: Path) -> pt2.Exported:
    try:
        return pt2.read(path, str(path))
    except TrainingError as error:
        good = GOOD_FILE_OF_SIMPLE_OPERATORS if isinstance(error.__cause__, Composite) else GOOD_FILE
        raise TrainingError(f"{error}. A good file is made by {good}") from error


def _preprocess_of(
    exported: pt2.Exported,
    path: Path,
    *,
    named: Preprocess | None,
    said: Preprocess | None,
    settings: Sequence[str],
    note: Callable[[str], None],
) -> Preprocess:
    """Returns how images are prepared. Raises: TrainingError if the program cannot take such images."""
    channels, height, width = exported.shape
    usual = named or said or _usual(path, channels, height, width)
    size = _in_words(height, width, channels)
    chosen = chosen_preprocess(f"images of {size}", named=named, said=said, settings=settings, note=note, usual=usual)
    wanted = (height, width, channels)
    if any(each not in (None, made) for each, made in zip(wanted, chosen.shape, strict=True)):
        raise TrainingError(
            f"{path} takes images of {size}, and the preprocess makes some of {_in_words(*chosen.shape)}: say by "
            "--set preprocess.KEY=VALUE how they are made, e.g. "
            f"preprocess.mode={'L' if channels == 1 else 'RGB'} and preprocess.resize=[{height or 224},{width or 224}]"
        )
    return chosen


def _usual(path: Path, channels: int | None, height: int | None, width: int | None) -> Preprocess:
    """Returns what is usual for images of a size."""
    if channels not in (None, 1, 3):
        raise TrainingError(f"{path} takes images of {channels} channels, where 1 or 3 can be given")
    height, width = height or 224, width or 224
    usual = usual_preprocess("mnist_cnn" if channels == 1 else "resnet18")
    usual = usual.model_copy(update={"ink_on_paper": False})  # which is what networks of this project learn
    if usual.shape[:2] == (height, width):
        return usual
    if channels == 1 or min(height, width) < _SMALL:
        return usual.model_copy(update={"resize": (height, width), "crop": None})
    edge = round(max(height, width) * _MARGIN)
    return usual.model_copy(update={"resize": edge, "crop": (height, width)})


def _in_words(height: int | None, width: int | None, channels: int | None) -> str:
    return "x".join(str(each or "any") for each in (height, width, channels))


def _checked(
    exported: pt2.Exported, path: Path, preprocess: Preprocess, pngs: tuple[bytes, ...], classes: int
) -> pt2.Exported:
    """Returns the program without a softmax at its end. Raises: TrainingError if it makes no logits of images."""
    height, width, channels = preprocess.shape
    images = images_of(pngs, preprocess)
    try:
        check(exported.program, (channels, height, width), classes, _LARGE_BATCH)
        exported = with_logits(exported, images, str(path))
        network = ProgramNetwork(exported.program, exported.tensors).eval()
        with torch.inference_mode():
            together = network(images)
            apart = [(network(images[:count]), together[:count]) for count in _BATCHES]
    except (CheckpointError, RuntimeError, ValueError, IndexError, TypeError) as error:
        raise TrainingError(f"{path}: {one_line(error)} ({classes} labels were given)") from error
    if not bool(together.isfinite().all()):
        raise TrainingError(f"{path}: its logits of the example images are not finite (NaN or infinite)")
    for logits, expected in apart:
        if bool(((logits - expected).abs() > _TOLERANCE * (1 + expected.abs())).any()):
            raise TrainingError(f"{path}: what it says of an image depends on the other images of its batch")
    return exported
