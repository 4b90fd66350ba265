"""Publishes a network of a person's own code with the weights that its constructor gives it."""

from collections.abc import Sequence
from pathlib import Path

import torch

from classifier.preprocess import Preprocess
from classifier.progress import Progress
from training.commands.imported import Served, note_to, prepared, publish_network
from training.errors import TrainingError
from training.networks import own_code
from training.networks.spec import NetworkSpec
from training.networks.weights import Weights, adapt_state_dict
from training.publishing.publish import Address


def import_network(
    network: str,
    *,
    labels: tuple[str, ...],
    store: Address,
    name: str | None = None,
    preprocess: Preprocess | None = None,
    settings: Sequence[str] = (),
    examples: Path | None = None,
    progress: Progress | None = None,
) -> Address:
    """Publishes a network of somebody's own code with the weights that its constructor gives it.

    The constructor may read or download the weights.

    Args:
        network: such as `my_net.py:trained` or `package.module:factory`.
        labels: by class index.
        name: the model's name; None: it is called as its architecture is.
        preprocess: None: what is usual for ImageNet, with a word.
        settings: changes of the form `preprocess.key=value`, and `network.key=value` for the constructor's keywords.
        examples: a folder of images for the reference batch; None: pictures are drawn.
        progress: is told what was guessed and changed.

    Returns: the path of the new version.

    Raises:
        TrainingError: the code, the labels, the preprocess or the name cannot be used, or the constructor draws its
            weights at random.
        OSError: the store cannot be written to.
    """
    architecture = own_code.known(network).architecture
    note = note_to(progress, architecture)
    chosen, options = prepared(architecture, preprocess, None, settings, note)
    spec = NetworkSpec.of(architecture, chosen, options)
    weights, others = (_made(spec, len(labels), seed) for seed in (0, 1))
    if any(not tensor.equal(others[name]) for name, tensor in weights.items()):
        raise TrainingError(f"{architecture} draws its weights at random: name the file that holds trained ones")
    served = Served(architecture, adapt_state_dict(weights, spec, len(labels), note=note), labels, chosen)
    return publish_network(
        spec, served, source=architecture, sha256=None, store=store, name=name, examples=examples, note=note
    )


def _made(spec: NetworkSpec, num_classes: int, seed: int) -> Weights:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return spec.build(num_classes).state_dict()
