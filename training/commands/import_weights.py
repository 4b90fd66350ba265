"""Publishes weights in a file that another program wrote. Nothing of the file is run."""

from collections.abc import Sequence
from pathlib import Path

from classifier.preprocess import Preprocess
from classifier.progress import Progress
from training.commands.imported import Served, agreed, note_to, prepared, publish_network
from training.errors import TrainingError
from training.networks import foreign, own_code
from training.networks.code_files import is_own_code
from training.networks.spec import NetworkSpec
from training.networks.weights import adapt_state_dict
from training.networks.words import in_words
from training.publishing import sidecar
from training.publishing.publish import Address


def import_weights(
    path: Path,
    *,
    architecture: str | None = None,
    network: str | None = None,
    labels: tuple[str, ...] | None = None,
    store: Address,
    name: str | None = None,
    entry: str | None = None,
    preprocess: Preprocess | None = None,
    settings: Sequence[str] = (),
    examples: Path | None = None,
    progress: Progress | None = None,
) -> Address:
    """Publishes the weights in a .pth, .pth.tar, .ckpt or .safetensors file, and returns the path of the new version.

    What the file does not say is taken from `<path>.json`, if `export` wrote one there. A file never decides which code
    is run: a network of somebody's own is made only if the caller names it.

    Args:
        architecture: None: `network`, or else the one that the file names.
        network: a person's own code, such as `my_net.py:Net` or `package.module:factory`; None: it is none.
        labels: by class index; None: those that the file holds.
        name: the model's name; None: it is called as its architecture is.
        entry: the key of the weights in the file, or a prefix of their names; None: what is usual.
        preprocess: None: what the file says; else what is usual for the architecture, with a word.
        settings: changes of the form `preprocess.key=value`, and `network.key=value` for the constructor's keywords.
        examples: a folder of images for the reference batch; None: pictures are drawn.
        progress: is told what was taken, left out, and guessed.

    Raises:
        TrainingError: the file, the code, the labels, the preprocess or the name cannot be used.
        TorchvisionError: torchvision is needed and cannot be imported.
        OSError: the store cannot be written to.
    """
    note = note_to(progress, path.name)
    content = foreign.read(path, entry)
    for line in content.notes:
        note(line)
    sha256 = sidecar.sha256_of(path)
    beside = None if content.manifest else sidecar.read(path, sha256, note=note)
    known = sidecar.Sidecar.of(content.manifest) if content.manifest else beside
    named = _named(architecture, network)
    if named is None and content.manifest and content.manifest.program:
        raise TrainingError(
            f"{path} is a published checkpoint that holds its network: copy it to "
            f"{store}/NAME/NUMBER.safetensors, and it is served"
        )
    architecture = named or _said(path, known.architecture if known else content.architecture)
    said = dict(content.labels) | ({sidecar.path_of(path).name: beside.labels} if beside else {})
    labels = agreed(path, said, labels)
    chosen, options = prepared(architecture, preprocess, known.preprocess if known else None, settings, note)
    spec = NetworkSpec.of(architecture, chosen, options)
    weights = adapt_state_dict(content.state_dict, spec, len(labels), note=note)
    if named is None:
        note(f"says that it is of {architecture}")
    served = Served(architecture, weights, labels, chosen)
    served = served.with_measured(known, note) if known else served
    return publish_network(
        spec, served, source=path.name, sha256=sha256, store=store, name=name, examples=examples, note=note
    )


def _named(architecture: str | None, network: str | None) -> str | None:
    """Returns the architecture that the caller names. Raises: TrainingError if it is code that cannot be loaded."""
    if network is None:
        if architecture is not None and is_own_code(architecture):
            raise TrainingError(f"--architecture {architecture}: --network names code of your own")
        return architecture
    if architecture is not None:
        raise TrainingError("--architecture and --network: name one network")
    return own_code.known(network).architecture


def _said(path: Path, architecture: str | None) -> str:
    """Returns the architecture that a file names. Raises: TrainingError if it names none, or somebody's own code."""
    if architecture is None:
        raise TrainingError(f"{path} does not say which network it is of: --architecture is needed, or --network")
    if is_own_code(architecture):
        raise TrainingError(
            f"{path} says that it is of {in_words(architecture)}. Code is run only if you name it: --network, and "
            "where that code lies, e.g. --network my_net.py:Net"
        )
    return architecture
