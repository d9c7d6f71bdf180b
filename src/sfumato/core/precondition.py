"""EDM's preconditioning (Karras et al., arXiv 2206.00364, section 5): what a network F reads and says has unit size at every noise level.

    D(x; s) = c_skip x + c_out F(c_in x, ln(s) / 4),   x = x_0 + s eps
    c_skip = d^2 / (s^2 + d^2),   c_out = s d / sqrt(s^2 + d^2),   c_in = 1 / sqrt(s^2 + d^2),   d = sigma_data

Any path is that one rescaled: x_t = alpha x with s = sigma / alpha. On the straight path s = t / (1 - t), so that EDM's normal law of
ln s is the logit-normal law of t with the same two numbers, and nothing is infinite at t = 1 but ln(s), which is held within EDM's range.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from .errors import ConfigError


@dataclass(frozen=True)
class Coefficients:
    """For x_t rather than x: D = skip x_t + out F(into x_t, noise). All but noise broadcast over x_t; noise has t's shape."""

    skip: Tensor
    out: Tensor
    into: Tensor
    noise: Tensor


@dataclass(frozen=True)
class Edm:
    """`sigma_data`: standard deviation of the data.   `smallest`, `largest`: the noise s that a network may be told of."""

    sigma_data: float = 0.5
    smallest: float = 0.002
    largest: float = 80.0

    def __post_init__(self) -> None:
        if self.sigma_data <= 0 or not 0 < self.smallest < self.largest:
            raise ConfigError(f"sigma_data is {self.sigma_data}, noise from {self.smallest} to {self.largest}", "positive numbers, rising")

    def coefficients(self, alpha: Tensor, sigma: Tensor) -> Coefficients:
        """Of a path's alpha and sigma, shaped (B, 1, ...)."""
        total = (sigma**2 + (alpha * self.sigma_data) ** 2).sqrt()
        s = (sigma / alpha).clamp(self.smallest, self.largest)
        return Coefficients(alpha * self.sigma_data**2 / total**2, sigma * self.sigma_data / total, 1 / total, s.log().flatten() / 4)
