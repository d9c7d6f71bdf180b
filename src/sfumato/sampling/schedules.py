"""Time grids: from pure noise, t = 1, to data, t = 0, in fp64 so that composed shifts agree to the last fp32 bit."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from ..core.errors import UsageError

MAX_STEPS = 1000


def shift(t: Tensor, alpha: float) -> Tensor:
    """t' = alpha t / (1 + (alpha - 1) t) (arXiv 2403.03206, eq. 23): log-SNR moves by -2 log alpha, so alpha > 1 dwells on noise."""
    # Written so that 1 stays exactly 1: alpha / (1 + (alpha - 1)) rounds past it for some alpha.
    return alpha * t / (alpha * t + (1 - t))


def resolution_shift(base: float, pixels: int, base_pixels: int) -> float:
    """The shift for a picture of `pixels`, given the one used at `base_pixels`: alpha grows as sqrt(m / n)."""
    return base * math.sqrt(pixels / base_pixels)


def grid(steps: int, alpha: float = 1.0, kind: Literal["paper", "released"] = "paper") -> Tensor:
    """(steps + 1,) fp64 times from 1 to 0. "paper": even steps, shifted once. "released": SD3's public code and diffusers, which shift the
    smallest sigma before spacing and then shift again.

    Raises `UsageError` unless 1 <= steps <= 1000 and alpha > 0.
    """
    if not 1 <= steps <= MAX_STEPS:
        raise UsageError(f"steps is {steps}", f"a whole number from 1 to {MAX_STEPS}; 20 is a good start")
    if not 0 < alpha < math.inf:
        raise UsageError(f"shift is {alpha}", "a positive number; 1 leaves the grid even")
    if kind == "paper":
        return shift(torch.linspace(1, 0, steps + 1, dtype=torch.float64), alpha)
    smallest = float(shift(torch.tensor(1e-3, dtype=torch.float64), alpha))
    spaced = shift(torch.linspace(1, smallest, steps, dtype=torch.float64), alpha)
    return torch.cat([spaced, torch.zeros(1, dtype=torch.float64)])
