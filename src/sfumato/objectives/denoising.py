"""The denoising objective = coupling x time law x target x reduction: what one training sample asks of a network.

Rectified flow is the straight path with target flow = eps - x_0 (Liu et al., arXiv 2209.03003):

    L = E || u(x_t, t) - (eps - x_0) ||^2

EDM's (Karras et al., arXiv 2206.00364) has target x_0, and divides errors by the c_out of its precondition, so that the inner network's
answer weighs the same at every noise level. A masked objective (MicroDiT, arXiv 2407.15811) asks for some of the patches only.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from torch import Tensor

from ..core.paths import Path, Prediction, View, linear
from ..core.precondition import Edm
from ..core.rng import Draws
from .masking import Masking
from .times import LogitNormal, TimeLaw


@dataclass(frozen=True)
class Sample:
    """One corrupted batch: x_t and target (B, ...) in fp32, t (B,).   keep: (B, K) numbers of the patches asked for; None = all."""

    x_t: Tensor
    t: Tensor
    target: Tensor
    keep: Tensor | None = None

    def rows(self, index: Tensor) -> Sample:
        """Some rows of the batch."""
        return Sample(self.x_t[index], self.t[index], self.target[index], None if self.keep is None else self.keep[index])


@dataclass(frozen=True)
class Denoising:
    """Independent Gaussian noise, times from `law`, the target that `prediction` names; mean squared error.

    `precondition`: that of a network which predicts x0 through EDM's.   `masking`: which patches are asked for.
    """

    law: TimeLaw = field(default_factory=LogitNormal)
    path: Path = field(default_factory=linear)
    prediction: Prediction = "flow"
    precondition: Edm | None = None
    masking: Masking | None = None

    def draw(self, x0: Tensor, draws: Draws) -> Sample:
        """Corrupt a batch x0 (B, ...). Random numbers come from `draws`, before any forward pass."""
        t = self.law.sample(draws.uniform((len(x0),), "time")).to(x0.device)
        sample = self.at(x0, draws.normal(x0.shape, "noise").to(x0.device), t)
        return sample if self.masking is None else replace(sample, keep=self.masking.draw(x0, draws))

    def at(self, x0: Tensor, eps: Tensor, t: Tensor) -> Sample:
        """The sample with given noise and times."""
        x_t = self.path.mix(x0, eps, t)
        alpha, sigma = self.path.at(t, x_t)
        return Sample(x_t, t, View(x_t, x0.float(), eps.float(), alpha, sigma).get(self.prediction))

    def loss(self, prediction: Tensor, sample: Sample) -> Tensor:
        """(B,) squared error, averaged over everything but the batch, in fp32; with masking over the patches that were asked for."""
        error = prediction.float() - sample.target
        if self.precondition is not None:
            error = error / self.precondition.coefficients(*self.path.at(sample.t, error)).out
        if self.masking is None or sample.keep is None:
            return error.square().flatten(1).mean(1)
        return self.masking.mean(error.square(), sample.keep)
