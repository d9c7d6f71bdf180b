"""Time grids: from pure noise, t = 1, to data, t = 0, in fp64 so that composed shifts agree to the last fp32 bit.

A `Layout` says how a model's times are laid out and is saved with it: shifted grids for flows, published spacings for discrete schedules.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from ..core.errors import ConfigError, UsageError

MAX_STEPS = 1000


def shift(t: Tensor, alpha: float) -> Tensor:
    """t' = alpha t / (1 + (alpha - 1) t) (arXiv 2403.03206, eq. 23): log-SNR moves by -2 log alpha, so alpha > 1 dwells on noise."""
    # Written so that 1 stays exactly 1: alpha / (1 + (alpha - 1)) rounds past it for some alpha.
    return alpha * t / (alpha * t + (1 - t))


def resolution_shift(base: float, pixels: int, base_pixels: int) -> float:
    """The shift for a picture of `pixels`, given the one used at `base_pixels`: alpha grows as sqrt(m / n)."""
    return base * math.sqrt(pixels / base_pixels)


def token_shift(tokens: int, ends: tuple[float, float, float, float]) -> float:
    """FLUX's shift exp(mu) for a picture of `tokens` tokens; `ends`: mu is ends[1] at ends[0] tokens, ends[3] at ends[2], linear."""
    least, low, most, high = ends
    return math.exp(low + (high - low) * (tokens - least) / (most - least))


def grid(steps: int, alpha: float = 1.0, kind: Literal["paper", "released", "late", "below"] = "paper") -> Tensor:
    """(steps + 1,) fp64 times from 1 to 0. "paper": even steps, shifted once. "released": SD3's public code and diffusers, which shift the
    smallest sigma before spacing and then shift again. "late": "paper" from 0.999 on (Sana's DPM-Solver, whose log-SNR is then finite).
    "below": even steps to a thousandth, of which the last is left out for 0, shifted; the first is a millionth below 1, where the log-SNR
    is finite (UniPC's public code on flows).

    Raises `UsageError` unless 1 <= steps <= 1000 and alpha > 0.
    """
    check_steps(steps)
    if not 0 < alpha < math.inf:
        raise UsageError(f"shift is {alpha}", "a positive number; 1 leaves the grid even")
    if kind == "paper":
        return shift(torch.linspace(1, 0, steps + 1, dtype=torch.float64), alpha)
    if kind == "below":
        times = shift(torch.linspace(1, 1e-3, steps + 1, dtype=torch.float64), alpha)
        times[0], times[-1] = 1 - 1e-6, 0.0
        return times
    if kind == "late":
        return shift(torch.linspace(0.999, 0, steps + 1, dtype=torch.float64), alpha)
    smallest = float(shift(torch.tensor(1e-3, dtype=torch.float64), alpha))
    spaced = shift(torch.linspace(1, smallest, steps, dtype=torch.float64), alpha)
    return torch.cat([spaced, torch.zeros(1, dtype=torch.float64)])


def check_steps(steps: int, most: int = MAX_STEPS) -> None:
    """Raise `UsageError` unless 1 <= steps <= most."""
    if not 1 <= steps <= most:
        raise UsageError(f"steps is {steps}", f"a whole number from 1 to {most}; 20 is a good start")


KINDS = ("paper", "released", "late", "below", "linspace", "leading", "trailing", "uniform")


@dataclass(frozen=True)
class Layout:
    """How times are laid out.

    kind: for flows "paper", "released", "late" and "below" (see `grid`); on a discrete schedule of N steps, n of which are walked (Lin et
    al., arXiv 2305.08891, table 2): "linspace" evenly from the last to the first, "leading" every (N // n)-th from the first, plus
    `offset`, "trailing" every (N / n)-th down from the last; "uniform": fractional steps, as DPM-Solver's and PixArt's own code has them.
    spare: "linspace" and "leading" lay out n + 1 steps and leave out the least noisy one (DPM-Solver's way; DDIM's is without).
    end: where the last step lands, the "data" or the "first" trained step.
    noise: what stands at the first step, where a little of the data is left: noise alone ("bare"; DDIM, DPM-Solver), or no stronger than
    it is there ("scaled"; Euler in sigmas).
    stride: how far a step goes: to the "next" one walked, as in DDIM's paper, or a "fixed" N // n down, as in diffusers' DDIM, which then
    takes the picture for one of the next step all the same. They differ with "linspace", and with "trailing" where n does not divide N.
    scaling: how the shift of a flow follows the size: as sqrt("pixels") (SD3's paper), not at all ("fixed": SD3's code), or by
    `token_shift` through `tokens` (FLUX).
    """

    kind: Literal["paper", "released", "late", "below", "linspace", "leading", "trailing", "uniform"] = "paper"
    scaling: Literal["pixels", "fixed", "tokens"] = "pixels"
    tokens: tuple[float, float, float, float] = (256.0, 0.5, 4096.0, 1.15)
    offset: int = 0
    spare: bool = False
    end: Literal["data", "first"] = "data"
    noise: Literal["bare", "scaled"] = "bare"
    stride: Literal["next", "fixed"] = "next"

    def __post_init__(self) -> None:
        plain = not self.offset and not self.spare and (self.end, self.noise, self.stride) == ("data", "bare", "next")
        if not self.discrete and not plain:
            raise ConfigError(f"a {self.kind!r} layout with offset, spare, end, noise or stride", "these belong to discrete schedules")
        if self.stride == "fixed" and (self.spare or self.kind == "uniform"):
            raise ConfigError(
                "a fixed stride over DPM-Solver's steps", "it is DDIM's, with linspace, leading or trailing and no spare step"
            )
        if self.offset and self.kind != "leading":
            raise ConfigError(f"an offset of {self.offset} steps with {self.kind!r} spacing", "only 'leading' reads it")

    @property
    def discrete(self) -> bool:
        return self.kind not in ("paper", "released", "late", "below")

    @property
    def whole(self) -> bool:
        """Whether it is of a solver that counts a flow's time in thousandths, in diffusers at least: DPM-Solver's and UniPC's."""
        return self.kind in ("late", "below")

    @property
    def first(self) -> Literal["whole", "bare", "scaled"]:
        """What stands at the first time (see `Ode.noise`), which may be below 1 but for "whole"."""
        return self.noise if self.discrete or self.whole else "whole"

    def times(self, steps: int, alpha: float, train_steps: int = 1000) -> Tensor:
        """(steps + 1,) fp64 times; of a discrete schedule of `train_steps` they begin below 1 with "leading". `alpha`: a flow's shift."""
        if self.kind == "paper" or self.kind == "released" or self.kind == "late" or self.kind == "below":
            return grid(steps, alpha, self.kind)
        if alpha != 1.0:
            raise UsageError(f"shift is {alpha}", "a discrete schedule has its own steps; a shift is for flows")
        check_steps(steps, min(MAX_STEPS, train_steps - self.spare))
        last = 0.0 if self.end == "data" else 1 / train_steps
        walked = (spaced(self.kind, steps, train_steps, self.spare) + self.offset + 1) / train_steps
        if walked[0] > 1:
            raise UsageError(
                f"{steps} steps begin at step {round(float(walked[0]) * train_steps) - 1} of {train_steps}", "fewer steps, or no offset"
            )
        return torch.cat([walked, torch.tensor([last], dtype=torch.float64)])

    def landings(self, steps: int, train_steps: int = 1000) -> Tensor | None:
        """(steps,) fp64 times where the steps of a fixed stride end; None where each ends at the next of `times`."""
        if self.stride == "next":
            return None
        ends = self.times(steps, 1.0, train_steps)
        stride = (train_steps // steps) / train_steps
        # What would lie before the first trained step is where a walk ends; half a step keeps the comparison clear of rounding.
        return torch.where(ends[:-1] - stride > 0.5 / train_steps, ends[:-1] - stride, ends[-1])


def spaced(kind: str, n: int, total: int, spare: bool) -> Tensor:
    """(n,) fp64 steps of `total`, the noisiest first. The published code rounds numpy's sums half to even: torch's differ in the last bit,
    which decides a half.
    """
    points = n + spare
    if kind == "leading":
        return ((total // points) * torch.arange(points, dtype=torch.float64)).flip(0)[:n]
    if kind == "trailing":
        # By its rounding numpy's row may hold one more, at no step at all.
        return torch.from_numpy(np.arange(total, 0, -total / n).round()[:n] - 1)
    if kind == "uniform":
        return torch.linspace(total - 1, 0, n + 1, dtype=torch.float64)[:n]
    return torch.from_numpy(np.linspace(0, total - 1, points).round()).flip(0)[:n]
