"""Lumina-Image 2.0 (Qin et al., arXiv 2503.21758): text and picture as one sequence under one set of weights, each refined alone before.

    context refiners   text:     x += RMS(Attention(RMS(x)));  x += RMS(SwiGLU(RMS(x)))                            no modulation
    noise refiners     picture:  x += tanh(g(c)) RMS(Attention(RMS(x) (1 + s(c))));  the same of a SwiGLU          c = MLP(sinusoid(t))
    joint blocks       both:     as noise refiners

Word n stands at (n, 0, 0), and the picture's tokens at (number of words, row, column), so a picture's place depends on its caption.
May touch nn/ and core/. Tokens row by row. Time and sign of the published network are Lumina-Next's (`nextdit.py`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import pad

from ..core.blocks import Block
from ..core.call import Call
from ..core.conditions import Conditions
from ..core.errors import ConfigError
from ..core.program import Network
from ..core.state import State, Stream
from ..nn.attention import ANY, JointAttention
from ..nn.embeddings import TimeEmbedding, patchify, token_grid, unpatchify
from ..nn.linear import Linear, name_linears
from ..nn.mlp import SwiGLU
from ..nn.modulation import Modulation
from ..nn.norms import LayerNorm, RMSNorm
from ..nn.positions import Rotary, grid_coordinates
from ..nn.projections import AttentionShape
from ..nn.sandwich import SandwichAttention, SandwichMLP
from . import Family


@dataclass(frozen=True)
class Lumina2Config:
    """Shape of a Lumina 2; the defaults are Lumina-Image 2.0's.

    refiners: blocks of each kind before the joint ones.   kv_heads: of keys and values.   hidden: of an MLP.   channels: of a latent.
    patch: latent cells per token side.   text_width: of the slot "text".   axes: channels of a head that each of the three coordinates
    turns.   eps: of the RMS norms, those of q and k excepted.
    """

    depth: int = 26
    refiners: int = 2
    width: int = 2304
    heads: int = 24
    kv_heads: int = 8
    hidden: int = 9216
    channels: int = 16
    patch: int = 2
    text_width: int = 2304
    axes: tuple[int, ...] = (32, 32, 32)
    eps: float = 1e-5

    def __post_init__(self) -> None:
        sizes = (self.width, self.heads, self.kv_heads, self.hidden, self.channels, self.patch, self.text_width)
        if min(sizes) < 1 or min(self.depth, self.refiners) < 0 or self.eps <= 0:
            raise ConfigError(f"sizes of a Lumina 2 are at least 1 and eps is positive: {self}")
        if self.width % self.heads or self.heads % self.kv_heads:
            raise ConfigError(
                f"width is {self.width}, heads {self.heads}, kv_heads {self.kv_heads}", "the width divides into heads, heads into kv_heads"
            )
        if len(self.axes) != 3 or sum(self.axes) != self.width // self.heads or any(a % 2 for a in self.axes):
            raise ConfigError(f"axes are {self.axes}", f"three even numbers that add up to the head's width, {self.width // self.heads}")


class Lumina2(Network):
    """Stream in: "image", latents (B, C, h, w) with t (B,). Slot: tokens "text" (B, N, text_width)."""

    capabilities = frozenset({"softmax", "joint", "rotary"})
    slots = frozenset({"text"})

    def __init__(self, config: Lumina2Config) -> None:
        super().__init__()
        self.config = config
        width, width_c = config.width, min(config.width, 1024)
        self.rotary = Rotary(config.axes)
        self.patch = Linear(config.channels * config.patch**2, width, "embed")
        self.text_norm = RMSNorm(config.text_width, config.eps)
        self.text = Linear(config.text_width, width, "embed")
        self.time = TimeEmbedding(width_c, scale=1.0)
        self.final_norm = LayerNorm(width)
        self.final_modulation = Modulation(width, 1, width_c)
        self.final = Linear(width, config.patch**2 * config.channels, "head")
        kinds = [(("text",), 0, config.refiners), (("image",), width_c, config.refiners), (("text", "image"), width_c, config.depth)]
        self.set_program([_block(config, self.rotary, streams, c) for streams, c, count in kinds for _ in range(count)])
        _initialise(self)
        name_linears(self)

    def condition(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> dict[str, Tensor]:
        time = self.time(self.level(streams), call)
        return {"c": time, "time": time}

    def embed(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> dict[str, Stream]:
        self.refuse_strangers(streams)
        latents, keep, dtype = streams["image"].x, cond.tokens["text"].keep, self.patch.weight.dtype
        grid = token_grid(latents, self.config.patch)
        image = self.patch(patchify(latents.to(dtype), self.config.patch), call).to(dtype)
        cells = grid_coordinates(*grid).to(latents.device).repeat(len(keep), 1, 1)
        cells[..., 0] = keep.sum(1, keepdim=True)
        return {**self.told(cond, call), "image": Stream(image, grid=grid, t=streams["image"].t, pos=cells)}

    def words(self, cond: Conditions, call: Call | None) -> dict[str, Stream]:
        text, dtype = cond.tokens["text"], self.patch.weight.dtype
        words = self.text(self.text_norm(text.silenced(dtype)), call).to(dtype)
        number = text.keep.cumsum(1).float()  # of each word, counted from 1; the last is how many there are
        return {"text": Stream(words, keep=text.keep, pos=pad((number - 1).clamp(min=0)[..., None], (0, 2)))}

    def head(self, state: State, call: Call | None) -> dict[str, Tensor]:
        (scale,) = self.final_modulation(state.cond["c"], call)
        grid = state.streams["image"].grid
        assert grid is not None
        tokens = self.final(self.final_norm(state["image"]) * (1 + scale), call)
        return {"image": unpatchify(tokens, grid, self.config.patch)}


def _block(config: Lumina2Config, rotary: Rotary, streams: tuple[str, ...], width_c: int) -> Block:
    shape = AttentionShape(config.width, config.heads, bias=False, kv_heads=config.kv_heads, out_bias=False, eps=1e-5)
    core = JointAttention(shape, (ANY,), rotate=rotary)
    return Block(
        SandwichAttention(core, streams, config.width, width_c, config.eps),
        SandwichMLP(SwiGLU(config.width, config.hidden), streams, config.width, width_c, config.eps),
    )


def _initialise(net: Lumina2) -> None:
    """Xavier for matrices, 0.02 for the text's way in, zero for modulation (set where it is made) and the head: the net starts at 0."""
    for module in net.modules():
        if isinstance(module, Linear) and module.role in ("q", "k", "v", "out", "up", "down"):
            nn.init.xavier_uniform_(module.weight)
    nn.init.xavier_uniform_(net.patch.weight)
    nn.init.trunc_normal_(net.text.weight, std=0.02)
    nn.init.zeros_(net.final.weight)
    for layer in (net.patch, net.text, net.final):
        nn.init.zeros_(layer.bias)


def tiny(seed: int = 0, **shape: Any) -> Lumina2:
    """A few thousand random parameters with every output alive (no zero initialisation): for tests and sketches."""
    torch.manual_seed(seed)
    small = {"depth": 2, "refiners": 1, "width": 48, "heads": 4, "kv_heads": 2, "hidden": 64, "channels": 4, "text_width": 12}
    net = Lumina2(Lumina2Config(**{**small, "axes": (4, 4, 4), **shape}))
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return net


FAMILY = Family(Lumina2, Lumina2Config, tiny)
