"""The judge's networks: one tower for what a picture shows and says, a finer one for how it is drawn.

The picture tower is a bottleneck residual network (He et al., arXiv 1512.03385) on a reduced picture; with a tower over frozen sentence
vectors it shares one embedding space (CLIP, arXiv 2103.00020). Style lives in lines and shading that the reduction loses, so it is
judged by a shallow network at full size.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..core.errors import ConfigError
from ..data.scenes.colours import TINTS


@dataclass(frozen=True)
class JudgeConfig:
    """`size`: side of the pictures in pixels. `working`: side they are brought to first, a multiple of 32; `widths`, `depths`: channels
    and blocks at 1/4, 1/8, 1/16 and 1/32 of it. `strokes`: channels of the style tower at 1/2, 1/4, ... of `size`.

    `embed`: width of the shared space; `text`: of a sentence vector; `hidden`: of the text tower.
    """

    size: int = 128
    working: int = 96
    widths: tuple[int, int, int, int] = (64, 160, 320, 640)
    depths: tuple[int, int, int, int] = (1, 2, 4, 2)
    strokes: tuple[int, ...] = (32, 64, 96, 128)
    embed: int = 256
    text: int = 384
    hidden: int = 512

    def __post_init__(self) -> None:
        if self.working < 32 or self.working % 32:
            raise ConfigError(f"the judge's working size is {self.working}", f"a multiple of 32: {max(32, round(self.working / 32) * 32)}")
        if self.size < self.working:
            raise ConfigError(f"the judge's picture size is {self.size}", f"at least its working size, {self.working}")


class Bottleneck(nn.Module):
    """relu(x + up(conv3x3(down(x)))) at half the channels; x (B, C, h, w)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = channels // 2
        self.down, self.down_norm = nn.Conv2d(channels, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.mix, self.mix_norm = nn.Conv2d(inner, inner, 3, padding=1, bias=False), nn.BatchNorm2d(inner)
        self.up, self.up_norm = nn.Conv2d(inner, channels, 1, bias=False), nn.BatchNorm2d(channels)
        # A block starts as the identity, so that early steps train a shallow network.
        nn.init.zeros_(self.up_norm.weight)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.down_norm(self.down(x)))
        y = F.relu(self.mix_norm(self.mix(y)))
        return F.relu(x + self.up_norm(self.up(y)))


@dataclass(frozen=True)
class Mix:
    """MixStyle (Zhou et al., arXiv 2104.02008): a picture keeps its early features' arrangement and takes on part of another's statistics.

    `partner` (B,) row numbers; `share` (B,) in [0, 1] of the row's own statistics, 1 = unchanged.
    """

    partner: Tensor
    share: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        mean, std = x.mean((2, 3), keepdim=True), (x.var((2, 3), keepdim=True) + 1e-5).sqrt()
        # The statistics are targets, not paths for a gradient.
        mean, std = mean.detach(), std.detach()
        share = self.share.to(x.dtype)[:, None, None, None]
        mixed_mean, mixed_std = (share * own + (1 - share) * own[self.partner] for own in (mean, std))
        return (x - mean) * (mixed_std / std) + mixed_mean


class JudgeNet(nn.Module):
    """Picture and text towers with their heads: `concepts`, `styles` and `colours` (of things in scenes) are numbers of classes."""

    names: Tensor

    def __init__(self, config: JudgeConfig, concepts: int, styles: int, colours: int = len(TINTS) + 1) -> None:
        super().__init__()
        widths = config.widths
        # The stem leaves a quarter of the side at once: on a CPU full-resolution convolutions would cost more than all the rest.
        self.stem = nn.Sequential(nn.Conv2d(3, widths[0], 7, 4, 3, bias=False), nn.BatchNorm2d(widths[0]), nn.ReLU())
        self.levels = nn.ModuleList()
        for level, (width, depth) in enumerate(zip(widths, config.depths, strict=True)):
            entry = [nn.Conv2d(widths[level - 1], width, 2, 2, bias=False), nn.BatchNorm2d(width)] if level else []
            self.levels.append(nn.Sequential(*entry, *(Bottleneck(width) for _ in range(depth))))
        # Colour and texture live in the earlier levels, arrangement in the last: the heads see three.
        pooled = sum(widths[1:])
        # Mean-pooled features share a large offset; standardised, the heads learn several times faster (Luo et al., arXiv 1903.07071).
        self.neck = nn.BatchNorm1d(pooled)
        self.project = nn.Linear(pooled, config.embed, bias=False)
        self.concept = nn.Linear(pooled, concepts)
        # Trained beside the others so that the embedding carries style too; the verdict on style is the finer tower's.
        self.style = nn.Linear(pooled, styles)
        self.colour = nn.Linear(pooled, colours)
        # A sentence vector has unit length, so tiny entries: standardised, they outweigh the biases from the first step.
        self.text = nn.Sequential(
            nn.LayerNorm(config.text), nn.Linear(config.text, config.hidden), nn.GELU(), nn.Linear(config.hidden, config.embed, bias=False)
        )
        # Logarithm of the contrastive loss's inverse temperature (CLIP: starts at 1 / 0.07).
        self.log_scale = nn.Parameter(torch.tensor(2.66))
        self.log_names = nn.Parameter(torch.tensor(2.0))
        # The concepts' own names in the shared space, kept when training ends.
        self.register_buffer("names", torch.zeros(concepts, config.embed))

    def pooled(self, images: Tensor, mix: Mix | None = None) -> Tensor:
        """(B, C) features of images (B, 3, working, working) in [-1, 1], before the heads; other multiples of 32 run too."""
        # White becomes 0, so that the zero padding of the convolutions goes on with the paper.
        x: Tensor = self.stem((images - 1.0).contiguous(memory_format=torch.channels_last))
        means: list[Tensor] = []
        for number, level in enumerate(self.levels):
            if mix is not None and number < 2:
                x = mix(x)
            x = level(x)
            means.append(x.float().mean((2, 3)))
        pooled: Tensor = self.neck(torch.cat(means[1:], 1))
        return pooled

    def concepts(self, pooled: Tensor, names: Tensor) -> Tensor:
        """(B, concepts) logits: a weight of each concept's own, and how near the picture lies to its name (concepts, embed).

        A name carries what a few drawings cannot teach: that a woman firefighter is a woman and a firefighter.
        """
        logits: Tensor = self.concept(pooled).float() + self.log_names.exp() * self.embed_image(pooled) @ names.T
        return logits

    def embed_image(self, pooled: Tensor) -> Tensor:
        """(B, embed) of unit length."""
        return F.normalize(self.project(pooled).float(), dim=1)

    def embed_text(self, sentences: Tensor) -> Tensor:
        """(B, embed) of unit length, from sentence vectors (B, text)."""
        return F.normalize(self.text(sentences).float(), dim=1)


class StyleNet(nn.Module):
    """Style logits (B, styles) from images (B, 3, size, size) in [-1, 1]: means and spreads of colours and of shallow features, blind to
    arrangement (the statistics that Gatys et al., arXiv 1508.06576, call style)."""

    def __init__(self, config: JudgeConfig, styles: int) -> None:
        super().__init__()
        widths, hues = (3, *config.strokes), 64
        # A style has its palette: single pixels, so that an edge between two colours makes no third.
        self.palette = nn.Sequential(
            nn.Conv2d(3, hues, 1, bias=False), nn.BatchNorm2d(hues), nn.ReLU(),
            nn.Conv2d(hues, hues, 1, bias=False), nn.BatchNorm2d(hues), nn.ReLU(),
        )  # fmt: skip
        self.levels = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(a, b, 3, 2, 1, bias=False), nn.BatchNorm2d(b), nn.ReLU(),
                nn.Conv2d(b, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU(),
            )
            for a, b in pairwise(widths)
        )  # fmt: skip
        pooled = 2 * (hues + sum(config.strokes))
        self.neck = nn.BatchNorm1d(pooled)
        self.head = nn.Linear(pooled, styles)

    def forward(self, images: Tensor) -> Tensor:
        x = (images - 1.0).contiguous(memory_format=torch.channels_last)
        seen = [self.palette(x[..., ::2, ::2].contiguous(memory_format=torch.channels_last))]
        for level in self.levels:
            x = level(x)
            seen.append(x)
        statistics: list[Tensor] = []
        for wide in (part.float() for part in seen):
            statistics += [wide.mean((2, 3)), (wide.var((2, 3), correction=0) + 1e-6).sqrt()]
        logits: Tensor = self.head(self.neck(torch.cat(statistics, 1)))
        return logits
