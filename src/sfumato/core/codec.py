"""The codec contract: pictures to codes and back. A code is a latent (B, C, h, w) or a grid of ids; decoding may itself be a sampler."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor

from .rng import Rows


@runtime_checkable
class Codec(Protocol):
    """Images (B, 3, H, W) in [-1, 1] to codes of H / factor rows, and back. Both ways are differentiable where the codes are."""

    @property
    def factor(self) -> int:
        """Pixels per code cell, along one side."""
        ...

    def encode(self, images: Tensor, noise: Tensor | None = None) -> Tensor:
        """Codes; `noise`: standard normal numbers for a codec whose codes are a distribution."""
        ...

    def decode(self, codes: Tensor, rows: Rows | None = None, steps: int | None = None) -> Tensor:
        """Images, not clamped. A codec that draws its details needs `rows`, the pictures' seeds, and takes `steps`, None = its own number;
        one that decodes in a single pass needs neither and refuses `steps` with a `UsageError`.
        """
        ...
