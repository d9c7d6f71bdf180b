"""Squares cut out of pictures around boxes: how the judge looks closely at one thing in a scene, in training and when asked."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.rng import generator
from ..training.batches import Columns

MARGIN = 0.12
"""What is seen around a box, as a part of its longer side."""


def cut(images: Tensor, place: Tensor, boxes: Tensor, side: int) -> Tensor:
    """(N, 3, side, side) in [-1, 1]: of images[place] the squares around boxes (N, 4), as fractions, with a margin; white beyond it all.

    `images` (B, 3, H, W) in [-1, 1] or uint8; `place` (N,) row numbers.
    """
    chosen = images[place]
    ink = 1.0 - chosen.float() / 255.0 if chosen.dtype == torch.uint8 else 0.5 - 0.5 * chosen
    middle = boxes[:, :2] + boxes[:, 2:] - 1.0  # in [-1, 1]
    half = (0.5 + MARGIN) * (boxes[:, 2:] - boxes[:, :2]).amax(1) * 2.0
    theta = torch.zeros(len(boxes), 2, 3, device=ink.device)
    theta[:, 0, 0] = theta[:, 1, 1] = half
    theta[:, :, 2] = middle
    # Sampled at the picture's own size first: a large box read at a small one would skip pixels.
    fine = max(side, ink.shape[-1] // side * side)
    seen = F.grid_sample(ink, F.affine_grid(theta, [len(boxes), 3, fine, fine], align_corners=False), align_corners=False)
    return 1.0 - 2.0 * F.avg_pool2d(seen, fine // side)


@dataclass(frozen=True)
class Cuts:
    """A stream of things cut out of scenes: `rows` has `place`, `boxes` and whatever labels; `images` (M, 3, H, W) uint8.

    Boxes are moved and resized by up to `jitter` of their size, as a detector's are.
    """

    images: Tensor
    rows: Columns
    side: int = 128
    jitter: float = 0.08

    def batch(self, index: int) -> dict[str, Tensor]:
        batch = self.rows.batch(index)
        boxes = batch.pop("boxes")
        size = (boxes[:, 2:] - boxes[:, :2]).repeat(1, 2)
        moved = torch.rand(boxes.shape, generator=generator((self.rows.seed, "jitter", index))) * 2.0 - 1.0
        pictures = cut(self.images, batch.pop("place"), boxes + self.jitter * size * moved, self.side)
        return {"images": (127.5 * (pictures + 1.0)).round().to(torch.uint8), **batch}
