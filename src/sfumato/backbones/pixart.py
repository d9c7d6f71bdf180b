"""PixArt (Chen et al., arXiv 2310.00426; Sigma: arXiv 2403.04692): self-attention, text by cross-attention, one modulation for all blocks.

    c = MLP(sinusoid(1000 t)) [+ sizes]      t0 = Linear(silu(c)), six vectors, the same for every block
    x += gate * SelfAttention(mod(LN(x)))    mod: rows of the block's table added to t0
    x += CrossAttention(x, text)             no norm, no gate
    x += gate' * MLP(mod'(LN(x)))

May touch nn/ and core/. Time in [0, 1], 1 = noise; tokens row by row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from ..core.blocks import Block
from ..core.call import Call
from ..core.conditions import Conditions
from ..core.errors import ConfigError
from ..core.program import Network
from ..core.state import State, Stream
from ..nn.attention import CrossAttention
from ..nn.embeddings import MLPEmbedding, PatchEmbedding, TimeEmbedding, sinusoid, token_grid
from ..nn.final import finished
from ..nn.linear import Linear, name_linears
from ..nn.linear_attention import SelfAttention, self_attention
from ..nn.mlp import MLP
from ..nn.modulation import TableModulation
from ..nn.norms import LayerNorm
from ..nn.picture import PictureAttention, PictureCross, PictureMLP, Tabled, initialise_crossed
from ..nn.positions import sincos_2d
from ..nn.projections import AttentionShape
from . import Family


@dataclass(frozen=True)
class PixArtConfig:
    """Shape of a PixArt; the defaults are PixArt-Sigma-XL's.

    channels: of a latent.   patch: latent cells per token side.   text_width: of the slot "text".   span: every picture's sides cover the
    positions [0, span).   sizes: reads the slot "sizes" (height, width, aspect ratio of the training picture; PixArt-alpha at 1024).
    variance: also predicts the reverse process's variance.   compress: numbers of the blocks whose keys and values are reduced by `ratio`
    each way.   attention: of the picture to itself, "softmax", or linear in the tokens, alone or with a convolution of the values or of the
    branch's input beside it (LiT, arXiv 2501.12976).
    """

    depth: int = 28
    width: int = 1152
    heads: int = 16
    channels: int = 4
    patch: int = 2
    text_width: int = 4096
    mlp_ratio: int = 4
    span: float = 32.0
    sizes: bool = False
    variance: bool = True
    compress: tuple[int, ...] = ()
    ratio: int = 2
    attention: SelfAttention = "softmax"

    def __post_init__(self) -> None:
        if min(self.depth, self.width, self.heads, self.channels, self.patch, self.mlp_ratio, self.ratio) < 1 or self.span <= 0:
            raise ConfigError(f"sizes of a PixArt are at least 1 and its span is positive: {self}")
        if self.width % self.heads or self.width % 4 or (self.sizes and self.width % 3):
            raise ConfigError(f"width is {self.width}", f"a multiple of 4, of the {self.heads} heads" + (" and of 3" if self.sizes else ""))
        if outside := [i for i in self.compress if not 0 <= i < self.depth]:
            raise ConfigError(f"compress names the blocks {outside}", f"blocks are 0 to {self.depth - 1}")
        if self.compress and self.attention != "softmax":
            raise ConfigError(f"compress with attention {self.attention!r}", "only softmax attention reads reduced keys and values")


class PixArt(Network):
    """Stream in: "image", latents (B, C, h, w) with t (B,). Predicts "image" (B, C, h, w) and, with `variance`, "variance" of that shape.

    Slots: tokens "text" (B, N, text_width); with `sizes`, vector "sizes" (B, 3) in pixels, pixels, height / width.
    """

    def __init__(self, config: PixArtConfig) -> None:
        super().__init__()
        self.config = config
        self.capabilities = frozenset({"softmax" if config.attention == "softmax" else "linear", "cross"})
        self.slots = frozenset({"text", "sizes"} if config.sizes else {"text"})
        width = config.width
        self.patch = PatchEmbedding(config.channels, width, config.patch)
        self.text = MLPEmbedding(config.text_width, width, "gelu")
        self.time = TimeEmbedding(width)
        if config.sizes:
            self.resolution = MLPEmbedding(256, width // 3)
            self.aspect = MLPEmbedding(256, width // 3)
        self.shared = Linear(width, 6 * width, "modulation")
        self.final_norm = LayerNorm(width)
        self.final_modulation = TableModulation(width, 2)
        self.final = Linear(width, config.patch**2 * config.channels * (2 if config.variance else 1), "head")
        self.set_program([_block(config, i) for i in range(config.depth)])
        initialise_crossed(self, self.final)
        name_linears(self)

    def condition(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> dict[str, Tensor]:
        time = self.time(self.level(streams), call)
        c = time
        if self.config.sizes:
            features = sinusoid(cond.vectors["sizes"], 256).to(time.dtype)
            c = time + torch.cat([self.resolution(features[:, :2], call).flatten(1), self.aspect(features[:, 2], call)], dim=1)
        return {"time": time, "c": c, "t0": self.shared(silu(c), call).unflatten(-1, (6, -1))}

    def embed(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> dict[str, Stream]:
        self.refuse_strangers(streams)
        latents = streams["image"].x
        grid = token_grid(latents, self.config.patch)
        dtype = self.shared.weight.dtype
        table = sincos_2d(*grid, self.config.width, self.config.span, "corner").to(latents.device)
        image = (self.patch(latents.to(dtype)).float() + table).to(dtype)
        return {"image": Stream(image, grid=grid, t=streams["image"].t), **self.told(cond, call)}

    def words(self, cond: Conditions, call: Call | None) -> dict[str, Stream]:
        text, dtype = cond.tokens["text"], self.shared.weight.dtype
        return {"text": Stream(self.text(text.silenced(dtype), call).to(dtype), keep=text.keep, update=False)}

    def head(self, state: State, call: Call | None) -> dict[str, Tensor]:
        vectors = self.final_modulation(state.cond["c"][:, None])
        out = finished(state.streams["image"], self.final_norm, vectors, self.final, self.config.patch, call)
        return dict(zip(("image", "variance"), out.split(self.config.channels, dim=1), strict=False))


class SelfBranch(Tabled, PictureAttention):
    def __init__(self, config: PixArtConfig, index: int) -> None:
        super().__init__(LayerNorm(config.width), config.width)
        shape, ratio = AttentionShape(config.width, config.heads, qk_norm=False), config.ratio if index in config.compress else 1
        self.core = self_attention(config.attention, shape, self.streams, ratio)


class MLPBranch(Tabled, PictureMLP):
    vectors = slice(3, 6)

    def __init__(self, config: PixArtConfig) -> None:
        super().__init__(LayerNorm(config.width), config.width)
        self.core = MLP(config.width, config.mlp_ratio * config.width)


def _block(config: PixArtConfig, index: int) -> Block:
    shape = AttentionShape(config.width, config.heads, qk_norm=False)
    return Block(SelfBranch(config, index), PictureCross(CrossAttention(shape, "text", config.width)), MLPBranch(config))


def tiny(seed: int = 0, **shape: Any) -> PixArt:
    """A few thousand random parameters with every output alive (no zero initialisation): for tests and sketches."""
    torch.manual_seed(seed)
    small = {"depth": 3, "width": 24, "heads": 2, "channels": 4, "text_width": 12, "span": 4.0, "compress": (2,)}
    net = PixArt(PixArtConfig(**{**small, **shape}))
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return net


FAMILY = Family(PixArt, PixArtConfig, tiny)
