"""Noise paths x_t = alpha(t) x_0 + sigma(t) eps, and the one place where predictions eps, x0, v, flow and velocity are converted.

t in [0, 1], 0 = data, 1 = noise. v = alpha eps - sigma x_0 (Salimans and Ho, arXiv 2202.00512). flow = eps - x_0, which on the straight
path is dx_t/dt (Liu et al., arXiv 2209.03003; Lipman et al., arXiv 2210.02747). velocity = x_0 - eps, the same on a clock that runs
from noise to data (Lumina-Next, arXiv 2406.18583).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from .discrete import Betas
from .errors import UnknownNameError

Prediction = Literal["eps", "x0", "v", "flow", "velocity"]
PREDICTIONS: tuple[Prediction, ...] = ("eps", "x0", "v", "flow", "velocity")


@dataclass(frozen=True)
class Path:
    """`alpha(t)` and `sigma(t)`, elementwise on fp32 tensors."""

    name: str
    alpha: Callable[[Tensor], Tensor]
    sigma: Callable[[Tensor], Tensor]

    def at(self, t: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        """alpha and sigma in fp32, shaped to broadcast over `like` (B, ...) from t (), (B,) or (B, N)."""
        t = t.float()
        shape = (*t.shape, *(1,) * (like.ndim - t.ndim)) if t.ndim else ()
        return self.alpha(t).reshape(shape), self.sigma(t).reshape(shape)

    def mix(self, x0: Tensor, eps: Tensor, t: Tensor) -> Tensor:
        """x_t in fp32."""
        alpha, sigma = self.at(t, x0)
        return alpha * x0.float() + sigma * eps.float()


def linear() -> Path:
    """The straight path of rectified flow: alpha = 1 - t, sigma = t."""
    return Path("linear", lambda t: 1.0 - t, lambda t: t)


def cosine() -> Path:
    """The variance-preserving path alpha = cos(pi t / 2), sigma = sin(pi t / 2) (Nichol and Dhariwal, arXiv 2102.09672, without offset)."""
    return Path("cosine", lambda t: torch.cos(0.5 * math.pi * t), lambda t: torch.sin(0.5 * math.pi * t))


PATHS: dict[str, Callable[[], Path]] = {"linear": linear, "cosine": cosine}


def path(name: str | Betas) -> Path:
    """A path by name, or the path of a discrete schedule."""
    if isinstance(name, Betas):
        return Path(str(name), name.alpha, name.sigma)
    if name not in PATHS:
        raise UnknownNameError("path", name, PATHS)
    return PATHS[name]()


@dataclass(frozen=True)
class View:
    """One prediction seen from every side. x_t, x0 and eps share a shape; alpha and sigma broadcast over it."""

    x_t: Tensor
    x0: Tensor
    eps: Tensor
    alpha: Tensor
    sigma: Tensor

    @property
    def v(self) -> Tensor:
        return self.alpha * self.eps - self.sigma * self.x0

    @property
    def flow(self) -> Tensor:
        return self.eps - self.x0

    @property
    def velocity(self) -> Tensor:
        return self.x0 - self.eps

    @property
    def score(self) -> Tensor:
        """grad log p(x_t) = - eps / sigma."""
        return -self.eps / self.sigma

    def get(self, prediction: Prediction) -> Tensor:
        if prediction not in PREDICTIONS:
            raise UnknownNameError("prediction", prediction, PREDICTIONS)
        value: Tensor = getattr(self, prediction)
        return value


def view(path: Path, prediction: Prediction, value: Tensor, x_t: Tensor, t: Tensor) -> View:
    """All sides of a prediction `value` made at (x_t, t), in fp32.

    eps at alpha = 0 says nothing of x0, and x0 at sigma = 0 nothing of eps: both then come out non-finite rather than invented.
    """
    x, value = x_t.float(), value.float()
    alpha, sigma = path.at(t, x)
    if prediction == "eps":
        return View(x, (x - sigma * value) / alpha, value, alpha, sigma)
    if prediction == "x0":
        return View(x, value, (x - alpha * value) / sigma, alpha, sigma)
    if prediction == "v":
        norm = alpha**2 + sigma**2
        return View(x, (alpha * x - sigma * value) / norm, (sigma * x + alpha * value) / norm, alpha, sigma)
    if prediction in ("flow", "velocity"):
        value = value if prediction == "flow" else -value
        total = alpha + sigma
        return View(x, (x - sigma * value) / total, (x + alpha * value) / total, alpha, sigma)
    raise UnknownNameError("prediction", prediction, PREDICTIONS)
