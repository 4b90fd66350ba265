"""Does a run from top to bottom: recipe, data, network, epochs, measurement, checkpoint, published version."""

import contextlib
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import torch

from classifier.checkpoint import Checkpoint
from classifier.cores import usable_cores
from classifier.manifest import Dataset, EpochPoint, Manifest, Provenance
from classifier.progress import Progress
from training.data.dataset import load_dataset, name_of
from training.device import device_named
from training.errors import Interrupted, TrainingError
from training.evaluation import measure
from training.networks import heads
from training.networks.served import served_network
from training.process_group import ALONE, ProcessGroup
from training.publishing.provenance import code_revision, library_versions
from training.publishing.publish import Address, check_name, check_reachable, publish, published_already
from training.publishing.reference import reference
from training.recipes.recipe import Recipe
from training.reports import summary
from training.reports.event_files import EventFiles
from training.runs.initial_weights import InitialWeights
from training.runs.lock import only_run_in
from training.runs.precision import precision
from training.runs.run import Run
from training.runs.state import Best, State
from training.runs.virtual_ranks import VirtualRanks

_LOCK_SECONDS = 60.0  # an earlier process of the same run may be ending just now


def train(
    recipe: Recipe,
    *,
    store: Address,
    name: str | None = None,
    data: Path | str = Path("data"),
    runs: Path = Path("runs"),
    device: str = "auto",
    parent: Path | None = None,
    resume: bool = False,
    workers: int | None = None,
    strict: bool = False,
    cache_bytes: int | None = None,
    pictures: bool = True,
    save_minutes: float = 10.0,
    save_steps: int | None = None,
    group: ProcessGroup = ALONE,
    progress: Progress | None = None,
) -> Address:
    """Trains as the recipe says, publishes an epoch, and returns the path of the new version.

    Args:
        store: the folder of models, or their URL; the file becomes `<store>/<name>/<version>.safetensors`.
        name: the model's name; None: it is called as its data set is.
        data: the folder where the data set is, or is downloaded to; the folder of photos, the table of them, or the
            pattern of their shards, also as a URL. Drawn digits need none.
        runs: the folder of what runs write; the state, log and pictures of this one go to `<runs>/<name>/`.
        device: "cuda", "cuda:1", "mps", "cpu", or "auto".
        parent: a published checkpoint to start from.
        resume: the run goes on where the state of the same command was kept last. Where the processes may be started
            again by the same command, it begins if there is none.
        workers: how many processes decode images; None: as many as there are cores, shared among the group's
            processes on this machine.
        strict: a file that is not a sound image ends the run, instead of being left out.
        cache_bytes: how much of shards behind a URL may be on this machine at a time; None: four fifths of what the
            disk has room for.
        pictures: pictures are drawn at the end, into the run's folder.
        save_minutes: what is done of an epoch is also kept for `resume` whenever so many minutes have passed.
        save_steps: and whenever so many batches are done.
        group: the processes that train together, of which this is one; each makes this call. They see the same data,
            and the same `runs`.
        progress: where to say how it goes on; None: nothing is said. Only the first process of the group says it.

    Raises:
        TrainingError: expected trouble; the message says what to do.
        Interrupted: Ctrl-C was pressed after training had begun.
        TorchvisionError: torchvision is needed and cannot be imported.
        OSError: the disk is full, or a folder cannot be written to.
    """
    if progress is None or not group.is_first:
        progress = Progress.silent()
    name = default_name(recipe, data) if name is None else name
    check_name(name)
    on = device_named(device, group)
    recipe = recipe.replace(precision=precision(recipe, on))
    recipe.spec.check()
    VirtualRanks.of(recipe, group)  # raises now what would be wrong later
    if workers is None:
        workers = max(1, usable_cores() // group.local_size)
    InitialWeights.check_named(recipe, parent)
    for stage in recipe.stages:
        heads.parts(recipe.spec, stage.trainable)  # raises now what would be wrong an hour later
    code = recipe.spec.code
    if code is not None and code.file.beside:
        names = ", ".join(code.file.beside)
        progress.say(f"{code.file.name} imports {names}: the checkpoint will hold the text of {code.file.name} alone")
    published = None if parent is None else InitialWeights.of(recipe, parent)
    check_reachable(store, name)
    with _folder(runs / name, group, progress) as folder, _threads(recipe):
        with group.first_alone():  # the others find what it has found out, drawn or downloaded
            dataset = load_dataset(
                recipe,
                folder=data,
                scratch=runs,
                outputs=(store,) if isinstance(store, Path) else (),
                workers=workers,
                strict=strict,
                cache_bytes=cache_bytes,
                sharers=group.local_size,
                progress=progress,
            )
        group.check_same(dataset.fingerprint, f"{data} has other data here than where the first process is")
        with group.first_alone():
            initial_weights = published or InitialWeights.of(recipe, None)  # last: it may have to be downloaded
        initial_weights.check_fits(recipe, dataset.labels)
        run = Run(recipe, name, dataset, initial_weights, on, folder, progress, 60 * save_minutes, save_steps, group)
        state = run.epochs(resume=resume)
        path, checkpoint, measured = _published(run, state, store)
        if group.is_first:
            _tell(run, state, checkpoint, measured, path=str(path), pictures=pictures)
    return path


def _published(run: Run, state: State, store: Address) -> tuple[Address, Checkpoint, measure.Measured]:
    """Publishes what was trained, by the first process, and returns it with what was measured.

    Raises: TrainingError if a store behind a URL cannot be written to; Interrupted; OSError.
    """
    dataset, group = run.dataset, run.group
    try:
        checkpoint, measured = _checkpoint(run, state)
        if group.is_first and not dataset.unchanged():
            run.progress.say("images were changed while the run went on: the fingerprint is that of its beginning")
        path = str(_version(checkpoint, store, run)) if group.is_first else ""
    except OSError as error:
        if isinstance(store, Path):
            raise
        raise TrainingError(
            f"{error}; all epochs are kept in {run.folder}: the same command and --resume publishes them"
        ) from error
    except KeyboardInterrupt as interrupt:
        raise Interrupted(
            f"interrupted while publishing: all epochs are kept in {run.folder}; "
            "the same command and --resume publishes them"
        ) from interrupt
    path = group.text_of_first(path)
    return Path(path) if isinstance(store, Path) else path, checkpoint, measured


def _version(checkpoint: Checkpoint, store: Address, run: Run) -> Address:
    """Publishes the checkpoint, unless processes that have ended since did it."""
    if run.group.restarts:
        path = published_already(checkpoint, store)
        if path is not None:
            return path
    return publish(checkpoint, store)


def _tell(
    run: Run, state: State, checkpoint: Checkpoint, measured: measure.Measured, *, path: str, pictures: bool
) -> None:
    """Draws pictures, if they are wanted, and says what was published. Raises: Interrupted."""
    try:
        if pictures:
            summary.draw(run.folder, checkpoint.manifest, measured, run.dataset.test, progress=run.progress)
            with EventFiles(run.folder, run.progress, after=state.epoch) as events:
                events.add_pictures(run.folder, state.best.epoch)
        summary.say(checkpoint.manifest, measured, path=path, progress=run.progress)
    except KeyboardInterrupt as interrupt:
        raise Interrupted(
            f"interrupted at the very end: {path} is published; only the pictures and the summary are missing"
        ) from interrupt


@contextlib.contextmanager
def _folder(folder: Path, group: ProcessGroup, progress: Progress) -> Iterator[Path]:
    """Gives the run's folder, which the first process holds for all."""
    if group.is_first:
        with only_run_in(folder, patience=_LOCK_SECONDS if group.restarts else 0.0, progress=progress):
            group.together()
            yield folder
    else:
        group.together()
        yield folder


@contextlib.contextmanager
def _threads(recipe: Recipe) -> Iterator[None]:
    """Computes in one thread where the weights shall not depend on how many there are."""
    before = torch.get_num_threads()
    try:
        if recipe.virtual_ranks > 1:
            torch.set_num_threads(1)
        yield
    finally:
        torch.set_num_threads(before)


def default_name(recipe: Recipe, data: Path | str) -> str:
    """Returns a name for the model: the data set's name, or that of the folder of photos, as far as it is allowed."""
    return re.sub(r"[^a-z0-9._-]+", "-", name_of(recipe, data).lower()).strip("-._")[:64] or "photos"


def _checkpoint(run: Run, state: State) -> tuple[Checkpoint, measure.Measured]:
    """Returns the weights to publish, calibrated on the held-out samples and measured on the test set."""
    recipe, dataset, best = run.recipe, run.dataset, state.best
    served = served_network(recipe.spec, best.weights, len(dataset.labels))
    network = served.network
    proof = reference(network, dataset.examples, recipe.preprocess)
    calibration, out_of_distribution = measure.calibrate(
        network, dataset.held_out, recipe.preprocess, run.device, run.group
    )
    measured = measure.measured(
        network,
        dataset.test,
        recipe.preprocess,
        run.device,
        name="test",
        temperature=calibration.temperature,
        group=run.group,
    )
    manifest = Manifest(
        model=run.name,
        architecture=recipe.architecture,
        labels=dataset.labels,
        preprocess=recipe.preprocess,
        metrics=measured.metrics,
        per_class=measured.evaluation.per_class,
        curve=tuple(EpochPoint.model_validate(point) for point in state.curve),
        provenance=_provenance(run, best),
        calibration=calibration,
        out_of_distribution=out_of_distribution,
        format=served.format,
        program=served.info,
        code=None if recipe.spec.code is None else recipe.spec.code.manifest(),
    )
    return served.checkpoint(manifest, proof, {"confusion": measured.evaluation.confusion}), measured


def _provenance(run: Run, best: Best) -> Provenance:
    dataset = run.dataset
    return Provenance(
        dataset=Dataset(
            name=dataset.name,
            samples=len(dataset.train) + len(dataset.held_out),
            fingerprint=dataset.fingerprint,
        ),
        recipe=run.recipe.model_dump(mode="json"),
        seed=run.recipe.seed,
        epoch=best.epoch,
        device=str(run.device) if not run.recipe.all_reduce else f"{run.group.size} x {run.device.type}",
        threads=torch.get_num_threads(),
        code_revision=code_revision(),
        versions=library_versions(),
        created=datetime.now(UTC).replace(microsecond=0),
        parent=run.initial_weights.name,
    )
