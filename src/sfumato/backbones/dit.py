"""DiT (Peebles and Xie, arXiv 2212.09748): pictures of a class, by self-attention and adaLN-zero.

    c = MLP(sinusoid(1000 t)) + table[class]
    x += gate(c) * Attention(mod(LN(x), c));  x += gate'(c) * MLP(mod'(LN(x), c))

May touch nn/ and core/. Time in [0, 1], 1 = noise; tokens row by row. The class after the last stands for none, for guidance.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn

from ..core.blocks import Block
from ..core.call import Call
from ..core.conditions import Conditions, Slot
from ..core.errors import ConfigError, UsageError
from ..core.program import Network
from ..core.state import State, Stream
from ..nn.embeddings import PatchEmbedding, TimeEmbedding, token_grid
from ..nn.final import finished
from ..nn.linear import Linear, name_linears
from ..nn.linear_attention import SelfAttention, self_attention
from ..nn.mlp import MLP
from ..nn.modulation import Modulation
from ..nn.norms import LayerNorm
from ..nn.picture import PICTURE, ModulatedAttention, ModulatedMLP
from ..nn.positions import sincos_2d
from ..nn.projections import AttentionShape
from . import Family


@dataclass(frozen=True)
class DiTConfig:
    """Shape of a DiT; the defaults are DiT-XL/2's at 256 px.

    classes: how many, that for "none" not counted.   channels: of a latent.   patch: latent cells per token side.   span: every picture's
    sides cover the positions [0, span).   variance: also predicts the reverse process's variance.   bias: of q, k and v.   gelu: "tanh" or
    "none" (exact).   eps, affine: of the norm before an MLP.   closed: the time's slowest rate is 1 / 10000 itself (diffusers' class)
    rather than the step before it (the paper's code).   attention: "softmax", or linear in the tokens, alone or with a convolution of the
    values or of the branch's input beside it (LiT, arXiv 2501.12976).
    """

    depth: int = 28
    width: int = 1152
    heads: int = 16
    classes: int = 1000
    channels: int = 4
    patch: int = 2
    mlp_ratio: int = 4
    span: float = 16.0
    variance: bool = True
    bias: bool = True
    gelu: Literal["tanh", "none"] = "tanh"
    eps: float = 1e-6
    affine: bool = False
    closed: bool = False
    attention: SelfAttention = "softmax"

    def __post_init__(self) -> None:
        sizes = (self.depth, self.width, self.heads, self.classes, self.channels, self.patch, self.mlp_ratio)
        if min(sizes) < 1 or self.span <= 0 or self.eps <= 0:
            raise ConfigError(f"sizes of a DiT are at least 1, its span and eps are positive: {self}")
        if self.width % self.heads or self.width % 4:
            raise ConfigError(f"width is {self.width}", f"a multiple of 4 and of the number of heads, {self.heads}")

    def slot(self, dropout: float = 0.1) -> Slot:
        """The slot "class" as it is trained: dropped this often, the class after the last in its stead."""
        return Slot("class", dropout, null="value", group="class", value=self.classes)


class DiT(Network):
    """Stream in: "image", latents (B, C, h, w) with t (B,). Predicts "image" (B, C, h, w) and, with `variance`, "variance" of that shape.

    Slot: scalar "class" (B,), whole numbers 0 ... classes, of which the last stands for none.
    """

    slots = frozenset({"class"})

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.config = config
        self.capabilities = frozenset({"softmax" if config.attention == "softmax" else "linear"})
        width = config.width
        self.patch = PatchEmbedding(config.channels, width, config.patch)
        self.time = TimeEmbedding(width, closed=config.closed)
        self.classes = nn.Embedding(config.classes + 1, width)
        self.final_norm = LayerNorm(width)
        self.final_modulation = Modulation(width, 2)
        self.final = Linear(width, config.patch**2 * config.channels * (2 if config.variance else 1), "head")
        self.set_program([_block(config) for _ in range(config.depth)])
        _initialise(self)
        name_linears(self)

    def condition(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> dict[str, Tensor]:
        time, labels = self.time(self.level(streams), call), cond.scalars["class"]
        if labels.is_floating_point() or bool(((labels < 0) | (labels > self.config.classes)).any()):
            raise UsageError(f"classes are {labels.tolist()}", f"whole numbers from 0 to {self.config.classes}, the last for none")
        return {"c": time + self.classes(labels), "time": time}

    def embed(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> dict[str, Stream]:
        self.refuse_strangers(streams)
        latents, dtype = streams["image"].x, self.final.weight.dtype
        grid = token_grid(latents, self.config.patch)
        table = sincos_2d(*grid, self.config.width, self.config.span, "corner").to(latents.device)
        image = (self.patch(latents.to(dtype)).float() + table).to(dtype)
        return {"image": Stream(image, grid=grid, t=streams["image"].t)}

    def head(self, state: State, call: Call | None) -> dict[str, Tensor]:
        vectors = self.final_modulation(state.cond["c"], call)
        out = finished(state.streams["image"], self.final_norm, vectors, self.final, self.config.patch, call)
        return dict(zip(("image", "variance"), out.split(self.config.channels, dim=1), strict=False))


def _block(config: DiTConfig) -> Block:
    width, shape = config.width, AttentionShape(config.width, config.heads, qk_norm=False, bias=config.bias)
    norm = nn.LayerNorm(width, config.eps) if config.affine else LayerNorm(width, config.eps)
    mlp = MLP(width, config.mlp_ratio * width, config.gelu)
    return Block(
        ModulatedAttention(self_attention(config.attention, shape, PICTURE), LayerNorm(width), Modulation(width, 3)),
        ModulatedMLP(mlp, norm, Modulation(width, 3)),
    )


def _initialise(net: DiT) -> None:
    """The paper's: Xavier for matrices, 0.02 for the table, zero for modulation (where it is made) and the head: the net starts at 0."""
    for module in net.modules():
        if isinstance(module, Linear) and module.role in ("q", "k", "v", "out", "up", "down"):
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    nn.init.normal_(net.classes.weight, std=0.02)
    nn.init.zeros_(net.final.weight)
    nn.init.zeros_(net.final.bias)


def tiny(seed: int = 0, **shape: Any) -> DiT:
    """A few thousand random parameters with every output alive (no zero initialisation): for tests and sketches."""
    torch.manual_seed(seed)
    net = DiT(DiTConfig(**{"depth": 3, "width": 24, "heads": 2, "classes": 5, "channels": 4, "span": 4.0, **shape}))
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return net


FAMILY = Family(DiT, DiTConfig, tiny)
