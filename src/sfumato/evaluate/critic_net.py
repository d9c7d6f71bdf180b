"""The critic's network: a caption's words look at a picture and one number comes out, the log-odds that the caption is true of it.

Early fusion, as in BLIP's image-text matching (Li et al., arXiv 2201.12086, section 3.1), where the judge compares two vectors: a word
can ask each place of the picture, so counts and relations need not survive a single vector. Words come from a frozen text encoder.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from ..core.attention import Heads, attend
from ..core.errors import ConfigError
from ..nn.mlp import MLP
from ..nn.positions import sincos_2d
from .judge_net import Bottleneck

STRIDE = 16
"""Pixels of a picture token's side."""


@dataclass(frozen=True)
class CriticConfig:
    """`size`: side of the pictures in pixels, a multiple of 16. `stem`: channels at 1/4 and 1/8 of it; `width`: of all tokens, a multiple
    of 4 and of `heads`; `hidden`: of the MLPs. `sight`: layers over picture tokens alone; `layers`: of words that look at them. `text`:
    width of a word's state.
    """

    size: int = 128
    stem: tuple[int, int] = (64, 128)
    width: int = 192
    heads: int = 6
    hidden: int = 384
    sight: int = 2
    layers: int = 4
    text: int = 384

    def __post_init__(self) -> None:
        if self.size < STRIDE or self.size % STRIDE:
            nearest = max(STRIDE, round(self.size / STRIDE) * STRIDE)
            raise ConfigError(f"the critic's picture size is {self.size}", f"a multiple of {STRIDE}: {nearest}")
        if self.heads < 1 or self.width % self.heads or self.width % 4:
            raise ConfigError(f"the critic's width is {self.width} with {self.heads} heads", "a multiple of 4 and of the heads")
        if self.sight < 0 or self.layers < 1:
            raise ConfigError(f"the critic has {self.sight} layers of sight and {self.layers} of words", "at least 0 and 1")


class Attention(nn.Module):
    """Multi-head attention of x (B, N, D) to a source (P, M, D): row b attends source `place[b]`, where `keep` (B, M) says so."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q, self.k, self.v, self.out = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x: Tensor, source: Tensor, keep: Tensor | None = None, place: Tensor | None = None) -> Tensor:
        q, k, v = (
            layer(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for layer, tokens in ((self.q, x), (self.k, source), (self.v, source))
        )
        if place is not None:
            # Projected once a picture, however many captions ask about it.
            k, v = k[place], v[place]
        mixed = attend({"words": Heads(q, k, v, keep)}, None)["words"]
        return self.out(mixed.transpose(1, 2).flatten(2))


class Layer(nn.Module):
    """x += self-attention; x += attention to the picture, where `looks`; x += MLP; each of the normalised x."""

    def __init__(self, config: CriticConfig, looks: bool) -> None:
        super().__init__()
        width, heads = config.width, config.heads
        self.norm, self.own = nn.LayerNorm(width), Attention(width, heads)
        self.look_norm = nn.LayerNorm(width) if looks else None
        self.look = Attention(width, heads) if looks else None
        self.mlp_norm, self.mlp = nn.LayerNorm(width), MLP(width, config.hidden)

    def forward(self, x: Tensor, keep: Tensor | None = None, picture: Tensor | None = None, place: Tensor | None = None) -> Tensor:
        y = self.norm(x)
        x = x + self.own(y, y, keep)
        if self.look is not None and self.look_norm is not None and picture is not None:
            x = x + self.look(self.look_norm(x), picture, place=place)
        return x + self.mlp(self.mlp_norm(x))


class CriticNet(nn.Module):
    """`see` pictures once, then `ask` about them."""

    def __init__(self, config: CriticConfig) -> None:
        super().__init__()
        first, second = config.stem
        width, grid = config.width, config.size // STRIDE
        # Most of the side goes at once: on a CPU full-resolution convolutions would cost more than all the rest.
        self.stem = nn.Sequential(
            nn.Conv2d(3, first, 7, 4, 3, bias=False), nn.BatchNorm2d(first), nn.ReLU(), Bottleneck(first),
            nn.Conv2d(first, second, 2, 2, bias=False), nn.BatchNorm2d(second), nn.ReLU(), Bottleneck(second), Bottleneck(second),
            nn.Conv2d(second, width, 2, 2),
        )  # fmt: skip
        self.positions = nn.Parameter(sincos_2d(grid, grid, width, float(grid)).clone())
        self.sight_blocks = nn.ModuleList(Layer(config, looks=False) for _ in range(config.sight))
        self.seen = nn.LayerNorm(width)
        self.words = nn.Sequential(nn.LayerNorm(config.text), nn.Linear(config.text, width))
        self.blocks = nn.ModuleList(Layer(config, looks=True) for _ in range(config.layers))
        self.verdict = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 1))

    def see(self, images: Tensor) -> Tensor:
        """(P, grid * grid, width) tokens, row by row, of images (P, 3, size, size) in [-1, 1]."""
        # White becomes 0, so that the zero padding of the convolutions goes on with the paper.
        x = self.stem((images - 1.0).contiguous(memory_format=torch.channels_last))
        tokens: Tensor = x.flatten(2).transpose(1, 2).float() + self.positions
        for layer in self.sight_blocks:
            tokens = layer(tokens)
        return self.seen(tokens)

    def ask(self, picture: Tensor, place: Tensor, states: Tensor, keep: Tensor) -> Tensor:
        """(C,) log-odds in fp32 that captions with token states (C, N, text), real where `keep` (C, N), are true of pictures `place` (C,).

        `picture`: what `see` gave. What stands where `keep` is false changes nothing.
        """
        x = self.words(states).float()
        for layer in self.blocks:
            x = layer(x, keep, picture, place)
        # Every caption begins with the encoder's first token, which stands for the whole.
        return self.verdict(x[:, 0]).float().squeeze(1)
