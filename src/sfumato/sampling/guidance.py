"""Guidance: which lanes a step evaluates, and how their predictions combine. uncond + w (cond - uncond)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from ..core.errors import UsageError

RENORMS = ("none", "picture", "rows")


@dataclass(frozen=True)
class Guide:
    """Where guidance acts and what it may not do; saved with a model.

    interval: of t (Kynkäänniemi et al., arXiv 2404.07724); Lumina-Image 2.0's truncation after a share u of the way is (1 - u, 1).
    channels: of a latent, the first so many; the others follow the prompt. 0 = all; 3 in the code of DiT and Lumina-Next.
    renorm: "picture": a picture's guided prediction gets no longer than the prompt's own (Lumina-Image 2.0's code); "rows": each row of its
    cells is made as long as the prompt's own (that model in diffusers).
    """

    interval: tuple[float, float] = (0.0, 1.0)
    channels: int = 0
    renorm: Literal["none", "picture", "rows"] = "none"

    def __post_init__(self) -> None:
        low, high = self.interval
        if not 0.0 <= low < high <= 1.0:
            raise UsageError(f"the guidance interval is {self.interval}", "two times 0 <= low < high <= 1")
        if self.channels < 0:
            raise UsageError(f"guidance acts on {self.channels} channels", "a number of channels, 0 for all")
        if self.renorm not in RENORMS:
            raise UsageError(f"renorm is {self.renorm!r}", f"one of {', '.join(RENORMS)}")

    def settled(self, guided: Tensor, cond: Tensor) -> Tensor:
        """The guided prediction (B, C, h, w) with what this guide allows of it."""
        if self.renorm == "rows":
            guided = guided * (cond.norm(dim=-1, keepdim=True) / guided.norm(dim=-1, keepdim=True))
        if self.renorm == "picture":
            own, new = (x.flatten(1).norm(dim=1).view(-1, *(1,) * (x.ndim - 1)) for x in (cond, guided))
            guided = guided * (own / new).clamp(max=1.0)
        return torch.cat([guided[:, : self.channels], cond[:, self.channels :]], dim=1) if self.channels else guided


@dataclass(frozen=True)
class ClassifierFree:
    """Classifier-free guidance (Ho and Salimans, arXiv 2207.12598) with `weight`, as far as `guide` allows."""

    weight: float = 4.0
    guide: Guide = field(default_factory=Guide)

    def __post_init__(self) -> None:
        if not 0.0 <= self.weight <= 100.0:
            raise UsageError(f"guidance is {self.weight}", "0 to 100; 1 follows the prompt without amplifying it, 3 to 6 is usual")

    def acts(self, t: float) -> bool:
        return self.weight != 1.0 and self.guide.interval[0] <= t <= self.guide.interval[1]

    def lanes(self, t: float) -> tuple[str, ...]:
        """Lanes needed at time t; outside the interval the prompt's own lane is enough."""
        return ("cond", "uncond") if self.acts(t) else ("cond",)

    def combine(self, preds: Mapping[str, Tensor], t: float) -> Tensor:
        """One prediction from the lanes'; any prediction kind, since all are affine in each other at one x_t."""
        if not self.acts(t):
            return preds["cond"]
        cond, uncond = preds["cond"].float(), preds["uncond"].float()
        return self.guide.settled(uncond + self.weight * (cond - uncond), cond)
