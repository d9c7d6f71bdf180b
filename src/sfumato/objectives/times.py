"""Time laws: where on the path training looks. Each maps uniform numbers to t in (0, 1) by its quantile function and knows its density
(Esser et al., arXiv 2403.03206, section 3.1).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..core.errors import ConfigError, UnknownNameError


class TimeLaw(Protocol):
    """`sample(u)`: t of uniform u.   `density(t)`: p(t)."""

    def sample(self, u: Tensor) -> Tensor: ...

    def density(self, t: Tensor) -> Tensor: ...


@dataclass(frozen=True)
class Uniform:
    """t = u."""

    def sample(self, u: Tensor) -> Tensor:
        return u

    def density(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)


@dataclass(frozen=True)
class LogitNormal:
    """logit t ~ N(m, s^2). Negative m looks closer to the data."""

    m: float = 0.0
    s: float = 1.0

    def __post_init__(self) -> None:
        if self.s <= 0:
            raise ConfigError(f"the spread s of a logit-normal law is {self.s}", "a positive number")

    def sample(self, u: Tensor) -> Tensor:
        # The open interval: ndtri is infinite at 0 and 1.
        z = torch.special.ndtri(u.clamp(1e-6, 1 - 1e-6))
        return torch.sigmoid(self.m + self.s * z)

    def density(self, t: Tensor) -> Tensor:
        z = (torch.logit(t) - self.m) / self.s
        return torch.exp(-0.5 * z**2) / (self.s * math.sqrt(2 * math.pi) * t * (1 - t))


@dataclass(frozen=True)
class Mode:
    """t = 1 - u - s (cos^2(pi u / 2) - 1 + u): s > 0 favours the middle, s = 0 is uniform. s in [-1, 2 / (pi - 2)]."""

    s: float = 1.29

    def __post_init__(self) -> None:
        if not -1.0 <= self.s <= 2.0 / (math.pi - 2.0):
            raise ConfigError(f"the scale s of a mode law is {self.s}", f"-1 to {2 / (math.pi - 2):.4f}, where the map stays monotone")

    def sample(self, u: Tensor) -> Tensor:
        return 1 - u - self.s * (torch.cos(0.5 * math.pi * u) ** 2 - 1 + u)

    def density(self, t: Tensor) -> Tensor:
        """1 / |dt/du| at the u with t(u) = t, found by bisection (t falls as u rises)."""
        low, high = torch.zeros_like(t), torch.ones_like(t)
        for _ in range(60):
            middle = (low + high) / 2
            above = self.sample(middle) > t
            low, high = torch.where(above, middle, low), torch.where(above, high, middle)
        u = (low + high) / 2
        return 1 / (1 + self.s * (1 - 0.5 * math.pi * torch.sin(math.pi * u)))


@dataclass(frozen=True)
class CosMap:
    """t = 1 - 1 / (tan(pi u / 2) + 1), the law under which a straight path weighs noise levels as the cosine path does."""

    def sample(self, u: Tensor) -> Tensor:
        return 1 - 1 / (torch.tan(0.5 * math.pi * u) + 1)

    def density(self, t: Tensor) -> Tensor:
        return 2 / (math.pi - 2 * math.pi * t + 2 * math.pi * t**2)


LAWS: dict[str, Callable[[], TimeLaw]] = {"uniform": Uniform, "logit-normal": LogitNormal, "mode": Mode, "cosmap": CosMap}


def law(name: str) -> TimeLaw:
    """A time law by name, with its default parameters."""
    if name not in LAWS:
        raise UnknownNameError("time law", name, LAWS)
    return LAWS[name]()
