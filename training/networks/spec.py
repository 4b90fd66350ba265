"""Says which network is meant, and makes it: one that the server knows by name, timm's, or a person's own."""

from dataclasses import dataclass
from typing import Self

from pydantic import JsonValue
from torch import nn

from classifier import architectures
from classifier.preprocess import Preprocess
from training.errors import TrainingError
from training.networks import own_code, timm_networks
from training.networks.code_files import is_own_code

_LAYER_NORMS = ("LayerNorm", "RMSNorm", "RmsNorm")


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """Names a network, with all that decides its shapes but the number of classes.

    Args:
        architecture: `resnet18`, or another name that `classifier.architectures` knows; or `timm/convnext_atto`; or
            `my_net.py:Net`, or `package.module:factory`.
        shape: of an image as the network takes it: (channels, height, width).
        options: more keywords of its constructor, with their values.
    """

    architecture: str
    shape: tuple[int, int, int] = (3, 224, 224)
    options: tuple[tuple[str, JsonValue], ...] = ()

    @classmethod
    def of(cls, architecture: str, preprocess: Preprocess, options: dict[str, JsonValue] | None = None) -> Self:
        """Returns the spec of a network that takes the images of a preprocess."""
        height, width, channels = preprocess.shape
        return cls(architecture, (channels, height, width), tuple((options or {}).items()))

    def __str__(self) -> str:
        return self.architecture

    @property
    def is_built_in(self) -> bool:
        """Whether a server makes this network by its name. Any other is published as a program."""
        return not (self.is_own_code or self.is_timm)

    @property
    def is_timm(self) -> bool:
        """Whether timm makes this network."""
        return timm_networks.is_timm(self.architecture)

    @property
    def is_own_code(self) -> bool:
        """Whether a person's own code makes this network."""
        return is_own_code(self.architecture)

    @property
    def code(self) -> own_code.OwnCode | None:
        """The code that makes it; None: it is nobody's own. Raises: TrainingError if the code cannot be loaded."""
        return own_code.known(self.architecture) if self.is_own_code else None

    @property
    def has_layer_norms(self) -> bool:
        """Whether there are layer norms in it, as in transformers and ConvNeXt. Raises: as `meta` does."""
        return any(type(module).__name__.startswith(_LAYER_NORMS) for module in self.meta(2).modules())

    def check(self) -> None:
        """Checks that there is such a network, and that it takes the options.

        Raises: TrainingError if not; TorchvisionError.
        """
        if self.is_own_code:
            own_code.check(self.architecture, dict(self.options))
            return
        if self.is_timm:
            timm_networks.check(self.architecture, self.options)
            return
        if self.options:
            raise TrainingError(f"network.{self.options[0][0]}: {self.architecture} takes no such values")
        try:
            architectures.check_known(self.architecture)
        except ValueError as error:
            raise TrainingError(str(error)) from error

    def build(self, num_classes: int) -> nn.Module:
        """Returns the network with fresh weights, by torch's own random numbers.

        It maps float [n, channels, height, width] to logits [n, num_classes].

        Raises: TrainingError if there is none such; TorchvisionError.
        """
        if self.is_own_code:
            return own_code.build(self.architecture, num_classes, self.shape, dict(self.options))
        if self.is_timm:
            return timm_networks.build(self.architecture, num_classes, self.shape, self.options)
        self.check()
        return architectures.build(self.architecture, num_classes)

    def meta(self, num_classes: int) -> nn.Module:
        """Returns what `build` returns, with names, types and shapes, but without values. It draws no random number.

        It may be the same one each time: leave it as it is.

        Raises: TrainingError if there is none such; TorchvisionError.
        """
        if self.is_own_code:
            return own_code.meta(self.architecture, num_classes, self.shape, dict(self.options))
        if self.is_timm:
            return timm_networks.meta(self.architecture, num_classes, self.shape, self.options)
        self.check()
        return architectures.meta_network(self.architecture, num_classes)
