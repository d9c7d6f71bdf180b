"""AsCAN (Kag et al., arXiv 2411.04967): a U-Net whose stages are words over two plain kinds of blocks, convolution first, attention later.

    C   x += Out(SE(gelu(GN(conv(x) + W c))))                                        c = silu(MLP(sinusoid(1000 t)))
    T   y = LN(GELU(x));  x += SelfAttention(y) + CrossAttention(y, text) + MLP(y)   rotary positions, RMS norms of q and k
    text: two T blocks of their own, one head as wide as the text
    down, at each level: blocks, each remembered; half the sides      middle: blocks      up: x = W [x, remembered] + b before each block

`layout` spells all stages, "CCC-CCT-CTT-TTT-CTT-CCT-CCC": down, middle, up. The paper states a rule and draws its own layout in a figure;
this one follows the rule. A kind is registered in `KINDS` under its letter. May touch nn/ and core/. Time in [0, 1], 1 = noise; cells row
by row.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from ..core.blocks import Block, SiteInfo
from ..core.call import Call
from ..core.conditions import Conditions
from ..core.errors import ConfigError
from ..core.program import Network
from ..core.registry import Registry
from ..core.state import State, Stream
from ..nn.conv import Down, FusedConv, Up
from ..nn.embeddings import TimeEmbedding
from ..nn.grids import at_level, plane, tokens
from ..nn.layout import parse_layout
from ..nn.linear import name_linears
from ..nn.norms import GroupNorm
from ..nn.parallel import parallel
from ..nn.positions import Rotary, grid_coordinates
from ..nn.projections import AttentionShape
from ..nn.rewires import Merge, Place, Push
from . import Family


@dataclass(frozen=True)
class AsCANConfig:
    """Shape of an AsCAN; the defaults are the text-to-image network's, as far as they are published.

    channels: of a latent.   widths: by level, finest first.   layout: stages of block kinds; `strict`: kinds in order within each.   head:
    width of a head.   text_blocks, text_heads: of the text's own.   mlp_ratio, expand, squeeze: hidden channels of an MLP, of a
    convolution, of its squeeze-and-excitation, in widths.   groups: of GroupNorm.   activated: GELU before the norm of a T block, as
    printed.   rotary: T blocks have positions.
    """

    channels: int = 4
    widths: tuple[int, ...] = (320, 640, 1280)
    layout: str = "CCC-CCT-CTT-TTT-CTT-CCT-CCC"
    head: int = 64
    text_width: int = 4096
    text_blocks: int = 2
    text_heads: int = 1
    mlp_ratio: int = 4
    expand: int = 4
    squeeze: float = 0.25
    groups: int = 32
    activated: bool = True
    rotary: bool = True
    strict: bool = True

    def __post_init__(self) -> None:
        sizes = (
            self.channels,
            len(self.widths),
            *self.widths,
            self.head,
            self.text_width,
            self.mlp_ratio,
            self.expand,
            self.groups,
            self.text_heads,
        )
        if min(sizes) < 1 or self.text_blocks < 0 or self.squeeze <= 0:
            raise ConfigError(f"sizes of an AsCAN are at least 1: {self}")
        if self.text_width % self.text_heads:
            raise ConfigError(f"text_width is {self.text_width}", f"a multiple of its {self.text_heads} heads")
        if self.head % 4 or any(w % self.unit for w in self.widths):
            raise ConfigError(
                f"widths are {self.widths}, a head {self.head} wide", f"a head in multiples of 4, widths of it and of {self.groups} groups"
            )
        stages, levels = self.stages, len(self.widths)
        if len(stages) != 2 * levels + 1:
            raise ConfigError(f"{len(stages)} stages for {levels} widths: {self.layout}", f"{levels} down, a middle, {levels} up")
        for level in range(levels):
            if len(stages[level]) != len(stages[-1 - level]):
                raise ConfigError(
                    f"level {level} is {stages[level]!r} down and {stages[-1 - level]!r} up",
                    "as many blocks up as down: each takes up one skip",
                )

    @property
    def unit(self) -> int:
        """What every width is a multiple of."""
        return math.lcm(self.head, self.groups)

    @property
    def stages(self) -> tuple[str, ...]:
        """Down from the finest level, the middle, and up again. Raises as `parse_layout` does."""
        return parse_layout(self.layout, sorted(KINDS, key=lambda letter: KINDS.get(letter).rank), self.strict)


@dataclass(frozen=True)
class Kind:
    """`block(config, width)` makes one; within a stage kinds stand by rising `rank`, what sees little first."""

    rank: int
    block: Callable[[AsCANConfig, int], Block]


KINDS: Registry[Kind] = Registry("block kind")


def _convolution(config: AsCANConfig, width: int) -> Block:
    return Block(FusedConv(width, 4 * config.widths[0], config.groups, config.expand, config.squeeze))


def _transformer(config: AsCANConfig, width: int) -> Block:
    rotate = Rotary((config.head // 2, config.head // 2)) if config.rotary else None
    return parallel(
        AttentionShape(width, width // config.head),
        config.mlp_ratio * width,
        text_width=config.text_width,
        rotate=rotate,
        activated=config.activated,
    )


KINDS.add("C")(Kind(0, _convolution))
KINDS.add("T")(Kind(1, _transformer))


class AsCAN(Network):
    """Stream in: "image", latents (B, C, h, w) with t (B,). Slot: tokens "text" (B, N, text_width)."""

    capabilities = frozenset({"softmax", "cross"})
    slots = frozenset({"text"})

    def __init__(self, config: AsCANConfig) -> None:
        super().__init__()
        self.config = config
        first = config.widths[0]
        self.entry = nn.Conv2d(config.channels, first, 3, padding=1)
        self.time = TimeEmbedding(4 * first, features=first)
        items, self.levels = zip(*_program(config), strict=True)
        self.set_program(list(items))
        self.final_norm = GroupNorm(config.groups, first)
        self.final = nn.Conv2d(first, config.channels, 3, padding=1)
        nn.init.zeros_(self.final.weight)
        nn.init.zeros_(self.final.bias)  # type: ignore[arg-type]
        name_linears(self)

    def condition(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> dict[str, Tensor]:
        time = self.time(self.level(streams), call)
        return {"time": time, "c": silu(time)}

    def embed(self, streams: Mapping[str, Stream], cond: Conditions, call: Call | None) -> dict[str, Stream]:
        self.refuse_strangers(streams)
        latents, text, dtype = streams["image"].x, cond.tokens["text"], self.entry.weight.dtype
        rows, columns = latents.shape[-2:]
        pos = grid_coordinates(rows, columns)[..., 1:].to(latents.device) if self.config.rotary else None
        return {
            "image": Stream(tokens(self.entry(latents.to(dtype))), grid=(rows, columns), t=streams["image"].t, pos=pos),
            "text": Stream(text.silenced(dtype), keep=text.keep),
        }

    def head(self, state: State, call: Call | None) -> dict[str, Tensor]:
        image = state.streams["image"]
        return {"image": self.final(plane(silu(self.final_norm(image.x)), image.grid))}

    def sites(self) -> tuple[SiteInfo, ...]:
        """As every network's; costs are asked with the whole picture's tokens and counted with those of the site's level."""
        return tuple(at_level(info, self.levels[info.site.block]) for info in super().sites())


def _program(config: AsCANConfig) -> Iterator[tuple[nn.Module, int]]:
    """Items, each with how often the sides are halved after it."""
    stages, widths, last = config.stages, config.widths, len(config.widths) - 1
    for _ in range(config.text_blocks):
        shape = AttentionShape(config.text_width, config.text_heads)
        yield parallel(shape, config.mlp_ratio * config.text_width, ("text",), activated=config.activated), 0
    for level, width in enumerate(widths):
        if level:
            yield Down(widths[level - 1], width), level
            if config.rotary:
                yield Place(), level
        for kind in stages[level]:
            yield KINDS.get(kind).block(config, width), level
            yield Push("image"), level
    yield from ((KINDS.get(kind).block(config, widths[last]), last) for kind in stages[last + 1])
    for level, stage in zip(range(last, -1, -1), stages[last + 2 :], strict=True):
        if level < last:
            yield Up(widths[level + 1], widths[level]), level
            if config.rotary:
                yield Place(), level
        for kind in stage:
            yield Merge(widths[level], ("image",)), level
            yield KINDS.get(kind).block(config, widths[level]), level


def parameters(config: AsCANConfig) -> int:
    """How many a network of this shape has; nothing is allocated."""
    with torch.device("meta"):
        return sum(p.numel() for p in AsCAN(config).parameters())


def of_budget(config: AsCANConfig, budget: int, count: Callable[[AsCANConfig], float] = parameters) -> AsCANConfig:
    """`config` with its widths grown or shrunk together until `count`, parameters or seconds, is as near to `budget` as whole units allow.

    Layouts are compared so: a convolution weighs three times what attention of its width does.
    """

    def at(units: int) -> AsCANConfig:
        return replace(config, widths=tuple(max(1, round(units * w / config.widths[0])) * config.unit for w in config.widths))

    below, above = 1, 2
    while count(at(above)) < budget:
        below, above = above, 2 * above
    while above - below > 1:
        middle = (below + above) // 2
        below, above = (middle, above) if count(at(middle)) < budget else (below, middle)
    return min(at(below), at(above), key=lambda shape: abs(count(shape) - budget))


def tiny(seed: int = 0, **shape: Any) -> AsCAN:
    """A few thousand random parameters with every output alive (no zero initialisation): for tests and sketches."""
    torch.manual_seed(seed)
    small = {"widths": (8, 16), "layout": "CC-CT-T-CT-CC", "head": 4, "text_width": 12, "text_blocks": 1, "text_heads": 2, "groups": 4}
    net = AsCAN(AsCANConfig(**{**small, **shape}))
    for parameter in net.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.05)
    return net


FAMILY = Family(AsCAN, AsCANConfig, tiny)
