"""The U-Net of latent diffusion (Rombach et al., arXiv 2112.10752), as Stable Diffusion 1, 2 and XL (arXiv 2307.01952) and Kandinsky 2.2
(arXiv 2310.03502) have it: residual convolutions and stacks of transformer blocks, down through the levels and up again with skips.

    c = silu(MLP(sinusoid(1000 t)) [+ MLP(pooled vector, sinusoids of sizes)] [+ LN(W image embedding)])
    down, at each level      residual block [+ stack], remembered; then half the sides
    middle                   residual block, stack, residual block
    up, deepest level first  joined with what was remembered: residual block [+ stack]; then the sides of the next level

`plan` lists the program's items with their places; the network, the tables of published weights and surgery all read it. A picture's tokens
are latent cells, row by row, and a stream's grid says how many rows and columns there are at its level. May touch nn/ and core/.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from ..core.call import Call
from ..core.conditions import Conditions
from ..core.errors import ConfigError, UsageError
from ..core.program import Block, Network, SiteInfo
from ..core.state import State, Stream
from ..nn.attention import AttentionShape
from ..nn.conv import Down, Residual, Up
from ..nn.embeddings import MLPEmbedding, TimeEmbedding, sinusoid
from ..nn.grids import at_level, plane, tokens
from ..nn.linear import Linear, name_linears
from ..nn.norms import GroupNorm
from ..nn.rewires import Join, Push
from ..nn.stack import Enter, Leave, PrefixBranch, layer
from . import Family

# Numbers in each slot that tells of the training picture: (height, width), (top, left), (height, width), a score.
SIZES: Mapping[str, int] = {"original_size": 2, "crop": 2, "target_size": 2, "aesthetic": 1}
Side = Literal["down", "middle", "up"]
Kind = Literal["push", "residual", "enter", "layer", "leave", "prefix", "down", "up", "join"]


@dataclass(frozen=True)
class UNetConfig:
    """Shape of a U-Net; the defaults are Stable Diffusion XL's.

    widths: by level, finest first.   down, up: for each level, in the order of the program, the depth of the stack behind each residual
    block, 0 = none; a level has one more of them on its way up.   middle: that of its stack; 0: one residual block alone; None: no middle.
    heads: by level.   attention: "stack", or "prefix" (single blocks that read the text as a prefix of their own keys; depth 1).
    resample: between levels by a "conv" or inside a "residual" block.   scale_shift: c scales and shifts inner norms, else it is added.
    text_width: of the states that are read, in the slot "text", or made of an image embedding.   pooled_width: of the slot "pooled"; 0:
    none.   sizes: slots behind it, of `SIZES`, in their order; `sizes_width`: of each number's sinusoid.   image_width: of the slot
    "image_embedding", which then stands for a text of `image_tokens` tokens; 0: none.   variance: the reverse process's is predicted too.
    pointwise: how a stack's In and Out are published, as 1 x 1 convolutions or as matrices; the same numbers.
    """

    channels: int = 4
    widths: tuple[int, ...] = (320, 640, 1280)
    down: tuple[tuple[int, ...], ...] = ((0, 0), (2, 2), (10, 10))
    middle: int | None = 10
    up: tuple[tuple[int, ...], ...] = ((10, 10, 10), (2, 2, 2), (0, 0, 0))
    heads: tuple[int, ...] = (5, 10, 20)
    attention: Literal["stack", "prefix"] = "stack"
    resample: Literal["conv", "residual"] = "conv"
    scale_shift: bool = False
    text_width: int = 2048
    pooled_width: int = 1280
    sizes: tuple[str, ...] = ("original_size", "crop", "target_size")
    sizes_width: int = 256
    image_width: int = 0
    image_tokens: int = 32
    variance: bool = False
    groups: int = 32
    eps: float = 1e-5
    pointwise: bool = False

    def __post_init__(self) -> None:
        levels = len(self.widths)
        if min(self.channels, self.groups, self.text_width, self.image_tokens, levels, *self.widths, *self.heads) < 1:
            raise ConfigError(f"sizes of a U-Net are at least 1: {self}")
        if not levels == len(self.down) == len(self.up) == len(self.heads):
            raise ConfigError(f"{levels} widths, {len(self.down)} down, {len(self.up)} up, {len(self.heads)} heads", "one of each a level")
        for level, (width, heads) in enumerate(zip(self.widths, self.heads, strict=True)):
            if width % self.groups or width % heads or self.widths[0] % 2:
                raise ConfigError(f"level {level} is {width} wide", f"a multiple of its {heads} heads and of the {self.groups} groups")
            below, above = len(self.down[level]), len(self.up[levels - 1 - level])
            if above != below + 1 or not below:
                raise ConfigError(
                    f"level {level} has {below} residual blocks down and {above} up", "at least one down and one more on the way up"
                )
        depths = [*(d for level in (*self.down, *self.up) for d in level), self.middle or 0]
        if min(depths) < 0 or (self.attention == "prefix" and max(depths) > 1):
            raise ConfigError(f"depths are {self.down}, {self.middle}, {self.up}", "0 or more; a prefix block has the depth 1")
        if unknown := [name for name in self.sizes if name not in SIZES]:
            raise ConfigError(f"sizes names {unknown[0]!r}", f"slots are {', '.join(SIZES)}")
        if self.sizes and not self.pooled_width:
            raise ConfigError("sizes without a pooled vector", "they are joined to it: pooled_width at least 1, or sizes ()")

    @property
    def time_width(self) -> int:
        return 4 * self.widths[0]

    @property
    def added_width(self) -> int:
        """Of the vector behind the pooled one's embedding: it and a sinusoid of each number."""
        return self.pooled_width + self.sizes_width * sum(SIZES[name] for name in self.sizes)


@dataclass(frozen=True)
class Part:
    """One item of the program. `stage`: within its side, in the order of the program.   `pair`: which residual block of the stage and what
    stands behind it.   `layer`: within a stack.   `level`: how often the sides are halved after it.   `width_in`, `width`: of the picture.
    """

    kind: Kind
    side: Side
    stage: int
    pair: int
    level: int
    width_in: int
    width: int
    layer: int = 0

    @property
    def place(self) -> str:
        """A name that says what it is: "down.1.0.layer.3"."""
        return f"{self.side}.{self.stage}.{self.pair}.{self.kind}" + (f".{self.layer}" if self.kind == "layer" else "")


def plan(config: UNetConfig) -> tuple[Part, ...]:
    """The program, item by item."""
    return tuple(_plan(config))


def _plan(config: UNetConfig) -> Iterator[Part]:
    last, width = len(config.widths) - 1, config.widths[0]
    remembered = [width]
    yield Part("push", "down", 0, -1, 0, width, width)
    for level, depths in enumerate(config.down):
        for pair, depth in enumerate(depths):
            here = Part("residual", "down", level, pair, level, width, config.widths[level])
            yield from _pair(config, here, depth)
            yield replace(here, kind="push", width_in=here.width)
            width = here.width
            remembered.append(width)
        if level < last:
            yield Part("down", "down", level, len(depths), level + 1, width, width)
            yield Part("push", "down", level, len(depths), level + 1, width, width)
            remembered.append(width)
    middle = Part("residual", "middle", 0, 0, last, width, width)
    if config.middle is not None:
        yield from _pair(config, middle, config.middle)
    if config.middle:
        yield replace(middle, pair=1)
    for stage, depths in enumerate(config.up):
        level = last - stage
        for pair, depth in enumerate(depths):
            here = Part("residual", "up", stage, pair, level, width + remembered.pop(), config.widths[level])
            yield replace(here, kind="join", width=here.width_in)
            yield from _pair(config, here, depth)
            width = here.width
        if level:
            yield Part("up", "up", stage, len(depths), level - 1, width, width)


def _pair(config: UNetConfig, residual: Part, depth: int) -> Iterator[Part]:
    yield residual
    inside = replace(residual, width_in=residual.width)
    if depth and config.attention == "prefix":
        yield replace(inside, kind="prefix")
    elif depth:
        yield replace(inside, kind="enter")
        yield from (replace(inside, kind="layer", layer=i) for i in range(depth))
        yield replace(inside, kind="leave")


class UNet(Network):
    """Stream in: "image", latents (B, C, h, w) with t (B,). Predicts "image" (B, C, h, w) and, with `variance`, "variance" of that shape.

    Slots: tokens "text" (B, N, text_width), or vector "image_embedding" (B, image_width); with `pooled_width`, vector "pooled" and the
    vectors of `sizes` in pixels ("aesthetic": a score), (B, 2) as (height, width) or (top, left), the score (B, 1).
    """

    def __init__(self, config: UNetConfig) -> None:
        super().__init__()
        self.config, self.parts = config, plan(config)
        self.capabilities = frozenset({"softmax", "cross"} if config.attention == "stack" else {"softmax"})
        self.slots = frozenset({"image_embedding" if config.image_width else "text", *config.sizes})
        first = config.widths[0]
        self.entry = nn.Conv2d(config.channels, first, 3, padding=1)
        self.time = TimeEmbedding(config.time_width, features=first)
        if config.pooled_width:
            self.slots |= {"pooled"}
            self.added = MLPEmbedding(config.added_width, config.time_width)
        if config.image_width:
            self.image_tokens = Linear(config.image_width, config.image_tokens * config.text_width, "embed")
            self.image_norm = nn.LayerNorm(config.text_width)
            self.image_time, self.image_time_norm = Linear(config.image_width, config.time_width, "embed"), nn.LayerNorm(config.time_width)
        self.set_program([_item(part, config) for part in self.parts])
        self.final_norm = GroupNorm(config.groups, first, config.eps)
        self.final = nn.Conv2d(first, config.channels * (2 if config.variance else 1), 3, padding=1)
        _initialise(self)
        name_linears(self)

    def condition(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> dict[str, Tensor]:
        time, config = self.time(self.level(streams), call), self.config
        c = time
        if config.pooled_width:
            numbers = [sinusoid(cond.vectors[name], config.sizes_width).flatten(1) for name in config.sizes]
            c = c + self.added(torch.cat([cond.vectors["pooled"].to(time.dtype), *(n.to(time.dtype) for n in numbers)], dim=1), call)
        if config.image_width:
            c = c + self.image_time_norm(self.image_time(cond.vectors["image_embedding"].to(time.dtype), call)).to(time.dtype)
        return {"time": time, "c": silu(c)}

    def embed(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> dict[str, Stream]:
        self.refuse_strangers(streams)
        latents, dtype = streams["image"].x, self.entry.weight.dtype
        rows, columns = latents.shape[-2:]
        halvings = 2 ** (len(self.config.widths) - 1)
        if self.config.resample == "residual" and (rows % halvings or columns % halvings):
            raise UsageError(
                f"a latent of {rows} x {columns} is not halved {len(self.config.widths) - 1} times", f"multiples of {halvings}"
            )
        image = Stream(tokens(self.entry(latents.to(dtype))), grid=(rows, columns), t=streams["image"].t)
        return {"image": image, **self.told(cond, call)}

    def words(self, cond: Conditions, call: Call | None) -> dict[str, Stream]:
        dtype = self.entry.weight.dtype
        if not self.config.image_width:
            text = cond.tokens["text"]
            return {"text": Stream(text.silenced(dtype), keep=text.keep, update=False)}
        states = self.image_tokens(cond.vectors["image_embedding"].to(dtype), call).unflatten(1, (-1, self.config.text_width))
        return {"text": Stream(self.image_norm(states).to(dtype), update=False)}

    def head(self, state: State, call: Call | None) -> dict[str, Tensor]:
        image = state.streams["image"]
        answer = self.final(plane(silu(self.final_norm(image.x)), image.grid))
        return dict(zip(("image", "variance"), answer.split(self.config.channels, dim=1), strict=False))

    def sites(self) -> tuple[SiteInfo, ...]:
        """As every network's; costs are asked with the whole picture's tokens and counted with those of the site's level."""
        return tuple(at_level(info, self.parts[info.site.block].level) for info in super().sites())


def _item(part: Part, config: UNetConfig) -> nn.Module:
    heads = config.heads[part.level]
    if part.kind == "push":
        return Push("image")
    if part.kind == "join":
        return Join()
    if part.kind == "enter":
        return Enter(part.width, config.groups)
    if part.kind == "layer":
        return layer(part.width, heads, config.text_width)
    if part.kind == "leave":
        return Block(Leave(part.width))
    if part.kind == "prefix":
        return Block(PrefixBranch(AttentionShape(part.width, heads, qk_norm=False), config.text_width, config.groups))
    if part.kind in ("down", "up") and config.resample == "conv":
        return Down(part.width) if part.kind == "down" else Up(part.width)
    resample = part.kind if part.kind in ("down", "up") else ""
    return Block(Residual(part.width_in, part.width, config.time_width, config.groups, config.eps, config.scale_shift, resample))


def _initialise(net: UNet) -> None:
    """Residual blocks, stacks and the network begin closed: their last layers are zero, the rest is torch's own."""
    for module in net.modules():
        if isinstance(module, (Residual, Leave, PrefixBranch)):
            closing = {Residual: "conv_out", Leave: "linear", PrefixBranch: "core.own.out"}[type(module)]
            _close(module.get_submodule(closing))
    _close(net.final)


def _close(module: nn.Module) -> None:
    for parameter in module.parameters():
        nn.init.zeros_(parameter)


def tiny(seed: int = 0, **shape: Any) -> UNet:
    """A few thousand random parameters with every output alive (no zero initialisation): for tests and sketches."""
    torch.manual_seed(seed)
    small = {
        "widths": (8, 16), "down": ((0,), (1,)), "middle": 1, "up": ((1, 2), (0, 0)), "heads": (2, 4), "groups": 4, "text_width": 12,
        "pooled_width": 6, "sizes_width": 8,
    }  # fmt: skip
    net = UNet(UNetConfig(**{**small, **shape}))
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return net


FAMILY = Family(UNet, UNetConfig, tiny)
