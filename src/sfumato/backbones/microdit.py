"""MicroDiT (Sehwag et al., arXiv 2407.15811): a sparse transformer made to be trained with most patches left out.

    y = words after MLP, LN and one block of their own        c = MLP(sinusoid(t)) + MLP(mean of y)
    x += gate(c) * SelfAttention(mod(LN(x), c))               all LNs of blocks have a gain and no shift, all Linears no bias
    x += CrossAttention(LN(x), y)
    x += gate'(c) * F(mod'(LN(x), c))                         F: SwiGLU, or every second time a mixture of experts
    patch mixer: blocks on all patches, narrower;   Gather;   backbone: blocks on the patches that are kept, wider with depth

Patches are left out behind the mixer, by which each already knows of the others ("deferred"); with a mixer of no blocks they are left out
at once ("naive"). Which ones is drawn by the objective and stands in the Call, `noise["keep"]`; without it all stay, as in sampling.

May touch nn/ and core/. Trained behind EDM's precondition, so its time is ln(s) / 4 (`core/precondition.py`); tokens row by row.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from ..core.blocks import Block, Rewire, SiteInfo
from ..core.call import Call, Site
from ..core.conditions import Conditions
from ..core.errors import ConfigError, UsageError
from ..core.program import Network
from ..core.state import State, Stream
from ..nn.attention import CrossAttention, JointAttention
from ..nn.embeddings import MLPEmbedding, PatchEmbedding, TimeEmbedding, pooled, token_grid
from ..nn.expert_choice import ExpertChoice
from ..nn.final import finished
from ..nn.linear import Linear, name_linears
from ..nn.mlp import SwiGLU
from ..nn.modulation import Modulation
from ..nn.norms import LayerNorm
from ..nn.picture import PICTURE, ModulatedAttention, ModulatedMLP, PictureCross, PlainAttention, PlainMLP
from ..nn.positions import sincos_2d
from ..nn.projections import AttentionShape
from ..nn.rewires import Gather, Project
from . import Family

WORDS = ("text",)


@dataclass(frozen=True)
class MicroDiTConfig:
    """Shape of a MicroDiT; the defaults are XL/2's.

    head: width of a head.   channels: of a latent.   patch: latent cells per token side.   span: every picture's sides cover the positions
    [0, span).   attention_ratio, mlp_ratio: from the first to the last block of the backbone, how wide the heads together and an MLP are,
    in `width`s; the mixer's are 1 and the last.   mixer_depth, mixer_width: of the patch mixer.   experts, capacity: of a mixture, in every
    second block but the backbone's last; 0 experts = none.   multiple: what the width of an MLP is rounded up to.
    """

    depth: int = 28
    width: int = 1024
    head: int = 64
    channels: int = 4
    patch: int = 2
    text_width: int = 1024
    span: float = 16.0
    attention_ratio: tuple[float, float] = (0.5, 1.0)
    mlp_ratio: tuple[float, float] = (0.5, 4.0)
    mixer_depth: int = 6
    mixer_width: int = 768
    experts: int = 8
    capacity: float = 2.0
    multiple: int = 256

    def __post_init__(self) -> None:
        sizes = (self.depth, self.head, self.channels, self.patch, self.text_width, self.mixer_width, self.multiple)
        if min(sizes) < 1 or self.mixer_depth < 0 or self.experts < 0 or min(self.span, *self.attention_ratio, *self.mlp_ratio) <= 0:
            raise ConfigError(f"sizes of a MicroDiT are at least 1, its span and ratios positive: {self}")
        if self.width % 4 or self.width % self.head or self.mixer_width % self.head:
            raise ConfigError(f"width is {self.width}, mixer_width {self.mixer_width}", f"multiples of {self.head}, the first of 4 too")
        if self.capacity <= 0 or 0 < self.experts < self.capacity:
            raise ConfigError(f"{self.capacity} of {self.experts} experts take a token on average", "more than 0, at most all of them")

    @property
    def narrows(self) -> bool:
        """Whether the mixer is of another width than the backbone."""
        return self.mixer_depth > 0 and self.mixer_width != self.width

    def attention_width(self, index: int) -> int:
        """Of block `index` of the backbone, a multiple of two heads."""
        return _up(int(self.width * _between(self.attention_ratio, index, self.depth)), 2 * self.head)

    def mlp(self, width: int, ratio: float, sparse: bool) -> SwiGLU | ExpertChoice:
        """The feed-forward part of a block; a gated one has two thirds of the hidden width, so that it weighs the same."""
        if sparse and self.experts:
            return ExpertChoice(width, _up(int(ratio * width), self.multiple), self.experts, self.capacity)
        return SwiGLU(width, _up(int(2 / 3 * ratio * width), self.multiple))


class MicroDiT(Network):
    """Stream in: "image", latents (B, C, h, w) with t (B,), ln(s) / 4 of the noise s. Slot: tokens "text" (B, N, text_width).

    A text that keeps no word is read as one word of zeros, which is the published null prompt.
    """

    capabilities = frozenset({"softmax", "cross", "masking"})
    slots = frozenset({"text"})

    def __init__(self, config: MicroDiTConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.patch = PatchEmbedding(config.channels, width, config.patch)
        self.time = TimeEmbedding(width, 512, scale=1.0, activation="gelu")
        self.text = MLPEmbedding(config.text_width, width, "gelu")
        self.text_norm = _norm(width)
        self.final_norm = LayerNorm(width)
        self.final_modulation = Modulation(width, 2, activation="gelu")
        self.final = Linear(width, config.patch**2 * config.channels, "head")
        mixer = [_mixer_block(config, i) for i in range(config.mixer_depth)]
        backbone = [_backbone_block(config, i) for i in range(config.depth)]
        before, after = ([Narrow(config)], [Widen(config)]) if config.narrows else ([], [])
        self.set_program([_words_block(config), Pool(width), *before, *mixer, Gather(), *after, *backbone])
        _initialise(self, mixer, backbone)
        name_linears(self)

    def condition(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> dict[str, Tensor]:
        time = self.time(self.level(streams), call)
        keep = None if call is None else call.noise.get("keep")
        if keep is None:
            return {"time": time}
        count = math.prod(token_grid(streams["image"].x, self.config.patch))
        if keep.ndim != 2 or len(keep) != len(time) or not 0 < keep.shape[1] <= count:
            raise UsageError(f"patches to keep come as {tuple(keep.shape)}", f"numbers ({len(time)}, K) of each picture's {count} patches")
        return {"time": time, "keep": keep}

    def embed(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> dict[str, Stream]:
        self.refuse_strangers(streams)
        latents, dtype = streams["image"].x, self.final.weight.dtype
        grid = token_grid(latents, self.config.patch)
        table = sincos_2d(*grid, self.config.width, self.config.span, "corner").to(latents.device)
        image = (self.patch(latents.to(dtype)).float() + table).to(dtype)
        return {"image": Stream(image, grid=grid, t=streams["image"].t), **self.told(cond, call)}

    def words(self, cond: Conditions, call: Call | None) -> dict[str, Stream]:
        text, dtype = cond.tokens["text"].pad_to(1), self.final.weight.dtype
        words = self.text_norm(self.text(text.silenced(dtype), call)).to(dtype)
        first = torch.arange(text.keep.shape[1], device=text.keep.device) == 0
        return {"text": Stream(words, keep=text.keep | (first & ~text.keep.any(1, keepdim=True)))}

    def head(self, state: State, call: Call | None) -> dict[str, Tensor]:
        vectors = self.final_modulation(state.cond["c"], call)
        return {"image": finished(state.streams["image"], self.final_norm, vectors, self.final, self.config.patch, call)}


class Pool(Rewire):
    """c = time + MLP(mean of the words), which blocks are modulated by from here on."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = MLPEmbedding(width, width, "gelu")

    def forward(self, state: State, call: Call | None = None) -> State:
        text, time = state.streams["text"], state.cond["time"]
        return replace(state, cond={**state.cond, "c": time + self.mlp(pooled(text.x, text.keep).to(time.dtype), call)})

    def describe(self, prefix: str) -> tuple[SiteInfo, ...]:
        names, width = tuple(f"{prefix}.{n}" for n, _ in self.named_parameters()), self.mlp.up.in_features
        return (SiteInfo(Site(self.index, "mlp"), (), names, (), lambda tokens: tokens["text"] * width),)


class Narrow(Project):
    """Picture and words enter the mixer's width; the words as they were are remembered."""

    def __init__(self, config: MicroDiTConfig) -> None:
        super().__init__(("image", "text"), config.width, config.mixer_width)

    def forward(self, state: State, call: Call | None = None) -> State:
        return super().forward(state.push("text"), call)


class Widen(Project):
    """The picture leaves the mixer's width, the words are again what they were."""

    def __init__(self, config: MicroDiTConfig) -> None:
        super().__init__(PICTURE, config.mixer_width, config.width)

    def forward(self, state: State, call: Call | None = None) -> State:
        state, words = state.pop()
        return super().forward(state.with_x({n: s.x for n, s in words.items()}), call)


def _words_block(config: MicroDiTConfig) -> Block:
    width = config.width
    own, mlp = JointAttention(_shape(width, config.head), WORDS), config.mlp(width, 4.0, sparse=False)
    return Block(PlainAttention(own, _norm(width), WORDS), PlainMLP(mlp, _norm(width), WORDS))


def _mixer_block(config: MicroDiTConfig, index: int) -> Block:
    width = config.mixer_width
    return _block(config, width, width, config.mlp(width, config.mlp_ratio[1], sparse=index % 2 == 1))


def _backbone_block(config: MicroDiTConfig, index: int) -> Block:
    sparse, ratio = index % 2 == 1 and index < config.depth - 1, _between(config.mlp_ratio, index, config.depth)
    return _block(config, config.width, config.attention_width(index), config.mlp(config.width, ratio, sparse))


def _block(config: MicroDiTConfig, width: int, attention: int, mlp: SwiGLU | ExpertChoice) -> Block:
    cross = CrossAttention(_shape(width, config.head), "text", width)
    own = JointAttention(_shape(attention, config.head, width), PICTURE)
    modulations = [Modulation(width, 3, config.width, "gelu") for _ in range(2)]
    return Block(
        ModulatedAttention(own, _norm(width), modulations[0]),
        PictureCross(cross, _norm(width)),
        ModulatedMLP(mlp, _norm(width), modulations[1]),
    )


def _shape(width: int, head: int, outer: int = 0) -> AttentionShape:
    return AttentionShape(width, width // head, bias=False, norm="bare layer across", out_bias=False, outer=outer)


def _norm(width: int) -> nn.LayerNorm:
    return nn.LayerNorm(width, eps=1e-6, bias=False)


def _up(width: int, multiple: int) -> int:
    return -(-width // multiple) * multiple


def _between(ends: tuple[float, float], index: int, count: int) -> float:
    return ends[0] + (ends[1] - ends[0]) * index / max(count - 1, 1)


def _initialise(net: MicroDiT, mixer: list[Block], backbone: list[Block]) -> None:
    """The reference's: Xavier; in blocks 0.02, less at outputs and the less the deeper; the words' block, modulation and head closed."""
    for module in net.modules():
        if isinstance(module, Linear) and module.role != "modulation":
            nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    for blocks, deepest in ((mixer, len(mixer)), (backbone, 0)):
        for index, block in enumerate(blocks):
            for module in block.modules():
                if isinstance(module, Linear) and module.role != "modulation":
                    leaves = module.role in ("out", "down")
                    nn.init.trunc_normal_(module.weight, std=0.02 / math.sqrt(2 * (deepest or index + 1)) if leaves else 0.02)
    for module in net.blocks[0].modules():
        if isinstance(module, Linear) and module.role in ("out", "down"):
            nn.init.zeros_(module.weight)
    nn.init.zeros_(net.final.weight)


def tiny(seed: int = 0, **shape: Any) -> MicroDiT:
    """A few thousand random parameters with every output alive (no zero initialisation): for tests and sketches."""
    torch.manual_seed(seed)
    small = {
        "depth": 3, "width": 24, "head": 4, "channels": 4, "text_width": 12, "span": 4.0, "mixer_depth": 2, "mixer_width": 16,
        "experts": 4, "multiple": 8,
    }  # fmt: skip
    net = MicroDiT(MicroDiTConfig(**{**small, **shape}))
    for name, parameter in net.named_parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
        elif parameter.ndim == 2 and name.startswith("blocks."):
            nn.init.normal_(parameter, std=0.2)
    return net


FAMILY = Family(MicroDiT, MicroDiTConfig, tiny)
