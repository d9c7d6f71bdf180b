"""Next-DiT, the backbone of Lumina-Next (Zhuo et al., arXiv 2406.18583): sandwiched branches, rotary rows and columns, text behind a gate.

    c = MLP(sinusoid(t)) + Linear(LN(mean of the words))                   the raw t, not 1000 t
    x += tanh(g(c)) * RMS(Out(A(q, k, v) + tanh(h) A(q, k_y, v_y)))        q, k, v of RMS(x) (1 + s(c)); k_y, v_y of RMS(words); h a head
    x += tanh(g'(c)) * RMS(SwiGLU(RMS(x) (1 + s'(c))))

q and k are normalised over all heads at once, before they are split; each head of keys serves several of queries. May touch nn/ and core/.
Tokens row by row. The published network's t is 0 at noise and it predicts data - noise: `Meaning("velocity", time_map="reversed")`.
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
from ..core.state import Pair, State, Stream
from ..nn.attention import GatedAttention
from ..nn.embeddings import TimeEmbedding, pack, pooled, token_grid, unpatchify
from ..nn.linear import Linear, name_linears
from ..nn.mlp import SwiGLU
from ..nn.modulation import Modulation
from ..nn.norms import LayerNorm, RMSNorm
from ..nn.positions import Rotary, grid_coordinates
from ..nn.projections import AttentionShape
from ..nn.sandwich import SandwichAttention, SandwichMLP
from . import Family


@dataclass(frozen=True)
class NextDiTConfig:
    """Shape of a Next-DiT; the defaults are Lumina-Next's "2B".

    kv_heads: of keys and values.   hidden: of an MLP.   channels: of a latent.   patch: latent cells per token side.   text_width: of the
    slot "text".   qk_norm: q and k are normalised.   variance: twice the channels come out, as for a learned variance; the published
    network has them and was never trained on the second half.   eps: of the RMS norms.   sandwich: branches are bounded, by a norm behind
    them and the tanh of their gates; without, they are adaLN-zero's.
    """

    depth: int = 24
    width: int = 2304
    heads: int = 32
    kv_heads: int = 8
    hidden: int = 6144
    channels: int = 4
    patch: int = 2
    text_width: int = 2048
    qk_norm: bool = True
    variance: bool = True
    eps: float = 1e-5
    sandwich: bool = True

    def __post_init__(self) -> None:
        sizes = (self.depth, self.width, self.heads, self.kv_heads, self.hidden, self.channels, self.patch, self.text_width)
        if min(sizes) < 1 or self.eps <= 0:
            raise ConfigError(f"sizes of a Next-DiT are at least 1 and eps is positive: {self}")
        if self.width % (4 * self.heads) or self.heads % self.kv_heads:
            raise ConfigError(
                f"width is {self.width}, heads {self.heads}, kv_heads {self.kv_heads}",
                "a head's width is a multiple of 4, for rows and columns turn pairs of channels; heads divide into kv_heads",
            )


class NextDiT(Network):
    """Stream in: "image", latents (B, C, h, w) with t (B,). Predicts "image" (B, C, h, w) and, with `variance`, "variance" of that shape.

    Slot: tokens "text" (B, N, text_width), which are read twice: their mean in c, each of them in every block.
    """

    capabilities = frozenset({"softmax", "cross", "rotary"})
    slots = frozenset({"text"})

    def __init__(self, config: NextDiTConfig) -> None:
        super().__init__()
        self.config = config
        width, width_c, each = config.width, min(config.width, 1024), config.width // config.heads
        self.rotary = Rotary((each // 2, each // 2), interleaved=True)
        self.patch = Linear(config.channels * config.patch**2, width, "embed")
        self.time = TimeEmbedding(width_c, scale=1.0)
        self.caption_norm = nn.LayerNorm(config.text_width)
        self.caption = Linear(config.text_width, width_c, "embed")
        self.final_norm = LayerNorm(width)
        self.final_modulation = Modulation(width, 1, width_c)
        self.final = Linear(width, config.patch**2 * config.channels * (2 if config.variance else 1), "head")
        self.set_program([_block(config, width_c, self.rotary) for _ in range(config.depth)])
        _initialise(self)
        name_linears(self)

    def condition(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> dict[str, Tensor]:
        time, text = self.time(self.level(streams), call), cond.tokens["text"]
        # A dropped text has no words: its mean is then zero.
        mean = pooled(text.states, text.keep).to(time.dtype)
        return {"c": time + self.caption(self.caption_norm(mean), call), "time": time}

    def embed(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> dict[str, Stream]:
        self.refuse_strangers(streams)
        latents, dtype = streams["image"].x, self.patch.weight.dtype
        grid = token_grid(latents, self.config.patch)
        image = self.patch(pack(latents.to(dtype), self.config.patch), call).to(dtype)
        return {
            "image": Stream(image, grid=grid, t=streams["image"].t, pos=grid_coordinates(*grid)[..., 1:].to(latents.device)),
            **self.told(cond, call),
        }

    def words(self, cond: Conditions, call: Call | None) -> dict[str, Stream]:
        text = cond.tokens["text"]
        return {"text": Stream(text.silenced(self.patch.weight.dtype), keep=text.keep, update=False)}

    def head(self, state: State, call: Call | None) -> dict[str, Tensor]:
        (scale,) = self.final_modulation(state.cond["c"], call)
        grid = state.streams["image"].grid
        assert grid is not None
        out = unpatchify(self.final(self.final_norm(state["image"]) * (1 + scale), call), grid, self.config.patch)
        return dict(zip(("image", "variance"), out.split(self.config.channels, dim=1), strict=False))


class AttentionBranch(SandwichAttention):
    """The picture attends to itself and to the words, which have a norm of their own."""

    core: GatedAttention

    def __init__(self, config: NextDiTConfig, width_c: int, rotary: Rotary) -> None:
        shape = AttentionShape(
            config.width, config.heads, config.qk_norm, bias=False, norm="layer across", kv_heads=config.kv_heads, out_bias=False, eps=1e-5
        )
        core = GatedAttention(shape, "image", "text", config.text_width, rotary)
        super().__init__(core, ("image",), config.width, width_c, config.eps, not config.sandwich)
        self.words = RMSNorm(config.text_width, config.eps)

    def prepare(self, state: State, call: Call | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        inputs, gates = super().prepare(state, call)
        return {**inputs, "text": self.words(state["text"])}, gates

    def stored(self, streams: Mapping[str, Stream]) -> Pair | None:
        text = streams.get("text")
        return None if text is None else self.core.heard(self.words(text.x))


def _block(config: NextDiTConfig, width_c: int, rotary: Rotary) -> Block:
    mlp = SandwichMLP(SwiGLU(config.width, config.hidden), ("image",), config.width, width_c, config.eps, not config.sandwich)
    return Block(AttentionBranch(config, width_c, rotary), mlp)


def _initialise(net: NextDiT) -> None:
    """The reference's: Xavier for matrices, zero for modulation and gates (where they are made), the caption's way into c and the head."""
    for module in net.modules():
        if isinstance(module, Linear) and module.role in ("q", "k", "v", "out", "up", "down"):
            nn.init.xavier_uniform_(module.weight)
    nn.init.xavier_uniform_(net.patch.weight)
    for layer in (net.caption, net.final):
        nn.init.zeros_(layer.weight)
    for layer in (net.patch, net.caption, net.final):
        nn.init.zeros_(layer.bias)


def tiny(seed: int = 0, **shape: Any) -> NextDiT:
    """A few thousand random parameters with every output alive (no zero initialisation): for tests and sketches."""
    torch.manual_seed(seed)
    small = {"depth": 2, "width": 32, "heads": 4, "kv_heads": 2, "hidden": 48, "channels": 4, "text_width": 12}
    net = NextDiT(NextDiTConfig(**{**small, **shape}))
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return net


FAMILY = Family(NextDiT, NextDiTConfig, tiny)
