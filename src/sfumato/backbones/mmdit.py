"""MM-DiT, Stable Diffusion 3's backbone (Esser et al., arXiv 2403.03206): text and image keep separate weights and attend jointly.

    c = MLP(sinusoid(1000 t)) + MLP(pooled text)
    x_s += gate_s(c) * Out_s(attention over [image, text] of q_s, k_s, v_s from mod(LN(x_s)))         s = image, text
    x_s += gate'_s(c) * MLP_s(mod'(LN(x_s)))
    SD3.5: the picture's x_s += also a gated attention over the picture alone, beside the joint one and from the same LN(x_s).
    the last block's text stream only lends its keys and values.

May touch nn/ and core/. Time in [0, 1], 1 = noise; tokens row by row.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..core.blocks import Block
from ..core.call import Call
from ..core.conditions import Conditions
from ..core.errors import ConfigError, UsageError
from ..core.program import Network
from ..core.state import State, Stream
from ..nn.attention import JointAttention
from ..nn.embeddings import MLPEmbedding, PatchEmbedding, TimeEmbedding, token_grid
from ..nn.final import finished
from ..nn.joint import StreamsAttention, StreamsMLP
from ..nn.linear import Linear, name_linears
from ..nn.mlp import MLP
from ..nn.modulation import Modulation
from ..nn.norms import LayerNorm
from ..nn.positions import sincos_2d
from ..nn.projections import AttentionShape
from . import Family

STREAMS = ("image", "text")


@dataclass(frozen=True)
class MMDiTConfig:
    """Shape of an MM-DiT. SD3's MMDiT(d): depth d, width 64 d, heads d.

    channels: of a latent.   patch: latent cells per token side.   text_width, pooled_width: of the conditioning slots "text" and "pooled".
    base_grid: token rows of a square training picture.   positions: where the tokens of other sizes lie on its plane, "crop" (SD3: unit
    steps about the same middle), "span" (all sizes cover it), or "stored": the middle of a table that came with the weights, as SD3's files
    hold one.   table_grid: side of the table that is cut from; that of "crop" lies over the same plane (0: base_grid).   dual: numbers of
    the blocks whose picture tokens also attend among themselves (SD3.5).
    """

    depth: int = 8
    width: int = 320
    heads: int = 5
    channels: int = 16
    patch: int = 2
    text_width: int = 384
    pooled_width: int = 384
    mlp_ratio: int = 4
    qk_norm: bool = True
    base_grid: int = 8
    positions: Literal["crop", "span", "stored"] = "crop"
    table_grid: int = 0
    dual: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if min(self.depth, self.width, self.heads, self.channels, self.patch) < 1:
            raise ConfigError(f"sizes of an MM-DiT are at least 1: {self}")
        if self.width % self.heads or self.width % 4:
            raise ConfigError(f"width is {self.width}", f"a multiple of 4 and of the number of heads, {self.heads}")
        if (self.table_grid and self.positions == "span") or (self.positions == "stored" and self.table_grid < 1):
            raise ConfigError(f"table_grid is {self.table_grid} and positions {self.positions!r}", "'crop' and 'stored' cut from a table")
        if outside := [i for i in self.dual if not 0 <= i < self.depth]:
            raise ConfigError(f"dual names the blocks {outside}", f"blocks are 0 to {self.depth - 1}")


class MMDiT(Network):
    """Streams in: "image", latents (B, C, h, w) with t (B,); others of role "text" are further texts (B, M, text_width).

    Slots: tokens "text" (B, N, text_width), vector "pooled" (B, pooled_width).
    """

    capabilities = frozenset({"softmax", "joint"})
    inputs = ("image",)
    slots = frozenset({"text", "pooled"})
    table: Tensor

    def __init__(self, config: MMDiTConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.patch = PatchEmbedding(config.channels, width, config.patch)
        self.text = Linear(config.text_width, width, "embed")
        self.time = TimeEmbedding(width)
        self.pooled = MLPEmbedding(config.pooled_width, width)
        self.final_norm = LayerNorm(width)
        self.final_modulation = Modulation(width, 2)
        self.final = Linear(width, config.patch**2 * config.channels, "head")
        if config.positions == "stored":
            self.register_buffer("table", torch.zeros(1, config.table_grid**2, width))
        self.set_program([_block(config, i) for i in range(config.depth)])
        _initialise(self)
        name_linears(self)

    def condition(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> dict[str, Tensor]:
        time = self.time(self.level(streams), call)
        return {"c": time + self.pooled(cond.vectors["pooled"].to(self.pooled.up.weight.dtype), call), "time": time}

    def embed(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> dict[str, Stream]:
        latents = streams["image"].x
        grid = token_grid(latents, self.config.patch)
        dtype = self.text.weight.dtype
        # The table is added in fp32 so that autocast cannot round it.
        image = self.patch(latents.to(dtype)).float() + self._places(grid).to(latents.device)
        out = {"image": Stream(image.to(dtype), grid=grid, t=streams["image"].t), **self.told(cond, call)}
        for name in streams.keys() - {"image"}:
            other = streams[name]
            if other.role != "text" or name in out:
                raise UsageError(f"an MM-DiT cannot embed the stream {name!r} of role {other.role!r}", "other streams have the role 'text'")
            out[name] = replace(other, x=self._embedded(other.x, other.keep, call))
        return out

    def _places(self, grid: tuple[int, int]) -> Tensor:
        """(h w, width) of the tokens of a `grid`. Raises `UsageError` for one that a stored table does not hold."""
        config, side = self.config, self.config.table_grid
        if config.positions != "stored":
            return sincos_2d(*grid, config.width, config.base_grid, config.positions, side)
        if max(grid) > side:
            raise UsageError(f"{grid[0]} x {grid[1]} tokens", f"at most {side} each way: the table of positions that came with the weights")
        (rows, columns), (top, left) = grid, ((side - n) // 2 for n in grid)
        table = self.table.float().view(side, side, config.width)
        return table[top : top + rows, left : left + columns].flatten(0, 1)

    def words(self, cond: Conditions, call: Call | None) -> dict[str, Stream]:
        text = cond.tokens["text"]
        return {"text": Stream(self._embedded(text.states, text.keep, call), keep=text.keep)}

    def _embedded(self, states: Tensor, keep: Tensor | None, call: Call | None) -> Tensor:
        dtype = self.text.weight.dtype
        # Zeroed padding is finite whatever was in it; masked keys then contribute exactly nothing.
        states = states.to(dtype) if keep is None else states.to(dtype).masked_fill(~keep[..., None], 0.0)
        return self.text(states, call).to(dtype)

    def head(self, state: State, call: Call | None) -> dict[str, Tensor]:
        vectors = self.final_modulation(state.cond["c"], call)
        return {"image": finished(state.streams["image"], self.final_norm, vectors, self.final, self.config.patch, call)}


class PictureBranch(StreamsAttention):
    """SD3.5's second attention, over the image alone."""

    name = "picture"


def _attention(config: MMDiTConfig, streams: tuple[str, ...], silent: frozenset[str] = frozenset()) -> JointAttention:
    return JointAttention(AttentionShape(config.width, config.heads, config.qk_norm), streams, silent)


def _block(config: MMDiTConfig, index: int) -> Block:
    """The last block's text is read and not written: it is silent."""
    last = index == config.depth - 1
    streams = ("image",) if last else STREAMS
    joint = StreamsAttention(STREAMS, _attention(config, STREAMS, frozenset({"text"} if last else ())), config.width)
    picture = PictureBranch(("image",), _attention(config, ("image",)), config.width) if index in config.dual else None
    mlps = nn.ModuleDict({s: MLP(config.width, config.mlp_ratio * config.width) for s in streams})
    return Block(joint if picture is None else (joint, picture), StreamsMLP(streams, mlps, config.width))


def _initialise(net: MMDiT) -> None:
    """DiT's practice: Xavier for matrices, zero for modulation (set where it is made) and for the last Linear: the net starts at 0."""
    for module in net.modules():
        if isinstance(module, Linear) and module.role in ("q", "k", "v", "out", "up", "down", "embed"):
            if module.role != "embed" or module is net.text:
                nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
    nn.init.zeros_(net.final.weight)
    nn.init.zeros_(net.final.bias)


def tiny(seed: int = 0, **shape: Any) -> MMDiT:
    """A few thousand random parameters with every output alive (no zero initialisation): for tests and sketches."""
    torch.manual_seed(seed)
    small = {"depth": 3, "width": 32, "heads": 2, "channels": 4, "text_width": 12, "pooled_width": 6, "base_grid": 4}
    net = MMDiT(MMDiTConfig(**{**small, **shape}))
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return net


FAMILY = Family(MMDiT, MMDiTConfig, tiny)
