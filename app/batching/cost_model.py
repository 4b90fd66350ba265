"""What a batch costs, as a running estimate."""

from dataclasses import dataclass, field


@dataclass(slots=True)
class CostModel:
    """A running estimate of what a batch of n costs: fixed + per_item * n seconds.

    Least squares over an exponentially fading past; Welford's weighted form (West, "Updating mean and variance
    estimates", CACM 1979). While all batches had one size, the whole cost counts as per item: that errs on the
    short side, and larger batches then tell the two apart.
    """

    fading: float = 0.9
    weight: float = field(default=0.0, init=False)
    items: float = field(default=0.0, init=False)
    seconds: float = field(default=0.0, init=False)
    variance: float = field(default=0.0, init=False)
    covariance: float = field(default=0.0, init=False)

    def observe(self, items: int, seconds: float) -> None:
        self.weight = self.weight * self.fading + 1
        share = 1 / self.weight
        more_items, more_seconds = items - self.items, seconds - self.seconds
        self.items += share * more_items
        self.seconds += share * more_seconds
        self.variance = (1 - share) * (self.variance + share * more_items**2)
        self.covariance = (1 - share) * (self.covariance + share * more_items * more_seconds)

    def items_within(self, seconds: float) -> int:
        """Says how many items a batch may have to take no longer; at least 1, and just 1 while nothing was observed."""
        if not self.weight:
            return 1
        per_item = self.covariance / self.variance if self.variance > 1e-6 else 0.0
        fixed = self.seconds - per_item * self.items
        if per_item <= 0 or fixed < 0:
            fixed, per_item = 0.0, self.seconds / self.items
        return max(1, int((seconds - fixed) / per_item)) if per_item > 0 else 1_000_000
