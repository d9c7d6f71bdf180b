"""Discrete variance-preserving schedules, as DDPM-style checkpoints were trained on, read as a path over t in [0, 1].

    alpha_bar_k = prod_{j <= k} (1 - beta_j),   alpha = sqrt(alpha_bar),   sigma = sqrt(1 - alpha_bar)      (Ho et al., arXiv 2006.11239)

Step k = 0 ... N - 1 stands at t = (k + 1) / N, so that t = 1 is the last step, as noisy as the network has seen, and t = 0 the data, "step
-1". At a step alpha and sigma are the published ones; between two, alpha is on the straight line. Everything is computed in fp64, as in the
original code (OpenAI's); diffusers multiplies in fp32, which at the first steps of a cosine is off by 1e-3 of sigma^2.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache
from typing import Literal

import torch
from torch import Tensor

from .errors import ConfigError, UnknownNameError

CURVES = ("linear", "scaled_linear", "squaredcos_cap_v2")
TERMINALS = ("trained", "zero", "tiny")
# Times reach a path in fp32, where (k + 1) / N times N misses k + 1 by up to 1e-4 of a step.
SNAP = 1e-3


@dataclass(frozen=True)
class Betas:
    """A schedule of `steps` betas, saved with the model.

    curve: "linear" from `start` to `end`; "scaled_linear": linear in sqrt(beta) (Stable Diffusion); "squaredcos_cap_v2": those of
    alpha_bar(t) = cos^2((t + 0.008) / 1.008 * pi / 2), at most `end` = 0.999, `start` = 0 (Nichol and Dhariwal, arXiv 2102.09672).
    terminal: "trained", what the betas give; "zero": rescaled to alpha_bar_{N-1} = 0 (Lin et al., arXiv 2305.08891, algorithm 1); "tiny":
    the same with 2^-24 for zero, as diffusers' DPM-Solver has it.
    """

    curve: Literal["linear", "scaled_linear", "squaredcos_cap_v2"] = "linear"
    start: float = 1e-4
    end: float = 0.02
    steps: int = 1000
    terminal: Literal["trained", "zero", "tiny"] = "trained"

    def __post_init__(self) -> None:
        for kind, name, known in (("beta curve", self.curve, CURVES), ("terminal of a beta schedule", self.terminal, TERMINALS)):
            if name not in known:
                raise UnknownNameError(kind, name, known)
        if self.steps < 2:
            raise ConfigError(f"a schedule of {self.steps} steps", "at least 2; published ones have 1000")
        if self.curve == "squaredcos_cap_v2" and (self.start, self.end) != (0.0, 0.999):
            raise ConfigError(f"squaredcos_cap_v2 from {self.start} to {self.end}", "it begins at 0 and is capped at 0.999")
        if not 0 <= self.start <= self.end < 1 or self.end == 0:
            raise ConfigError(f"betas from {self.start} to {self.end}", "0 <= start <= end < 1; published ones run from 0.0001 to 0.02")

    def values(self) -> Tensor:
        """(N,) the betas as published, fp64, before any rescaling."""
        n = self.steps
        if self.curve == "linear":
            return torch.linspace(self.start, self.end, n, dtype=torch.float64)
        if self.curve == "scaled_linear":
            return torch.linspace(math.sqrt(self.start), math.sqrt(self.end), n, dtype=torch.float64) ** 2
        ramp = torch.cos((torch.arange(n + 1, dtype=torch.float64) / n + 0.008) / 1.008 * math.pi / 2) ** 2
        return (1 - ramp[1:] / ramp[:-1]).clamp_max(self.end)

    def alpha_bars(self) -> Tensor:
        """(N,) alpha_bar at every step, fp64."""
        bars = (1 - self.values()).cumprod(0)
        if self.terminal == "trained":
            return bars
        root = bars.sqrt()
        # Shifted so that the last is zero, scaled so that the first stays.
        bars = ((root - root[-1]) * root[0] / (root[0] - root[-1])) ** 2
        bars[-1] = 0.0 if self.terminal == "zero" else 2.0**-24
        return bars

    def time(self, step: Tensor) -> Tensor:
        """t of steps, fp64. -1 is the data."""
        return (step.double() + 1) / self.steps

    def step(self, t: Tensor) -> Tensor:
        """The step, fp64, of times: whole where t is a step's, fractional between, 0 for what lies before the first."""
        return (_position(t, self.steps) - 1).clamp_min(0.0)

    def alpha(self, t: Tensor) -> Tensor:
        return self._alpha(t).to(t)

    def sigma(self, t: Tensor) -> Tensor:
        return (1 - self._alpha(t) ** 2).sqrt().to(t)

    def _alpha(self, t: Tensor) -> Tensor:
        knots, place = _knots(self), _position(t, self.steps)
        below = place.floor().clamp(0, self.steps - 1).long()
        return torch.lerp(knots[below], knots[below + 1], place - below)


def _position(t: Tensor, steps: int) -> Tensor:
    """t in steps from the data, fp64 on the CPU (few numbers, and not every accelerator has fp64), on a step where it is one."""
    place = t.detach().cpu().double() * steps
    near = place.round()
    return torch.where((place - near).abs() < SNAP, near, place)


@cache
def _knots(betas: Betas) -> Tensor:
    """(N + 1,) alpha at t = 0, 1/N, ..., 1."""
    return torch.cat([torch.ones(1, dtype=torch.float64), betas.alpha_bars()]).sqrt()
