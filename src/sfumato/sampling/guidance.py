"""Guidance: which lanes a step evaluates, and how their predictions combine. uncond + w (cond - uncond)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from ..core.errors import UsageError


@dataclass(frozen=True)
class ClassifierFree:
    """Classifier-free guidance (Ho and Salimans, arXiv 2207.12598) with `weight`, while t lies in `interval`
    (Kynkäänniemi et al., arXiv 2404.07724).
    """

    weight: float = 4.0
    interval: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        if not 0.0 <= self.weight <= 100.0:
            raise UsageError(f"guidance is {self.weight}", "0 to 100; 1 follows the prompt without amplifying it, 3 to 6 is usual")
        low, high = self.interval
        if not 0.0 <= low < high <= 1.0:
            raise UsageError(f"the guidance interval is {self.interval}", "two times 0 <= low < high <= 1")

    def acts(self, t: float) -> bool:
        return self.weight != 1.0 and self.interval[0] <= t <= self.interval[1]

    def lanes(self, t: float) -> tuple[str, ...]:
        """Lanes needed at time t; outside the interval the prompt's own lane is enough."""
        return ("cond", "uncond") if self.acts(t) else ("cond",)

    def combine(self, preds: Mapping[str, Tensor], t: float) -> Tensor:
        """One prediction from the lanes'; any prediction kind, since all are affine in each other at one x_t."""
        if not self.acts(t):
            return preds["cond"]
        cond, uncond = preds["cond"].float(), preds["uncond"].float()
        return uncond + self.weight * (cond - uncond)
