"""The shape of a U-Net and the program it gives: a list of items, each with its place, that the network, the tables of published weights
and surgery read (`unet.py` says what the items compute).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

from ..core.errors import ConfigError

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
