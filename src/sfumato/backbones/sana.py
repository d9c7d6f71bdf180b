"""Sana (Xie et al., arXiv 2410.10629): PixArt's blocks with linear attention, and an MLP that convolves; no positions but those it gives.

    c = MLP(sinusoid(1000 t)) [+ MLP(sinusoid(guidance))]      t0 = Linear(silu(c)), six vectors, the same for every block
    x += gate * LinearAttention(mod(LN(x)))  mod: rows of the block's table added to t0
    x += CrossAttention(x, RMS(MLP(text)))   no norm, no gate
    x += gate' * MixFFN(mod'(LN(x)))

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
from ..core.call import Call, Site
from ..core.conditions import Conditions
from ..core.errors import ConfigError
from ..core.program import Network
from ..core.state import State, Stream
from ..nn.attention import CrossAttention, LinearAttention
from ..nn.embeddings import MLPEmbedding, PatchEmbedding, TimeEmbedding, token_grid
from ..nn.final import finished
from ..nn.linear import Linear, name_linears
from ..nn.mlp import MixFFN
from ..nn.modulation import TableModulation
from ..nn.norms import LayerNorm, RMSNorm
from ..nn.picture import PictureAttention, PictureCross, PictureMixer, Tabled, initialise_crossed
from ..nn.positions import sincos_2d
from ..nn.projections import AttentionShape
from . import Family


@dataclass(frozen=True)
class SanaConfig:
    """Shape of a Sana; the defaults are Sana-1.6B's.

    heads, cross_heads: of the two attentions.   hidden: of the MLP.   channels: of a latent.   patch: latent cells per token side.
    text_width: of the slot "text".   bias: of linear attention's q, k and v.   qk_norm: q and k of both attentions are normalised, over
    all heads at once (Sana-Sprint).   eps: of the norms in blocks; affine: that of the MLP has weights.   span: every picture's sides cover
    the positions [0, span); 0 = no positions.   time_scale: what t is multiplied by.   guided: reads the slot "guidance", which is
    multiplied by guidance_scale.
    """

    depth: int = 20
    width: int = 2240
    heads: int = 70
    cross_heads: int = 20
    hidden: int = 5600
    channels: int = 32
    patch: int = 1
    text_width: int = 2304
    bias: bool = False
    qk_norm: bool = False
    affine: bool = False
    eps: float = 1e-6
    span: float = 0.0
    time_scale: float = 1000.0
    guided: bool = False
    guidance_scale: float = 0.1

    def __post_init__(self) -> None:
        sizes = (self.depth, self.width, self.heads, self.cross_heads, self.hidden, self.channels, self.patch, self.text_width)
        if min(sizes) < 1 or self.eps <= 0 or self.span < 0:
            raise ConfigError(f"sizes of a Sana are at least 1, its eps is positive and its span not negative: {self}")
        if self.width % self.heads or self.width % self.cross_heads or self.width % 4:
            raise ConfigError(f"width is {self.width}", f"a multiple of 4 and of the numbers of heads, {self.heads} and {self.cross_heads}")


class Sana(Network):
    """Stream in: "image", latents (B, C, h, w) with t (B,). Slots: tokens "text" (B, N, text_width); with `guided`, scalar "guidance" (B,),
    the guidance scale that the network was distilled to follow.
    """

    capabilities = frozenset({"linear", "cross"})

    def __init__(self, config: SanaConfig) -> None:
        super().__init__()
        self.config = config
        self.slots = frozenset({"text", "guidance"} if config.guided else {"text"})
        width = config.width
        self.patch = PatchEmbedding(config.channels, width, config.patch)
        self.text = MLPEmbedding(config.text_width, width, "gelu")
        self.text_norm = RMSNorm(width, 1e-5)
        self.time = TimeEmbedding(width, scale=config.time_scale)
        if config.guided:
            self.guidance = TimeEmbedding(width, scale=config.guidance_scale)
        self.shared = Linear(width, 6 * width, "modulation")
        self.final_norm = LayerNorm(width)
        self.final_modulation = TableModulation(width, 2)
        self.final = Linear(width, config.patch**2 * config.channels, "head")
        self.set_program([_block(config) for _ in range(config.depth)])
        initialise_crossed(self, self.final)
        name_linears(self)

    def condition(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> dict[str, Tensor]:
        time = self.time(self.level(streams), call)
        c = time + self.guidance(cond.scalars["guidance"], call) if self.config.guided else time
        return {"time": time, "c": c, "t0": self.shared(silu(c), call).unflatten(-1, (6, -1))}

    def embed(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> dict[str, Stream]:
        self.refuse_strangers(streams)
        latents, dtype = streams["image"].x, self.shared.weight.dtype
        grid = token_grid(latents, self.config.patch)
        image = self.patch(latents.to(dtype))
        if self.config.span:
            image = image.float() + sincos_2d(*grid, self.config.width, self.config.span, "corner").to(latents.device)
        return {"image": Stream(image.to(dtype), grid=grid, t=streams["image"].t), **self.told(cond, call)}

    def words(self, cond: Conditions, call: Call | None) -> dict[str, Stream]:
        text, dtype = cond.tokens["text"], self.shared.weight.dtype
        words = self.text_norm(self.text(text.silenced(dtype), call))
        return {"text": Stream(words.to(dtype), keep=text.keep, update=False)}

    def head(self, state: State, call: Call | None) -> dict[str, Tensor]:
        vectors = self.final_modulation(state.cond["c"][:, None])
        return {"image": finished(state.streams["image"], self.final_norm, vectors, self.final, self.config.patch, call)}


class SelfBranch(Tabled, PictureAttention):
    def __init__(self, config: SanaConfig) -> None:
        super().__init__(LayerNorm(config.width, config.eps), config.width)
        shape = AttentionShape(config.width, config.heads, config.qk_norm, bias=config.bias, norm="rms across", eps=1e-5)
        self.core = LinearAttention(shape, self.streams)


class MLPBranch(Tabled, PictureMixer):
    core: MixFFN
    vectors = slice(3, 6)

    def __init__(self, config: SanaConfig) -> None:
        norm = nn.LayerNorm if config.affine else LayerNorm
        super().__init__(norm(config.width, config.eps), config.width)
        self.core = MixFFN(config.width, config.hidden)

    def compute(self, inputs: Mapping[str, Tensor], state: State, site: Site, call: Call | None) -> dict[str, Tensor]:
        grid = state.streams["image"].grid
        assert grid is not None
        return {"image": self.core(inputs["image"], grid, call)}


def _block(config: SanaConfig) -> Block:
    shape = AttentionShape(config.width, config.cross_heads, config.qk_norm, norm="rms across", eps=1e-5)
    return Block(SelfBranch(config), PictureCross(CrossAttention(shape, "text", config.width)), MLPBranch(config))


def tiny(seed: int = 0, **shape: Any) -> Sana:
    """A few thousand random parameters with every output alive (no zero initialisation): for tests and sketches."""
    torch.manual_seed(seed)
    small = {"depth": 2, "width": 24, "heads": 6, "cross_heads": 2, "hidden": 32, "channels": 4, "patch": 2, "text_width": 12}
    net = Sana(SanaConfig(**{**small, **shape}))
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return net


FAMILY = Family(Sana, SanaConfig, tiny)
