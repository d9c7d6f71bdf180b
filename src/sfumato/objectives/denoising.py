"""The denoising objective = coupling x time law x target x reduction: what one training sample asks of a network.

Rectified flow is the straight path with target flow = eps - x_0 (Liu et al., arXiv 2209.03003):

    L = E || u(x_t, t) - (eps - x_0) ||^2
"""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from ..core.paths import Path, Prediction, View, linear
from ..core.rng import Draws
from .times import LogitNormal, TimeLaw


@dataclass(frozen=True)
class Sample:
    """One corrupted batch: x_t and target (B, ...) in fp32, t (B,)."""

    x_t: Tensor
    t: Tensor
    target: Tensor


@dataclass(frozen=True)
class Denoising:
    """Independent Gaussian noise, times from `law`, the target that `prediction` names; mean squared error."""

    law: TimeLaw = field(default_factory=LogitNormal)
    path: Path = field(default_factory=linear)
    prediction: Prediction = "flow"

    def draw(self, x0: Tensor, draws: Draws) -> Sample:
        """Corrupt a batch x0 (B, ...). Random numbers come from `draws`, before any forward pass."""
        t = self.law.sample(draws.uniform((len(x0),), "time")).to(x0.device)
        return self.at(x0, draws.normal(x0.shape, "noise").to(x0.device), t)

    def at(self, x0: Tensor, eps: Tensor, t: Tensor) -> Sample:
        """The sample with given noise and times."""
        x_t = self.path.mix(x0, eps, t)
        alpha, sigma = self.path.at(t, x_t)
        return Sample(x_t, t, View(x_t, x0.float(), eps.float(), alpha, sigma).get(self.prediction))

    def loss(self, prediction: Tensor, sample: Sample) -> Tensor:
        """(B,) squared error, averaged over everything but the batch, in fp32."""
        return (prediction.float() - sample.target).square().flatten(1).mean(1)
