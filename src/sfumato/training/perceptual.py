"""The Task that trains the perceptual network: further along a distortion is further away, and another drawing is further than that.

Of a drawing x, two steps x_u and x_v along one distortion (u < v), and another drawing y, the distances should say

    d(x, x_u) < d(x, x_v) < d(x, y)

each as a logistic loss of log-distances. Nobody's opinion is learnt: which kind of distortion matters more follows from what tells
drawings apart. The last stage also has to find each drawing among the others of the batch (InfoNCE, arXiv 1807.03748).
"""

from __future__ import annotations

from collections.abc import MutableMapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, interpolate, normalize, softplus

from ..core.rng import Draws
from ..core.task import Batch, Loss, Phase
from ..perceptual.net import PerceptualNet
from .crops import cropped
from .distortions import TAUGHT, distorted


@dataclass(frozen=True)
class PerceptualTaskConfig:
    """`side`: in pixels, of what is seen of a picture.   `slope`: of the logistic losses, per unit of log-distance.

    `contrast`: weight of finding a drawing among the others, at `temperature`.
    """

    side: int = 64
    slope: float = 4.0
    contrast: float = 0.2
    temperature: float = 0.1


class PerceptualTask:
    """Batches hold `images` (B, 3, H, W) uint8 of at least `side` pixels, two of them or more."""

    def __init__(self, net: PerceptualNet, config: PerceptualTaskConfig) -> None:
        self.net, self.config = net, config
        self.modules: dict[str, nn.Module] = {"net": net}

    def phases(self, step: int) -> Sequence[Phase]:
        return [Phase("perceptual", ("net",))]

    def loss(self, phase: Phase, batch: Batch, carry: MutableMapping[str, Any], draws: Draws) -> Loss:
        ink = self._seen(1.0 - batch["images"].float() / 255.0, draws)
        count = len(ink)
        kinds = (draws.uniform((count,), "kind") * len(TAUGHT)).long().to(ink.device)
        less = 0.05 + 0.9 * draws.uniform((count,), "less").to(ink)
        more = less + (1 - less) * draws.uniform((count,), "more").to(ink)
        seen = torch.cat([ink, distorted(ink, less, draws, kinds), distorted(ink, more, draws, kinds)])
        parts = [feature.chunk(3) for feature in self.net(1.0 - 2.0 * seen)]
        here, near, far = ([part[i] for part in parts] for i in range(3))
        # Ghosts are mixed with the neighbour before: the one after is another drawing.
        other = [part.roll(-1, 0) for part in near]
        logs = [(self.net.distance(here, there) + 1e-8).log() for there in (near, far, other)]
        order, apart = (softplus(self.config.slope * (a - b)).mean() for a, b in ((logs[0], logs[1]), (logs[1], logs[2])))
        found = self._found(here[-1], near[-1])
        right = ((logs[0] < logs[1]).float().mean() + (logs[1] < logs[2]).float().mean()) / 2
        return Loss(order + apart + self.config.contrast * found, {"order": order, "apart": apart, "found": found, "right": right})

    def _seen(self, ink: Tensor, draws: Draws) -> Tensor:
        """Whole drawings made small and pieces of them, turn about: a piece may be paper alone, a small drawing has no fine lines."""
        side = self.config.side
        if draws.step % 2:
            return cropped(ink, side, draws)
        return interpolate(ink, size=(side, side), mode="bilinear", antialias=True)

    def _found(self, here: Tensor, near: Tensor) -> Tensor:
        a, b = (normalize(x.mean((2, 3)), dim=1) for x in (here, near))
        return cross_entropy(a @ b.T / self.config.temperature, torch.arange(len(a), device=a.device))
