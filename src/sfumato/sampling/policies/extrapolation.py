"""Pictures larger than those trained on, without training: rotary rates slowed by a rule of `nn/rope.py`, attention sharpened to match.

Lumina-Next (arXiv 2406.18583, section 2.3), YaRN (arXiv 2309.00071). Works on every family with rotary positions: it sets the rates of
an evaluation, `State.cond["rates"]`, and scales keys before they turn, which scales the logits of the softmax.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from torch import Tensor

from ...core.attention import Attend, Heads
from ...core.call import Call, Footprint, Session, Site
from ...core.errors import ConfigError, UnknownNameError, UsageError
from ...core.state import State
from ...nn.positions import Rotary
from ...nn.rope import RULES, magnitude, proportional, stretched

Smaller = Literal["left", "sharpened", "scaled"]
SMALLER: tuple[Smaller, ...] = ("left", "sharpened", "scaled")


@dataclass(frozen=True)
class OtherSizes:
    """How a model draws pictures of other sizes than it was trained at, saved with it: `Extrapolation` without what the network says."""

    rule: str = "time"
    apart: bool = False
    sharpen: Literal["none", "proportional", "magnitude"] = "none"
    smaller: Smaller = "left"


@dataclass(frozen=True)
class Extrapolation:
    """`rotary`: the network's (`net.rotary`).   trained: tokens a side of the pictures it was trained on.   rule: a name in `RULES`.

    apart: each side is stretched by its own length instead of both by the square root of the area.   sharpen: "proportional" (Lumina) or
    "magnitude" (YaRN). A picture of the size trained on is left as it is, bit for bit, and so are smaller ones; unless `smaller` says that
    their attention is "sharpened" as well (by less than 1, that is; Lumina-Next's code), or their rates "scaled" too (diffusers).
    """

    rotary: Rotary
    trained: int
    rule: str = "time"
    apart: bool = False
    sharpen: Literal["none", "proportional", "magnitude"] = "none"
    smaller: Smaller = "left"

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise UnknownNameError("rule", self.rule, RULES)
        if self.smaller not in SMALLER:
            raise UnknownNameError("way with smaller pictures", self.smaller, SMALLER)
        if self.trained < 1:
            raise ConfigError(f"trained is {self.trained}", "the number of tokens a side of a training picture")

    @property
    def footprint(self) -> Footprint:
        # Rates are a tensor that compiled blocks take; only the keys need a hook in every block.
        hooks = {"blocks"} if self.sharpen == "none" else {"blocks", "attention"}
        return Footprint(frozenset(hooks), writes=frozenset({"rates"}), requires=frozenset({"rotary"}))

    def begin(self, run: Any = None) -> Extrapolating:
        return Extrapolating(self, self.footprint)


@dataclass
class Extrapolating(Session):
    """The policy at work. It remembers nothing: rates and factors are functions of the picture's grid and t."""

    config: Extrapolation
    footprint: Footprint

    def blocks(self, state: State, run: Callable[[State, int, int], State], a: int, b: int, call: Call) -> State:
        image = state.streams["image"]
        if call.t is None or image.grid is None:
            raise UsageError("extrapolation needs a picture on a grid and its noise level", "name t in the Call")
        config = self.config
        scaled = config.smaller == "scaled"
        rates = stretched(config.rotary, RULES[config.rule], image.grid, config.trained, call.t, config.apart, scaled)
        return run(replace(state, cond={**state.cond, "rates": rates}), a, b)

    def attention(self, site: Site, heads: Mapping[str, Heads], attend: Attend, call: Call) -> Mapping[str, Tensor]:
        # Keys without positions (a text that is attended by a softmax of its own) are as many as ever.
        turning = {n: h for n, h in heads.items() if h.pos is not None}
        factor = self._factor(turning) if "image" in turning else 1.0
        return attend({**heads, **{n: replace(h, k=(h.k * factor).to(h.k.dtype)) for n, h in turning.items()}}, None)

    def _factor(self, heads: Mapping[str, Heads]) -> float | Tensor:
        """What logits are multiplied by, a number or one for each row (B, 1, 1, 1); at least 1 where smaller pictures are left alone."""
        config, image = self.config, heads["image"]
        if config.sharpen == "magnitude":
            longest = max(image.grid or (1,)) if config.apart else math.sqrt(image.k.shape[2])
            return magnitude(longest / config.trained) ** 2
        others = sum((_keys(h) for n, h in heads.items() if n != "image"), torch.zeros(1, device=image.k.device))
        factor = proportional(_keys(image) + others, config.trained**2 + others)
        return (factor.clamp(min=1.0) if config.smaller == "left" else factor)[:, None, None, None]


def _keys(heads: Heads) -> Tensor:
    """How many there are, (B | 1,). Padding is none: a row's own are the same beside a longer neighbour."""
    return torch.full((1,), float(heads.k.shape[2]), device=heads.k.device) if heads.keep is None else heads.keep.sum(1).float()
