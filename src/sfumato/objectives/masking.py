"""Which patches of a picture a training step asks for, and the error over those alone (MicroDiT, arXiv 2407.15811, section 3)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.errors import ConfigError, UsageError
from ..core.rng import Draws

# 1 - 0.9 is a little less than 0.1: rounding must not cost a patch.
ROUNDING = 1e-9


@dataclass(frozen=True)
class Masking:
    """Of every picture a random `ratio` of its patches, `patch` latent cells a side, is left out; sampling leaves out none."""

    ratio: float = 0.75
    patch: int = 2

    def __post_init__(self) -> None:
        if not 0.0 <= self.ratio < 1.0 or self.patch < 1:
            raise ConfigError(f"{self.ratio} of the patches of {self.patch} are masked", "from 0 to less than 1, patches of at least 1")

    def kept(self, patches: int) -> int:
        """How many of a picture's patches are asked for."""
        return int(patches * (1 - self.ratio) + ROUNDING)

    def draw(self, latents: Tensor, draws: Draws) -> Tensor:
        """(B, K) rising numbers of the patches that stay, row by row, another choice for each picture (B, C, h, w)."""
        rows, columns = (side // self.patch for side in latents.shape[-2:])
        kept = self.kept(rows * columns)
        if not kept:
            raise UsageError(f"a ratio of {self.ratio} leaves none of {rows * columns} patches", "a smaller ratio, or larger pictures")
        order = draws.uniform((len(latents), rows * columns), "mask").argsort(dim=1)
        return order[:, :kept].sort(dim=1).values.to(latents.device)

    def mean(self, error: Tensor, keep: Tensor) -> Tensor:
        """(B,) mean over channels and cells of error (B, C, h, w), then over the patches that were kept."""
        patches = torch.nn.functional.avg_pool2d(error.mean(1, keepdim=True), self.patch).flatten(1)
        return patches.gather(1, keep).mean(1)
