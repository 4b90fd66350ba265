"""Measures how good weights are: by the same figures at the end of training and in each evaluation later."""

from dataclasses import dataclass

import torch
from torch import nn

from classifier.manifest import Calibration, Metrics, OutOfDistribution
from classifier.normalize import normalizer
from classifier.preprocess import Preprocess
from classifier.scores import SCORES
from training.data.batches import Split
from training.evaluation import calibration
from training.evaluation.logits import logits_of
from training.evaluation.metrics import EvaluationMetrics
from training.process_group import ALONE, ProcessGroup


@dataclass(frozen=True, slots=True, eq=False)
class Measured:
    """Holds what was measured on the samples of one split.

    Args:
        split: the name of the split, such as "test".
        logits: float32 [n, classes], on the CPU.
        targets: int64 [n], on the CPU.
    """

    split: str
    logits: torch.Tensor
    targets: torch.Tensor
    evaluation: EvaluationMetrics

    @property
    def metrics(self) -> Metrics:
        """The figures that a manifest holds."""
        return Metrics(
            split=self.split,
            samples=len(self.targets),
            accuracy=self.evaluation.accuracy,
            loss=self.evaluation.loss,
            calibration_error=self.evaluation.after.ece,
            uncalibrated_error=self.evaluation.before.ece,
        )


def calibrate(
    network: nn.Module, held_out: Split, preprocess: Preprocess, device: torch.device, group: ProcessGroup = ALONE
) -> tuple[Calibration, OutOfDistribution]:
    """Fits what makes answers honest on held-out samples: the temperature, and the score that 95 % of them reach.

    Afterwards the network is on `device`.

    Args:
        group: the processes that share the work.

    Raises: ValueError if a logit is not finite.
    """
    logits = _logits(network, held_out, preprocess, device, group)
    return (
        Calibration(temperature=calibration.temperature(logits, held_out.targets)),
        OutOfDistribution(method="energy", threshold=calibration.threshold(SCORES["energy"](logits))),
    )


def measured(
    network: nn.Module,
    split: Split,
    preprocess: Preprocess,
    device: torch.device,
    *,
    name: str,
    temperature: float,
    group: ProcessGroup = ALONE,
) -> Measured:
    """Measures the network on a split. Afterwards the network is on `device`.

    Args:
        name: the name of the split.
        temperature: what the logits are divided by for the calibrated figures.
        group: the processes that share the work.

    Raises: ValueError if a logit is not finite.
    """
    logits = _logits(network, split, preprocess, device, group)
    return Measured(name, logits, split.targets, EvaluationMetrics.of(logits, split.targets, temperature=temperature))


def _logits(
    network: nn.Module, split: Split, preprocess: Preprocess, device: torch.device, group: ProcessGroup
) -> torch.Tensor:
    network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    normalize = normalizer(preprocess, device=device)
    return logits_of(network, split, forward=lambda images: network(normalize(images)), device=device, group=group)
