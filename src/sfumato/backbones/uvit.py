"""U-ViT (Bao et al., arXiv 2209.12152): time, text and picture as one sequence under one set of weights, with long skips.

    x = [sinusoid(1000 t), Linear(text), patches] + learned positions
    block:  x += Attention(LN(x));  x += MLP(LN(x))         no modulation anywhere
    depth / 2 blocks that remember, one in the middle, depth / 2 that first take x = W [x, remembered] + b

May touch nn/ and core/. Time in [0, 1], 1 = noise; tokens row by row. Of the reference: padded words are tokens there; here a caption's
mask decides, so an encoder that means its padding to be read marks it as kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from ..core.blocks import Block
from ..core.call import Call
from ..core.conditions import Conditions
from ..core.errors import ConfigError, UsageError
from ..core.program import Network
from ..core.state import State, Stream
from ..nn.attention import ANY, JointAttention
from ..nn.embeddings import MLPEmbedding, PatchEmbedding, sinusoid, token_grid, unpatchify
from ..nn.linear import Linear, name_linears
from ..nn.mlp import MLP
from ..nn.picture import PlainAttention, PlainMLP
from ..nn.projections import AttentionShape
from ..nn.rewires import skipped
from . import Family

STREAMS = ("time", "text", "image")


@dataclass(frozen=True)
class UViTConfig:
    """Shape of a U-ViT; the defaults are the paper's U-ViT-S/2 on COCO.

    depth: blocks with a partner, so even; one more stands in the middle.   grid: token rows of a square training picture.   words: longest
    caption in tokens.   skips: long skips.   time_mlp: an MLP behind the time's sinusoid.   smooth: a 3 x 3 convolution over the answer.
    """

    depth: int = 12
    width: int = 512
    heads: int = 8
    channels: int = 4
    patch: int = 2
    grid: int = 16
    words: int = 77
    text_width: int = 768
    mlp_ratio: int = 4
    skips: bool = True
    time_mlp: bool = False
    smooth: bool = True

    def __post_init__(self) -> None:
        if min(self.width, self.heads, self.channels, self.patch, self.grid, self.words, self.mlp_ratio) < 1 or self.depth < 0:
            raise ConfigError(f"sizes of a U-ViT are at least 1: {self}")
        if self.depth % 2 or self.width % self.heads or self.width % 2:
            raise ConfigError(f"depth is {self.depth} and width {self.width}", f"even numbers, the width a multiple of {self.heads} heads")


class UViT(Network):
    """Stream in: "image", latents (B, C, h, w) with t (B,). Slot: tokens "text" (B, N, text_width), N at most `words`."""

    capabilities = frozenset({"softmax", "joint"})
    slots = frozenset({"text"})

    def __init__(self, config: UViTConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.patch = PatchEmbedding(config.channels, width, config.patch)
        self.text = Linear(config.text_width, width, "embed")
        self.time = MLPEmbedding(width, width) if config.time_mlp else nn.Identity()
        self.positions = nn.Parameter(torch.zeros(1, 1 + config.words + config.grid**2, width))
        self.final_norm = nn.LayerNorm(width)
        self.final = Linear(width, config.patch**2 * config.channels, "head")
        self.smooth = nn.Conv2d(config.channels, config.channels, 3, padding=1) if config.smooth else nn.Identity()
        blocks: list[nn.Module] = [_block(config) for _ in range(config.depth + 1)]
        self.set_program(skipped(blocks, width) if config.skips else blocks)
        initialise(self, self.positions)
        name_linears(self)

    def condition(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> dict[str, Tensor]:
        return {"time": self._time(self.level(streams), call)}

    def _time(self, t: Tensor, call: Call | None) -> Tensor:
        time = sinusoid(1000.0 * t, self.config.width).to(self.text.weight.dtype)
        return self.time(time, call) if self.config.time_mlp else time

    def embed(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> dict[str, Stream]:
        self.refuse_strangers(streams)
        latents, text, dtype = streams["image"].x, cond.tokens["text"], self.text.weight.dtype
        if (count := text.states.shape[1]) > self.config.words:
            raise UsageError(f"the caption has {count} tokens", f"this U-ViT has positions for {self.config.words}")
        grid = token_grid(latents, self.config.patch)
        first, words, cells = self.positions.split([1, self.config.words, self.config.grid**2], dim=1)
        return {
            "time": Stream(self._time(self.level(streams), call)[:, None] + first, role=ANY),
            "text": Stream((self.text(text.silenced(dtype), call) + words[:, :count]).to(dtype), role=ANY, keep=text.keep),
            "image": Stream(
                (self.patch(latents.to(dtype)) + self._cells(cells, grid)).to(dtype), role=ANY, grid=grid, t=streams["image"].t
            ),
        }

    def _cells(self, cells: Tensor, grid: tuple[int, int]) -> Tensor:
        """The picture's positions; those of another size are interpolated, as when a trained model moves to it."""
        return resized(cells, self.config.grid, grid, "bicubic")

    def head(self, state: State, call: Call | None) -> dict[str, Tensor]:
        grid = state.streams["image"].grid
        assert grid is not None
        answer: Tensor = self.smooth(unpatchify(self.final(self.final_norm(state["image"]), call), grid, self.config.patch))
        return {"image": answer}


def _block(config: UViTConfig) -> Block:
    """q, k and v have no bias; exact GELU."""
    width = config.width
    core = JointAttention(AttentionShape(width, config.heads, qk_norm=False, bias=False), (ANY,))
    mlp = MLP(width, config.mlp_ratio * width, "none")
    return Block(PlainAttention(core, nn.LayerNorm(width), STREAMS), PlainMLP(mlp, nn.LayerNorm(width), STREAMS))


def resized(cells: Tensor, side: int, grid: tuple[int, int], mode: str) -> Tensor:
    """Learned positions (1, side * side, D) for another `grid`, interpolated."""
    if grid == (side, side):
        return cells
    plane = cells.transpose(1, 2).unflatten(2, (side, side))
    return interpolate(plane.float(), size=grid, mode=mode).flatten(2).transpose(1, 2).to(cells.dtype)


def initialise(net: Network, positions: nn.Parameter) -> None:
    """The reference's: truncated normal 0.02 for every Linear and the positions, zero biases; nothing starts closed."""
    for module in net.modules():
        if isinstance(module, Linear):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.trunc_normal_(positions, std=0.02)


def tiny(seed: int = 0, **shape: Any) -> UViT:
    """A few thousand random parameters, large enough to be told apart: for tests and sketches."""
    torch.manual_seed(seed)
    small = {"depth": 2, "width": 32, "heads": 2, "channels": 4, "grid": 4, "words": 16, "text_width": 12}
    net = UViT(UViTConfig(**{**small, **shape}))
    for parameter in net.parameters():
        nn.init.normal_(parameter, mean=1.0 if parameter.ndim == 1 and parameter.all() else 0.0, std=0.1)
    return net


FAMILY = Family(UViT, UViTConfig, tiny)
