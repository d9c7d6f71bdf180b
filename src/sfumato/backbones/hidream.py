"""HiDream-I1 (arXiv 2505.22705): MLPs are mixtures of experts, and every block hears its own layer of a language model.

    c = MLP(sinusoid(1000 t)) + MLP(pooled text)                       words = [T5, last tap], tap k = layer taps[k] of a language model
    dual k:    [image, words, tap k]   as an MM-DiT block, image and text under weights of their own;  image MLP: experts;  text: SwiGLU
    single k:  the same streams under one set of weights; all tokens to the experts
    tap k joins before block k and is replaced before the next: it persists nowhere

Queries and keys are normed over all heads at once and turn by (0, row, column); words and taps stay at the origin. Time in [0, 1], 1 =
noise; tokens row by row. The published network predicts data - noise: `Meaning("velocity")`. May touch nn/ and core/.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ..core.attention import Attend, Heads, Plan
from ..core.blocks import Block, Rewire, SiteInfo
from ..core.call import Call, Site
from ..core.conditions import Conditions
from ..core.errors import ConfigError, UsageError
from ..core.program import Network
from ..core.state import State, Stream
from ..nn.attention import ANY, JointAttention
from ..nn.embeddings import MLPEmbedding, TimeEmbedding, patchify, token_grid
from ..nn.final import finished
from ..nn.joint import StreamsAttention, StreamsMLP, own
from ..nn.linear import Linear, name_linears
from ..nn.mlp import SwiGLU
from ..nn.modulation import Modulation
from ..nn.moe import MixtureOfExperts
from ..nn.norms import LayerNorm
from ..nn.positions import Rotary, grid_coordinates
from ..nn.projections import AttentionShape
from . import Family

ROLES = {"image": "image", "padding": "image", "text": "text", "last": "text", "tap": "text"}
STREAMS = tuple(ROLES)


@dataclass(frozen=True)
class HiDreamConfig:
    """Shape of a HiDream; the defaults are HiDream-I1's.

    dual, single: blocks of each kind.   channels: of a latent.   patch: latent cells per token side.   axes: channels of a head that each
    of the three coordinates turns.   text_width, pooled_width: of the slots "text" and "pooled".   taps: for each block, which of the
    layers in the slot "taps" it hears, each `tap_width` wide.   experts, active: of an MLP, and of them for each token; 0 experts = one
    dense SwiGLU.   balance: weight of the loss that keeps experts equally busy.   filled: tokens to which a picture that is no square is
    filled up, as HiDream-I1 was trained; 0 = none are added.
    """

    dual: int = 16
    single: int = 32
    width: int = 2560
    heads: int = 20
    channels: int = 16
    patch: int = 2
    axes: tuple[int, ...] = (64, 32, 32)
    text_width: int = 4096
    tap_width: int = 4096
    pooled_width: int = 2048
    taps: tuple[int, ...] = (*range(32), *(31,) * 16)
    experts: int = 4
    active: int = 2
    balance: float = 0.01
    filled: int = 4096

    def __post_init__(self) -> None:
        sizes = (self.width, self.heads, self.channels, self.patch, self.text_width, self.tap_width, self.pooled_width)
        if min(sizes) < 1 or min(self.dual, self.single, self.experts, self.filled, self.balance) < 0:
            raise ConfigError(f"sizes of a HiDream are at least 1, and none is negative: {self}")
        if self.width % self.heads:
            raise ConfigError(f"width is {self.width}", f"a multiple of the number of heads, {self.heads}")
        if len(self.axes) != 3 or sum(self.axes) != self.width // self.heads or any(a % 2 for a in self.axes):
            raise ConfigError(f"axes are {self.axes}", f"three even numbers that add up to the head's width, {self.width // self.heads}")
        if not self.taps or len(self.taps) != self.dual + self.single or min(self.taps) < 0:
            raise ConfigError(f"taps are {self.taps}", f"a layer, counted from 0, for each of the {self.dual + self.single} blocks")

    @property
    def layers(self) -> int:
        """How many layers lie side by side in the slot "taps"."""
        return max(self.taps) + 1


def swiglu_hidden(full: int) -> int:
    """Hidden channels of a SwiGLU that weighs what an MLP of `full` would: two thirds, rounded up to a multiple of 256."""
    return math.ceil(int(2 * full / 3) / 256) * 256


class HiDream(Network):
    """Stream in: "image", latents (B, C, h, w) with t (B,). Slots: tokens "text" (B, N, text_width) and "taps" (B, M, layers * tap_width),
    vector "pooled" (B, pooled_width). `Out.aux` has the balance loss of every block with experts.
    """

    capabilities = frozenset({"softmax", "joint", "rotary"})
    slots = frozenset({"text", "taps", "pooled"})

    def __init__(self, config: HiDreamConfig) -> None:
        super().__init__()
        self.config = config
        self.rotary = Rotary(config.axes)
        width, patched = config.width, config.channels * config.patch**2
        self.patch = Linear(patched, width, "embed")
        self.text = Linear(config.text_width, width, "embed", bias=False)
        self.last = Linear(config.tap_width, width, "embed", bias=False)
        self.time = TimeEmbedding(width)
        self.pooled = MLPEmbedding(config.pooled_width, width)
        self.final_norm = LayerNorm(width)
        self.final_modulation = Modulation(width, 2)
        self.final = Linear(width, patched, "head")
        self.set_program(_program(config, self.rotary))
        _initialise(self)
        name_linears(self)

    def condition(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> dict[str, Tensor]:
        config, taps, dtype = self.config, cond.tokens["taps"], self.patch.weight.dtype
        if taps.states.shape[-1] != config.layers * config.tap_width:
            raise UsageError(
                f"the slot 'taps' is {taps.states.shape[-1]} wide", f"{config.layers} layers side by side, each {config.tap_width} wide"
            )
        time, layers = self.time(self.level(streams), call), taps.silenced(dtype)
        last = self.last(_layer(layers, config.taps[-1], config.tap_width), call).to(dtype)
        c = time + self.pooled(cond.vectors["pooled"].to(dtype), call)
        return {"c": c, "time": time, "taps": layers, "taps.keep": taps.keep, "last": last}

    def embed(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> dict[str, Stream]:
        self.refuse_strangers(streams)
        latents, dtype = streams["image"].x, self.patch.weight.dtype
        grid = token_grid(latents, self.config.patch)
        image = self.patch(patchify(latents.to(dtype), self.config.patch), call).to(dtype)
        found = {"image": Stream(image, grid=grid, t=streams["image"].t, pos=grid_coordinates(*grid).to(latents.device))}
        if count := self._missing(grid):
            blank = image.new_zeros(len(image), count, self.patch.in_features)
            found["padding"] = replace(_at_origin(self.patch(blank, call).to(dtype)), role="image")
        return {**found, **self.told(cond, call)}

    def words(self, cond: Conditions, call: Call | None) -> dict[str, Stream]:
        text, dtype = cond.tokens["text"], self.patch.weight.dtype
        return {"text": _at_origin(self.text(text.silenced(dtype), call).to(dtype), text.keep)}

    def _missing(self, grid: tuple[int, int]) -> int:
        """How many tokens a picture of this grid is filled up with."""
        tokens, filled = math.prod(grid), self.config.filled
        if grid[0] == grid[1] or not filled:
            return 0
        if tokens > filled:
            raise UsageError(
                f"{grid[0]} x {grid[1]} tokens are more than the {filled} of this network's pictures", "a square, or fewer tokens"
            )
        return filled - tokens

    def head(self, state: State, call: Call | None) -> dict[str, Tensor]:
        vectors = self.final_modulation(state.cond["c"], call)
        return {"image": finished(state.streams["image"], self.final_norm, vectors, self.final, self.config.patch, call)}


def _layer(taps: Tensor, layer: int, width: int) -> Tensor:
    return taps[..., layer * width : (layer + 1) * width]


def _at_origin(x: Tensor, keep: Tensor | None = None) -> Stream:
    """Tokens (B, N, D) of role "text" that do not turn."""
    return Stream(x, role="text", keep=keep, pos=x.new_zeros(1, x.shape[1], 3, dtype=torch.float32))


class Tap(Rewire):
    """One layer of the language model joins as the stream "tap", in the place of the one before."""

    def __init__(self, config: HiDreamConfig, layer: int) -> None:
        super().__init__()
        self.layer = layer
        self.linear = Linear(config.tap_width, config.width, "embed", bias=False)

    def forward(self, state: State, call: Call | None = None) -> State:
        x = self.linear(_layer(state.cond["taps"], self.layer, self.linear.in_features), call)
        return state.attach("tap", _at_origin(x.to(state["image"].dtype), state.cond["taps.keep"]))

    def compile(self, *args: Any, **options: Any) -> None:
        """Left as it is: torch would compile one product again for each layer's number."""

    def describe(self, prefix: str) -> tuple[SiteInfo, ...]:
        linear = self.linear

        def cost(tokens: Mapping[str, int]) -> int:
            return tokens["tap"] * linear.in_features * linear.out_features

        return (SiteInfo(Site(self.index, "linear"), ("tap",), (f"{prefix}.linear.weight",), (), cost),)


class LastTap(Rewire):
    """The last tap joins as `stream`: "last", which stays from the beginning, and the last block's "tap". One projection serves both."""

    def __init__(self, stream: str) -> None:
        super().__init__()
        self.stream = stream

    def forward(self, state: State, call: Call | None = None) -> State:
        return state.attach(self.stream, _at_origin(state.cond["last"], state.cond["taps.keep"]))


class FilledAttention(JointAttention):
    """Padding is attended to with keys of zero, whose logits are 0: HiDream-I1 was trained with it."""

    def mixing(self, state: State, inputs: Mapping[str, Tensor]) -> Attend:
        return partial(_unkeyed, super().mixing(state, inputs))


def _unkeyed(attend: Attend, heads: Mapping[str, Heads], plan: Plan | None) -> Mapping[str, Tensor]:
    return attend({n: replace(h, k=0.0 * h.k) if n == "padding" else h for n, h in heads.items()}, plan)


class ExpertsMLP(StreamsMLP):
    """MLPs of which some are mixtures of experts: all tokens of a role are one sequence, so that an expert runs once."""

    def __init__(self, core: nn.ModuleDict, width: int, balance: float) -> None:
        super().__init__(STREAMS, core, width)
        self.balance = balance

    def aux(self, inputs: Mapping[str, Tensor], state: State, call: Call | None) -> dict[str, Tensor]:
        for role, core in self.core.items():
            if isinstance(core, MixtureOfExperts):
                names = [n for n in inputs if own(self.core, state.role(n)) == role]
                streams = [state.streams[n] for n in names]
                keep = [s.x.new_ones(s.x.shape[:2], dtype=torch.bool) if s.keep is None else s.keep for s in streams]
                x = torch.cat([inputs[n] for n in names], dim=1)
                return {"balance": self.balance * core.balance(x, torch.cat(keep, dim=1), call)}
        return {}

    def describe(self, site: Site, prefix: str) -> SiteInfo:
        info = super(StreamsMLP, self).describe(site, prefix)
        cores = {role: core for role, core in self.core.items() if isinstance(core, (MixtureOfExperts, SwiGLU))}

        def cost(tokens: Mapping[str, int]) -> int:
            return sum(count * cores[own(self.core, ROLES[s]) or s].cost for s, count in tokens.items())

        units = tuple(core.units(f"{prefix}.core.{role}") for role, core in cores.items())
        return SiteInfo(site, self.streams, info.parameters, units, cost)


def _mlp(config: HiDreamConfig, mixed: bool) -> MixtureOfExperts | SwiGLU:
    hidden, shared = swiglu_hidden(4 * config.width), swiglu_hidden(2 * config.width)
    if mixed and config.experts:
        return MixtureOfExperts(config.width, hidden, shared, config.experts, config.active)
    return SwiGLU(config.width, hidden)


def _block(config: HiDreamConfig, rotary: Rotary, roles: tuple[str, ...]) -> Block:
    shape = AttentionShape(config.width, config.heads, norm="rms across", eps=1e-5)
    mlps = nn.ModuleDict({role: _mlp(config, mixed=role != "text") for role in roles})
    attention = StreamsAttention(STREAMS, FilledAttention(shape, roles, rotate=rotary), config.width)
    return Block(attention, ExpertsMLP(mlps, config.width, config.balance))


def _program(config: HiDreamConfig, rotary: Rotary) -> list[nn.Module]:
    blocks = [_block(config, rotary, ("image", "text")) for _ in range(config.dual)]
    blocks += [_block(config, rotary, (ANY,)) for _ in range(config.single)]
    taps = [*(Tap(config, layer) for layer in config.taps[:-1]), LastTap("tap")]
    return [LastTap("last"), *(item for pair in zip(taps, blocks, strict=True) for item in pair)]


def _initialise(net: HiDream) -> None:
    """As the released code: Xavier for matrices, torch's own for routers, zero for modulation (set where it is made) and the head."""
    for module in net.modules():
        if isinstance(module, Linear) and (
            module.role in ("q", "k", "v", "out", "up", "down") or module is net.patch or module.bias is None
        ):
            if module.role != "router":
                nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.zeros_(net.final.weight)
    nn.init.zeros_(net.final.bias)


def tiny(seed: int = 0, **shape: Any) -> HiDream:
    """Few random parameters with every output alive (no zero initialisation): for tests and sketches."""
    torch.manual_seed(seed)
    small = {"dual": 1, "single": 2, "width": 32, "heads": 2, "channels": 4, "axes": (8, 4, 4), "text_width": 12, "tap_width": 8}
    net = HiDream(HiDreamConfig(**{**small, "pooled_width": 6, "taps": (0, 1, 1), "filled": 24, **shape}))
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return net


FAMILY = Family(HiDream, HiDreamConfig, tiny)
