"""The distance of Zhang et al. ("LPIPS", arXiv 1801.03924, eq. 1) on features of our own:

    d(a, b) = sum_s mean_hw sum_c w_sc (f_sc(a) - f_sc(b))^2        f_s(x)[h, w] a unit vector, w >= 0

A stage reads the unit vectors of the one before at half the size. Pictures are pooled before they are thinned out (Zhang, arXiv
1904.11486), so that a shift by a pixel stays small; nothing looks beyond a place's own neighbourhood, so that any size of picture serves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, softplus

from ..core.errors import ConfigError

# Paper has no texture: below this length a vector is not stretched to a unit, or rounding would show as much as a drawing does.
FAINT = 1e-2


@dataclass(frozen=True)
class PerceptualConfig:
    """`widths`: channels of each stage; a stage sees half the rows and columns of the one before, the first sees pixels."""

    widths: tuple[int, ...] = (16, 32, 64, 96, 128)

    def __post_init__(self) -> None:
        if not self.widths or min(self.widths) < 1:
            raise ConfigError(f"widths are {self.widths}", "one number of channels for each stage, at least 1")

    @property
    def least(self) -> int:
        """The smallest side of a picture, in pixels."""
        return int(2 ** (len(self.widths) - 1))


class PerceptualNet(nn.Module):
    """Pictures (B, 3, H, W) in [-1, 1], sides of `config.least` or more, to features and distances."""

    def __init__(self, config: PerceptualConfig) -> None:
        super().__init__()
        self.config = config
        befores = (3, *config.widths[:-1])
        self.stages = nn.ModuleList(
            nn.Sequential(nn.Conv2d(a, b, 3, padding=1), nn.SiLU(), nn.Conv2d(b, b, 3, padding=1))
            for a, b in zip(befores, config.widths, strict=True)
        )
        # softplus(0.54) = 1: all channels count alike at first.
        self.weights = nn.ParameterList(torch.full((width,), 0.5413) for width in config.widths)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Unit vectors (B, C_s, H / 2^s, W / 2^s) of every stage s."""
        found: list[Tensor] = []
        for number, stage in enumerate(self.stages):
            # By the root of the channels, so that a number is about 1 at every stage.
            x = avg_pool2d(found[-1], 2) * self.config.widths[number - 1] ** 0.5 if number else images
            found.append(unit(stage(x)))
        return found

    def distance(self, a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
        """(B,) fp32 between two lists of features, 0 or more."""
        gaps = [(x.float() - y.float()).square() for x, y in zip(a, b, strict=True)]
        return torch.stack([(softplus(w) * gap.mean((2, 3))).sum(1) for w, gap in zip(self.weights, gaps, strict=True)]).sum(0)


def unit(x: Tensor) -> Tensor:
    """x (B, C, H, W) over its length, channels being one vector; in fp32."""
    x = x.float()
    return x * (x.square().sum(1, keepdim=True) + FAINT**2).rsqrt()
