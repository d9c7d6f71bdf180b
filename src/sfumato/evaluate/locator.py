"""Where things are: one small network that finds the centres of things and of signs in a picture, and the box around each.

Centres as points of a heat map (CenterNet, Zhou et al., arXiv 1904.07850), boxes as distances to their four sides (FCOS, arXiv
1904.01355) at a quarter of the resolution. It names nothing: what a thing is, the judge says when it looks closely (`cuts.py`).
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.rng import Draws
from ..core.task import Batch, Loss, Phase
from .augment import degrade, recolour
from .judge_net import Bottleneck

KINDS = ("thing", "sign")
STRIDE = 4
MOST = 16
"""Boxes of one picture that training knows of; scenes hold ten at most."""


class Locator(nn.Module):
    """Images (B, 3, H, W) in [-1, 1] -> heat logits (B, 2, H/4, W/4) and boxes (B, 4, H/4, W/4), distances from a cell's middle to the
    left, top, right and bottom side as fractions of the picture. H and W are multiples of 32."""

    def __init__(self, widths: tuple[int, int, int, int] = (48, 96, 192, 256), out: int = 96) -> None:
        super().__init__()
        first = widths[0]
        self.stem = nn.Sequential(
            nn.Conv2d(3, 24, 3, 2, 1, bias=False),
            nn.BatchNorm2d(24),
            nn.ReLU(),
            nn.Conv2d(24, first, 3, 2, 1, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(),
        )
        entries = [
            nn.Identity(),
            *(nn.Sequential(nn.Conv2d(a, b, 2, 2, bias=False), nn.BatchNorm2d(b)) for a, b in pairwise(widths)),
        ]
        self.levels = nn.ModuleList(nn.Sequential(entry, Bottleneck(w), Bottleneck(w)) for entry, w in zip(entries, widths, strict=True))
        self.sides = nn.ModuleList(nn.Conv2d(w, out, 1) for w in widths)
        self.mix = nn.Sequential(nn.Conv2d(out, out, 3, padding=1, bias=False), nn.BatchNorm2d(out), nn.ReLU(), Bottleneck(out))
        self.heat, self.box = nn.Conv2d(out, len(KINDS), 1), nn.Conv2d(out, 4, 1)
        # Most cells are no centre: without this start the first steps push every cell down at once.
        nn.init.constant_(self.heat.bias, -4.0)  # type: ignore[arg-type]
        nn.init.constant_(self.box.bias, -2.0)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem((images - 1.0).contiguous(memory_format=torch.channels_last))
        levels: list[Tensor] = []
        for level in self.levels:
            x = level(x)
            levels.append(x)
        y = self.sides[-1](levels[-1])
        for side, x in zip(reversed(self.sides[:-1]), reversed(levels[:-1]), strict=True):
            y = F.interpolate(y, scale_factor=2.0) + side(x)
        y = self.mix(y)
        return self.heat(y).float(), F.softplus(self.box(y).float())


@dataclass(frozen=True)
class Found:
    """What is in one picture: `boxes` (N, 4) as fractions, `heat` (N,) in [0, 1], highest first, `sign` (N,) bool."""

    boxes: Tensor
    heat: Tensor
    sign: Tensor


def decode(heat: Tensor, distances: Tensor, least: float = 0.1, most: int = 24, overlap: float = 0.6) -> list[Found]:
    """Peaks of the heat maps (logits) of at least `least`, at most `most` a picture; of two boxes that overlap by more than `overlap`
    (intersection over union) the weaker goes."""
    share = heat.sigmoid()
    peaks = torch.where(F.max_pool2d(share, 3, 1, 1) == share, share, 0.0)
    boxes = corners(distances)
    found = []
    for peak, box in zip(peaks, boxes, strict=True):
        height, width = peak.shape[1:]
        value, at = peak.flatten().topk(min(most, peak.numel()))
        at, value = at[value >= least], value[value >= least]
        cell = at % (height * width)
        chosen, sign = box.flatten(1).T[cell].clamp(0.0, 1.0), at // (height * width) == 1
        kept: list[int] = []
        overlaps = iou(chosen, chosen)
        for i in range(len(chosen)):
            if all(float(overlaps[i, k]) <= overlap or bool(sign[i] != sign[k]) for k in kept):
                kept.append(i)
        rows = torch.tensor(kept, dtype=torch.long)
        found.append(Found(chosen[rows], value[rows], sign[rows]))
    return found


def corners(distances: Tensor) -> Tensor:
    """(B, 4, h, w) x0, y0, x1, y1 as fractions, from distances to the sides."""
    ys, xs = _middles(distances)
    left, top, right, bottom = distances.unbind(1)
    return torch.stack([xs - left, ys - top, xs + right, ys + bottom], 1)


def _middles(maps: Tensor) -> tuple[Tensor, Tensor]:
    """The cells' middles as fractions: (h, 1) and (1, w)."""
    height, width = maps.shape[-2:]
    ys = (torch.arange(height, device=maps.device) + 0.5) / height
    return ys[:, None], (torch.arange(width, device=maps.device) + 0.5)[None] / width


def iou(a: Tensor, b: Tensor) -> Tensor:
    """(N, M) intersection over union of boxes (N, 4) and (M, 4)."""
    low, high = torch.maximum(a[:, None, :2], b[None, :, :2]), torch.minimum(a[:, None, 2:], b[None, :, 2:])
    shared = (high - low).clamp(min=0).prod(-1)
    area = [(boxes[:, 2:] - boxes[:, :2]).clamp(min=0).prod(-1) for boxes in (a, b)]
    return shared / (area[0][:, None] + area[1][None] - shared).clamp(min=1e-9)


class LocatorTask:
    """Batches hold `images` (B, 3, H, W) uint8, `boxes` (B, MOST, 4) as fractions and `kind` (B, MOST): 0 thing, 1 sign, -1 none."""

    def __init__(self, net: Locator, strength: float = 0.5) -> None:
        self.net: Locator = net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.modules: Mapping[str, nn.Module] = {"locator": self.net}
        self.strength = strength

    def phases(self, step: int) -> Sequence[Phase]:
        return [Phase("locate", ("locator",))]

    def loss(self, phase: Phase, batch: Batch, carry: MutableMapping[str, Any], draws: Draws) -> Loss:
        ink, boxes = _turned(1.0 - batch["images"].float() / 255.0, batch["boxes"], draws)
        strength = self.strength * draws.uniform((len(ink),), "strength").to(ink.device)
        ink = degrade(recolour(ink, draws, strength), draws, strength)
        heat, distances = self.net(1.0 - 2.0 * ink)
        wanted, owner, near = targets(boxes, batch["kind"], heat.shape[-2:])
        heated = focal(heat, wanted)
        truth = boxes.gather(1, owner.flatten(1)[..., None].expand(-1, -1, 4)).view(*owner.shape, 4).permute(0, 3, 1, 2)
        boxed = (near * (1.0 - generalised_iou(corners(distances), truth))).sum() / near.sum().clamp(min=1.0)
        return Loss(heated + 2.0 * boxed, {"heat": heated, "box": boxed})


def _turned(ink: Tensor, boxes: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
    """Half of the pictures mirrored: a thing is as much a thing then."""
    flip = draws.uniform((len(ink),), "mirror").to(ink.device) < 0.5
    mirrored = torch.stack([1 - boxes[..., 2], boxes[..., 1], 1 - boxes[..., 0], boxes[..., 3]], -1)
    return torch.where(flip[:, None, None, None], ink.flip(3), ink), torch.where(flip[:, None, None], mirrored, boxes)


def targets(boxes: Tensor, kind: Tensor, cells: tuple[int, int] | torch.Size) -> tuple[Tensor, Tensor, Tensor]:
    """From boxes (B, M, 4) and kinds (B, M): heat (B, 2, h, w), 1 at each centre's cell and a bell around it whose width grows with the
    box; for each cell the box `owner` (B, h, w) that heats it most and the heat `near` (B, h, w), above 0.4 or 0."""
    height, width = cells
    scale = torch.tensor([width, height], device=boxes.device)
    middle = 0.5 * (boxes[..., :2] + boxes[..., 2:]) * scale
    middle = middle.floor().minimum(scale - 1) + 0.5
    spread = ((boxes[..., 2:] - boxes[..., :2]) * scale / 8.0).clamp(min=0.6)
    ys, xs = (torch.arange(n, device=boxes.device) + 0.5 for n in (height, width))
    across = (xs - middle[..., :1]) / spread[..., :1]
    down = (ys - middle[..., 1:]) / spread[..., 1:]
    bell = torch.exp(-0.5 * (across[:, :, None, :] ** 2 + down[..., None] ** 2)) * (kind >= 0)[..., None, None]
    heat = torch.stack([(bell * (kind == k)[..., None, None]).amax(1) for k in range(len(KINDS))], 1)
    near, owner = bell.max(1)
    return heat, owner, torch.where(near > 0.4, near, 0.0)


def focal(logits: Tensor, wanted: Tensor) -> Tensor:
    """CenterNet's penalty-reduced focal loss (eq. 1, alpha 2, beta 4), a mean over the centres."""
    centre = wanted > 0.999
    p = logits.sigmoid().clamp(1e-5, 1 - 1e-5)
    loss = torch.where(centre, -((1 - p) ** 2) * p.log(), -((1 - wanted) ** 4) * p**2 * (1 - p).log())
    return loss.sum() / centre.sum().clamp(min=1)


def generalised_iou(a: Tensor, b: Tensor) -> Tensor:
    """(B, h, w) GIoU (Rezatofighi et al., arXiv 1902.09630) of boxes (B, 4, h, w), in [-1, 1]."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = a.unbind(1), b.unbind(1)
    shared = (torch.minimum(ax1, bx1) - torch.maximum(ax0, bx0)).clamp(min=0) * (torch.minimum(ay1, by1) - torch.maximum(ay0, by0)).clamp(
        min=0
    )
    union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - shared
    hull = (torch.maximum(ax1, bx1) - torch.minimum(ax0, bx0)) * (torch.maximum(ay1, by1) - torch.minimum(ay0, by0))
    return shared / union.clamp(min=1e-6) - (hull - union) / hull.clamp(min=1e-6)
