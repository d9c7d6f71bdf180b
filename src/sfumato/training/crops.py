"""Squares cut out of pictures: cheaper steps than whole ones."""

from __future__ import annotations

import torch
from torch import Tensor

from ..core.rng import Draws


def cropped(images: Tensor, side: int, draws: Draws) -> Tensor:
    """(B, C, side, side) of images (B, C, H, W) of at least that size, each from a place of its own."""
    height, width = images.shape[-2:]
    corners = draws.uniform((len(images), 2), "crop")
    tops, lefts = ((corners[:, i] * (n - side + 1)).long().tolist() for i, n in enumerate((height, width)))
    return torch.stack([i[:, t : t + side, c : c + side] for i, t, c in zip(images, tops, lefts, strict=True)])
