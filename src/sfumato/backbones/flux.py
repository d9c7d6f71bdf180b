"""FLUX.1 (Black Forest Labs, 2024): blocks with weights per stream, then blocks with one set of weights; rotary positions on three axes.

    c = MLP(sinusoid(1000 t)) [+ MLP(sinusoid(1000 guidance))] + MLP(pooled text)
    dual:    as an MM-DiT block, queries and keys rotated
    single:  x += gate(c) * (Out(attention over [text, image]) + Down(gelu(Up(h)))),  h = mod(LN(x)) feeds both: one group of two branches
    the last single block's text is read by the picture and by nothing else: it is not written

May touch nn/ and core/. Time in [0, 1], 1 = noise; tokens row by row; text tokens sit at position (0, 0, 0).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..core.blocks import Block
from ..core.call import Call
from ..core.conditions import Conditions
from ..core.errors import ConfigError
from ..core.program import Network
from ..core.state import State, Stream
from ..nn.attention import ANY, JointAttention
from ..nn.embeddings import MLPEmbedding, TimeEmbedding, pack, token_grid, unpack
from ..nn.joint import StreamsAttention, StreamsMLP
from ..nn.linear import Linear, name_linears
from ..nn.mlp import MLP
from ..nn.modulation import Modulation, modulate
from ..nn.norms import LayerNorm
from ..nn.positions import Rotary, grid_coordinates
from ..nn.projections import AttentionShape
from . import Family

STREAMS = ("text", "image")


@dataclass(frozen=True)
class FluxConfig:
    """Shape of a FLUX; the defaults are FLUX.1-dev's.

    dual, single: blocks of each kind.   channels: of a latent.   patch: latent cells per token side.   axes: channels of a head that each
    of the three coordinates turns.   text_width, pooled_width: of the slots "text" and "pooled".   guided: reads the slot "guidance".
    """

    dual: int = 19
    single: int = 38
    width: int = 3072
    heads: int = 24
    channels: int = 16
    patch: int = 2
    axes: tuple[int, ...] = (16, 56, 56)
    text_width: int = 4096
    pooled_width: int = 768
    mlp_ratio: int = 4
    guided: bool = True

    def __post_init__(self) -> None:
        if min(self.width, self.heads, self.channels, self.patch, self.mlp_ratio) < 1 or min(self.dual, self.single) < 0:
            raise ConfigError(f"sizes of a FLUX are at least 1: {self}")
        if self.width % self.heads:
            raise ConfigError(f"width is {self.width}", f"a multiple of the number of heads, {self.heads}")
        if len(self.axes) != 3 or sum(self.axes) != self.width // self.heads or any(a % 2 for a in self.axes):
            raise ConfigError(f"axes are {self.axes}", f"three even numbers that add up to the head's width, {self.width // self.heads}")


class Flux(Network):
    """Stream in: "image", latents (B, C, h, w) with t (B,). Slots: tokens "text" (B, N, text_width), vector "pooled" (B, pooled_width);
    with `guided`, scalar "guidance" (B,), the guidance scale that the network was distilled to follow (3.5, say).
    """

    capabilities = frozenset({"softmax", "joint", "rotary"})

    def __init__(self, config: FluxConfig) -> None:
        super().__init__()
        self.config = config
        self.slots = frozenset({"text", "pooled", "guidance"} if config.guided else {"text", "pooled"})
        self.rotary = Rotary(config.axes)
        width, patched = config.width, config.channels * config.patch**2
        self.patch = Linear(patched, width, "embed")
        self.text = Linear(config.text_width, width, "embed")
        self.time = TimeEmbedding(width)
        if config.guided:
            self.guidance = TimeEmbedding(width)
        self.pooled = MLPEmbedding(config.pooled_width, width)
        self.final_norm = LayerNorm(width)
        self.final_modulation = Modulation(width, 2)
        self.final = Linear(width, patched, "head")
        singles = (_single(config, last=i == config.single - 1) for i in range(config.single))
        self.set_program([*(_dual(config) for _ in range(config.dual)), *singles])
        _initialise(self)
        name_linears(self)

    def condition(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> dict[str, Tensor]:
        time = self.time(self.level(streams), call)
        c = time + self.pooled(cond.vectors["pooled"].to(self.patch.weight.dtype), call)
        if self.config.guided:
            c = c + self.guidance(cond.scalars["guidance"], call)
        return {"c": c, "time": time}

    def embed(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> dict[str, Stream]:
        self.refuse_strangers(streams)
        latents, dtype = streams["image"].x, self.patch.weight.dtype
        grid = token_grid(latents, self.config.patch)
        image = self.patch(pack(latents.to(dtype), self.config.patch), call).to(dtype)
        return {
            **self.told(cond, call),
            "image": Stream(image, grid=grid, t=streams["image"].t, pos=grid_coordinates(*grid).to(latents.device)),
        }

    def words(self, cond: Conditions, call: Call | None) -> dict[str, Stream]:
        text, dtype = cond.tokens["text"], self.patch.weight.dtype
        words = self.text(text.silenced(dtype), call).to(dtype)
        return {"text": Stream(words, keep=text.keep, pos=words.new_zeros(1, words.shape[1], 3, dtype=torch.float32))}

    def head(self, state: State, call: Call | None) -> dict[str, Tensor]:
        shift, scale = self.final_modulation(state.cond["c"], call)
        tokens = self.final(modulate(self.final_norm(state["image"]), shift, scale), call)
        grid = state.streams["image"].grid
        assert grid is not None
        return {"image": unpack(tokens, grid, self.config.patch)}


def _attention(config: FluxConfig, roles: tuple[str, ...], silent: frozenset[str] = frozenset()) -> StreamsAttention:
    core = JointAttention(AttentionShape(config.width, config.heads), roles, silent, rotate=Rotary(config.axes))
    return StreamsAttention(STREAMS, core, config.width)


def _mlps(config: FluxConfig, roles: tuple[str, ...], last_bias: bool) -> nn.ModuleDict:
    return nn.ModuleDict({r: MLP(config.width, config.mlp_ratio * config.width, last_bias=last_bias) for r in roles})


def _dual(config: FluxConfig) -> Block:
    return Block(_attention(config, STREAMS), StreamsMLP(STREAMS, _mlps(config, STREAMS, last_bias=True), config.width))


def _single(config: FluxConfig, last: bool) -> Block:
    """The MLP stands beside the attention: the same modulated tokens, the same gate, and the output's bias is the attention's."""
    silent, written = (frozenset({"text"}), ("image",)) if last else (frozenset[str](), STREAMS)
    beside = StreamsMLP(written, _mlps(config, (ANY,), last_bias=False), config.width, reads="attention", silent=silent)
    return Block((_attention(config, (ANY,), silent), beside))


def _initialise(net: Flux) -> None:
    """FLUX's is not published; this is DiT's: Xavier for matrices, zero for modulation (set where it is made) and the last Linear."""
    for module in net.modules():
        if isinstance(module, Linear) and module.role in ("q", "k", "v", "out", "up", "down"):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.zeros_(net.final.weight)
    nn.init.zeros_(net.final.bias)


def tiny(seed: int = 0, **shape: Any) -> Flux:
    """A few thousand random parameters with every output alive (no zero initialisation): for tests and sketches."""
    torch.manual_seed(seed)
    small = {"dual": 2, "single": 2, "width": 32, "heads": 2, "channels": 4, "axes": (4, 6, 6), "text_width": 12, "pooled_width": 6}
    net = Flux(FluxConfig(**{**small, "guided": False, **shape}))
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return net


FAMILY = Family(Flux, FluxConfig, tiny)
