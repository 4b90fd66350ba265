"""Scores from logits how like the images of training an image is: the same for both sides, to the last bit."""

from collections.abc import Callable

import torch

Score = Callable[[torch.Tensor], torch.Tensor]

# The scores by their names in the manifest. Each makes float32 [n] of float32 logits [n, classes], as the network gives
# them: the temperature plays no part. The higher a score is, the more like those of training is the image.
SCORES: dict[str, Score] = {
    # Liu et al. 2020, "Energy-based Out-of-distribution Detection": minus the free energy, the log of the sum of
    # exponentials. As the likeliest class's logit less its log-probability, it takes half the time of torch.logsumexp.
    "energy": lambda logits: torch.amax(logits, dim=1) - torch.amax(torch.log_softmax(logits, dim=1), dim=1),
    "max_logit": lambda logits: torch.amax(logits, dim=1),
    "max_probability": lambda logits: torch.amax(torch.softmax(logits, dim=1), dim=1),
}
