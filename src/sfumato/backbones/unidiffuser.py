"""UniDiffuser (Bao et al., arXiv 2303.06555): one U-ViT that noises and predicts a picture and a caption, each with a time of its own.

    x = [sinusoid(1000 t_image), sinusoid(1000 t_text), kind, Linear(text), Linear(clip), patches] + learned positions
    block:  x = LN(x + Attention(x));  x = LN(x + MLP(x))        norms after the sums: before them, fp16 overflowed
    depth / 2 blocks that remember, one in the middle, depth / 2 that first take x = LN(W [x, remembered] + b)

t = 0 of a stream: it is given; t = 1: it says nothing. So the same weights draw pictures from texts, texts from pictures, both, or either.
May touch nn/ and core/. Time in [0, 1], 1 = noise; tokens row by row.
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
from ..core.errors import ConfigError, UsageError
from ..core.program import Network
from ..core.state import State, Stream
from ..nn.attention import ANY, JointAttention
from ..nn.embeddings import PatchEmbedding, sinusoid, token_grid, unpatchify
from ..nn.linear import Linear, name_linears
from ..nn.mlp import MLP
from ..nn.picture import PlainAttention, PlainMLP
from ..nn.projections import AttentionShape
from ..nn.rewires import skipped
from . import Family, uvit

STREAMS = ("time", "text", "clip", "image")


@dataclass(frozen=True)
class UniDiffuserConfig:
    """Shape of a UniDiffuser; the defaults are those of v1.

    depth: blocks with a partner, so even; one more stands in the middle.   grid: token rows of a square training picture.   words: of a
    caption in tokens, always as many; text_width: of each.   clip_width: of the picture's CLIP embedding.   bias: of q, k and v.   kinds:
    reads the slot "kind", 0 for pictures of the web and 1 for the cleaner ones v1 went on with.
    """

    depth: int = 30
    width: int = 1536
    heads: int = 24
    channels: int = 4
    patch: int = 2
    grid: int = 32
    words: int = 77
    text_width: int = 64
    clip_width: int = 512
    mlp_ratio: int = 4
    bias: bool = False
    kinds: bool = True

    def __post_init__(self) -> None:
        sizes = (self.width, self.heads, self.channels, self.patch, self.grid, self.words, self.text_width, self.clip_width, self.mlp_ratio)
        if min(sizes) < 1 or self.depth < 0:
            raise ConfigError(f"sizes of a UniDiffuser are at least 1: {self}")
        if self.depth % 2 or self.width % self.heads or self.width % 2:
            raise ConfigError(f"depth is {self.depth} and width {self.width}", f"even numbers, the width a multiple of {self.heads} heads")


class UniDiffuser(Network):
    """Streams in, and predicted: "image", latents (B, C, h, w) with t (B,), and "clip" (B, 1, clip_width), which shares that t; "text"
    (B, words, text_width) with a t of its own. Slot, with `kinds`: scalar "kind" (B,), whole numbers 0 and 1.
    """

    capabilities = frozenset({"softmax", "joint"})
    inputs = ("image", "clip", "text")

    def __init__(self, config: UniDiffuserConfig) -> None:
        super().__init__()
        self.config = config
        self.slots = frozenset({"kind"} if config.kinds else ())
        width = config.width
        self.patch = PatchEmbedding(config.channels, width, config.patch)
        self.clip, self.text = Linear(config.clip_width, width, "embed"), Linear(config.text_width, width, "embed")
        self.positions = nn.Parameter(torch.zeros(1, 2 + config.words + 1 + config.grid**2, width))
        if config.kinds:
            self.kinds = nn.Embedding(2, width)
            self.kind_position = nn.Parameter(torch.zeros(1, 1, width))
        self.final_norm = nn.LayerNorm(width)
        self.final = Linear(width, config.patch**2 * config.channels, "head")
        self.final_clip, self.final_text = Linear(width, config.clip_width, "head"), Linear(width, config.text_width, "head")
        self.set_program(skipped([_block(config) for _ in range(config.depth + 1)], width, normed=True))
        uvit.initialise(self, self.positions)
        name_linears(self)

    def condition(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> dict[str, Tensor]:
        return {"time": self._clock(self.level(streams))}

    def _clock(self, t: Tensor) -> Tensor:
        return sinusoid(1000.0 * t, self.config.width).to(self.text.weight.dtype)

    def embed(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> dict[str, Stream]:
        self.refuse_strangers(streams)
        config, dtype = self.config, self.text.weight.dtype
        image, clip, text = self._checked(streams)
        assert text.t is not None
        clocks, words, seen, cells = self.positions.split([2, config.words, 1, config.grid**2], dim=1)
        time = torch.stack([self._clock(self.level(streams)), self._clock(text.t)], dim=1) + clocks
        if config.kinds:
            time = torch.cat([time, self.kinds(_kinds(cond.scalars["kind"]))[:, None] + self.kind_position], dim=1)
        grid = token_grid(image.x, config.patch)
        patches = self.patch(image.x.to(dtype)) + uvit.resized(cells, config.grid, grid, "bilinear")
        return {
            "time": Stream(time.to(dtype), role=ANY),
            "text": Stream(self.text(text.x.to(dtype), call) + words, role=ANY, t=text.t),
            "clip": Stream(self.clip(clip.x.to(dtype), call) + seen, role=ANY),
            "image": Stream(patches.to(dtype), role=ANY, grid=grid, t=image.t),
        }

    def _checked(self, streams: Mapping[str, Stream]) -> tuple[Stream, Stream, Stream]:
        if missing := [name for name in self.inputs if name not in streams]:
            raise UsageError(f"a UniDiffuser without the stream {missing[0]!r}", f"it takes {', '.join(self.inputs)}")
        image, clip, text = (streams[name] for name in self.inputs)
        if text.x.shape[1] != self.config.words:
            raise UsageError(f"the caption has {text.x.shape[1]} tokens", f"always {self.config.words}, padding and all")
        if text.t is None or text.t.ndim != 1:
            lacking = "no noise level t" if text.t is None else f"a noise level of the shape {tuple(text.t.shape)}"
            raise UsageError(f"the text stream has {lacking}", "(B,): 0 where it is given, 1 where it says nothing")
        if clip.t is not None and not torch.equal(clip.t, self.level(streams)):
            raise UsageError("the clip stream has another noise level than the image", "they share one")
        return image, clip, text

    def head(self, state: State, call: Call | None) -> dict[str, Tensor]:
        grid = state.streams["image"].grid
        assert grid is not None
        normed = {name: self.final_norm(state[name]) for name in self.inputs}
        return {
            "image": unpatchify(self.final(normed["image"], call), grid, self.config.patch),
            "clip": self.final_clip(normed["clip"], call),
            "text": self.final_text(normed["text"], call),
        }


def _kinds(kinds: Tensor) -> Tensor:
    if kinds.is_floating_point() or bool(((kinds < 0) | (kinds > 1)).any()):
        raise UsageError(f"kinds are {kinds.tolist()}", "whole numbers: 1 is what the published v1 draws with, 0 the web's pictures")
    return kinds


def _block(config: UniDiffuserConfig) -> Block:
    """Exact GELU."""
    width = config.width
    core = JointAttention(AttentionShape(width, config.heads, qk_norm=False, bias=config.bias), (ANY,))
    mlp = MLP(width, config.mlp_ratio * width, "none")
    return Block(NormedAttention(core, nn.LayerNorm(width), STREAMS), NormedMLP(mlp, nn.LayerNorm(width), STREAMS))


class NormedAttention(PlainAttention):
    """x = LN(x + Attention(x))."""

    def prepare(self, state: State, call: Call | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return {n: state[n] for n in self.streams}, {}

    def close(self, tokens: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        return {n: self.norm(x) for n, x in tokens.items()}


class NormedMLP(PlainMLP):
    """x = LN(x + MLP(x))."""

    prepare = NormedAttention.prepare
    close = NormedAttention.close


def tiny(seed: int = 0, **shape: Any) -> UniDiffuser:
    """A few thousand random parameters, large enough to be told apart: for tests and sketches."""
    torch.manual_seed(seed)
    small = {"depth": 2, "width": 32, "heads": 2, "grid": 4, "words": 5, "text_width": 12, "clip_width": 6}
    net = UniDiffuser(UniDiffuserConfig(**{**small, **shape}))
    for parameter in net.parameters():
        nn.init.normal_(parameter, mean=1.0 if parameter.ndim == 1 and parameter.all() else 0.0, std=0.1)
    return net


FAMILY = Family(UniDiffuser, UniDiffuserConfig, tiny)
