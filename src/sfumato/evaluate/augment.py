"""What the judge's training does to a drawing: everything a generator may get a little wrong without drawing something else.

Place, size, tilt and perspective, colours, softness, codec-like texture, a covered patch; never a mirror image, which would make
one concept of "left arrow" and "right arrow". All numbers come from `Draws`; the paper stays white.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from ..core.rng import Draws

# Softened pictures are resampled through cells of this many pixels.
SOFTNESS = (2, 3, 4)


def augment(images: Tensor, draws: Draws, side: int, strength: Tensor, colours: Tensor | None = None) -> Tensor:
    """(B, 3, H, W) uint8 -> (B, 3, side, side) float in [-1, 1]. A pure function of its arguments.

    `strength` (B,) in [0, 1] scales all that is done to a picture; 0 leaves it as it is (but for its size). `colours` (B,): the strength
    with which its colours change, None = the same.
    """
    ink = 1.0 - images.float() / 255.0  # 0 = white paper, so that zero padding is paper
    if images.shape[-1] >= 2 * side:
        # Pooled first: sampling every other pixel would alias.
        ink = F.avg_pool2d(ink, images.shape[-1] // side)
    ink = warp(ink, draws, side, strength)
    ink = recolour(ink, draws, strength if colours is None else colours)
    ink = cover(ink, draws, strength)
    ink = degrade(ink, draws, strength)
    return (1.0 - 2.0 * ink).clamp(-1.0, 1.0)


def _spread(draws: Draws, shape: tuple[int, ...], purpose: str, device: torch.device) -> Tensor:
    """Uniform numbers in [-1, 1)."""
    return (draws.uniform(shape, purpose) * 2.0 - 1.0).to(device)


def homographies(u: Tensor) -> Tensor:
    """(B, 3, 3) maps from output to input coordinates (both in [-1, 1]) from u (B, 8) in [-1, 1).

    Scale by up to 1.22 with an aspect of 1.08, tilt 0.2 rad, shear 0.08, shift 0.12 of half the side, perspective 0.1.
    """
    scale, aspect, tilt = torch.exp(0.2 * u[:, 0]), torch.exp(0.08 * u[:, 1]), 0.2 * u[:, 2]
    shear = 0.08 * u[:, 3]
    cos, sin, one = torch.cos(tilt), torch.sin(tilt), torch.ones_like(tilt)
    rows = [
        torch.stack([scale * aspect * cos, -scale * sin + shear, 0.12 * u[:, 4]], 1),
        torch.stack([scale * sin, scale / aspect * cos, 0.12 * u[:, 5]], 1),
        torch.stack([0.1 * u[:, 6], 0.1 * u[:, 7], one], 1),
    ]
    return torch.stack(rows, 1)


def warp(ink: Tensor, draws: Draws, side: int, strength: Tensor) -> Tensor:
    """Shift, scale, tilt, shear and perspective, sampled at side x side; one in eight pictures keeps its shape."""
    count, height, width = len(ink), side, side
    u = strength[:, None] * _spread(draws, (count, 8), "warp", ink.device)
    u[draws.uniform((count,), "warped").to(ink.device) < 0.125] = 0.0
    ys, xs = torch.meshgrid(*(torch.linspace(-1 + 1 / n, 1 - 1 / n, n, device=ink.device) for n in (height, width)), indexing="ij")
    points = torch.stack([xs, ys, torch.ones_like(xs)], -1).view(-1, 3)
    mapped = points @ homographies(u).transpose(1, 2)
    grid = (mapped[..., :2] / mapped[..., 2:]).view(count, height, width, 2)
    return F.grid_sample(ink, grid, mode="bilinear", padding_mode="zeros", align_corners=False)


def recolour(ink: Tensor, draws: Draws, strength: Tensor) -> Tensor:
    """A colour matrix near the identity per picture: saturation 0.5 to 1.5, density 0.8 to 1.2, channels mixed by up to 0.12."""
    count = len(ink)
    u = strength[:, None] * _spread(draws, (count, 11), "colour", ink.device)
    saturation = 1.0 + 0.5 * u[:, 0]
    density = 1.0 + 0.2 * u[:, 1]
    eye = torch.eye(3, device=ink.device)
    matrix = saturation[:, None, None] * eye + (1.0 - saturation)[:, None, None] / 3.0
    matrix = density[:, None, None] * (matrix + 0.12 * u[:, 2:].view(count, 3, 3))
    return torch.einsum("bij,bjhw->bihw", matrix, ink).clamp(0.0, 1.0)


def cover(ink: Tensor, draws: Draws, strength: Tensor) -> Tensor:
    """A patch of a quarter of the side or less hides part of one picture in four, in one colour (arXiv 1708.04896)."""
    count, _, height, width = ink.shape
    u = draws.uniform((count, 8), "cover").to(ink.device)[..., None, None]
    ys = torch.linspace(0, 1, height, device=ink.device)[None, :, None]
    xs = torch.linspace(0, 1, width, device=ink.device)[None, None, :]
    inside = (
        ((ys - u[:, 0]).abs() < 0.02 + 0.13 * u[:, 1])
        & ((xs - u[:, 2]).abs() < 0.02 + 0.13 * u[:, 3])
        & (u[:, 4] < 0.25 * strength[:, None, None])
    )
    return torch.where(inside[:, None], u[:, 5:8], ink)


def degrade(ink: Tensor, draws: Draws, strength: Tensor) -> Tensor:
    """What a small codec and a short training leave behind: softness or ringing, and texture of 2 and 8 pixels."""
    count, _, height, width = ink.shape
    u = draws.uniform((count, 4), "degrade").to(ink.device)[..., None, None, None]
    cell = SOFTNESS[int(draws.uniform((1,), "softness") * len(SOFTNESS))]
    soft = F.interpolate(F.avg_pool2d(ink, cell, ceil_mode=True), size=(height, width), mode="bilinear")
    # Half of the pictures: from a third past sharp (ringing) to fully soft.
    amount = torch.where(u[:, 0] < 0.5 * strength[:, None, None, None], 1.33 * u[:, 1] - 0.33, torch.zeros_like(u[:, 1]))
    ink = ink + amount * (soft - ink)
    fine = draws.normal((count, 3, height // 2, width // 2), "fine").to(ink.device)
    wide = draws.normal((count, 3, height // 8, width // 8), "wide").to(ink.device)
    texture = F.interpolate(fine, size=(height, width), mode="nearest") + F.interpolate(wide, size=(height, width), mode="bilinear")
    return ink + torch.where(u[:, 2] < 0.5 * strength[:, None, None, None], 0.08 * u[:, 3], torch.zeros_like(u[:, 3])) * texture
