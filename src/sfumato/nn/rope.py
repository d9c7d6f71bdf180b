"""Rotary positions for pictures larger than those trained on: rules that slow the rates of one axis, and the factors that go with them.

    plain             w_k = theta^(-2k / d)                                                        k = 0 ... d / 2 - 1
    interpolated      w_k / s                                                                      Chen et al., arXiv 2306.15595
    ntk               theta -> theta s^power                                                       NTK-aware: "power" d / (d - 2)
    yarn, by_parts    plain where a wave turns often within L tokens, w_k / s where it never does   Peng et al., arXiv 2309.00071
    resonant          whole turns within L tokens                                                  Wang et al., arXiv 2403.00071
    blended           plain, then ntk, then w_k / s, of resonant rates                             UltraFlux's code, arXiv 2511.18050
    frequency_aware, time_aware, switched                            Lumina-Next, arXiv 2406.18583, section 2.3, and its released code

A rule is a pure function of a `Stretch`; `stretched` applies one to the rows and columns of a `Rotary`, whatever family it belongs to.
Rates are fp64, as published tables are made. At s = 1 every rule but `resonant` gives the plain rates bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor

from .positions import Rotary, rotary_rates

Number = TypeVar("Number", float, Tensor)


@dataclass(frozen=True)
class Stretch:
    """One axis of a larger picture. width: channels that turn with it (d).   scale: s, below 1 for smaller ones.
    trained: L, tokens a side in training.   t: (B,) noise level, 1 = noise (Lumina's own clock runs the other way).   head: channels of the
    whole head, d when 0.
    """

    width: int
    scale: float
    trained: int
    t: Tensor = field(default_factory=lambda: torch.zeros(1))
    theta: float = 10_000.0
    head: int = 0

    @property
    def turns(self) -> Tensor:
        """(1, d / 2): how often each wave turns within the training side."""
        return self.trained * plain(self) / (2 * math.pi)


Rule = Callable[[Stretch], Tensor]


def plain(axis: Stretch) -> Tensor:
    """(1, d / 2) rates as trained."""
    return rotary_rates(axis.width, axis.theta, axis.t.device)


def interpolated(axis: Stretch) -> Tensor:
    """Positions divided by s: every wave is slowed alike, the finest too."""
    return plain(axis) / axis.scale


def ntk(axis: Stretch, power: float = 1.0) -> Tensor:
    """A larger base: the finest wave keeps its rate. power 1: Lumina's; d / (d - 2): the slowest wave is slowed by exactly s."""
    return rotary_rates(axis.width, axis.theta * axis.scale**power, axis.t.device)


def frequency_aware(axis: Stretch) -> Tensor:
    """The base is set so that the wave that turns just once within L is slowed by s; slower ones by s and no more."""
    once = math.log(axis.trained / (2 * math.pi), axis.theta)  # the paper's d* / d_head
    if once <= 0:  # no wave turns once on so small a side
        return interpolated(axis)
    return torch.maximum(rotary_rates(axis.width, axis.theta * axis.scale ** (1 / once), axis.t.device), interpolated(axis))


def time_aware(axis: Stretch) -> Tensor:
    """(B, d / 2): interpolation at pure noise, where the layout is decided, and `ntk` at the end, where detail is."""
    head = axis.head or axis.width
    reach = (head - 1) * (1.0 - axis.t.double()) + 1  # d_t
    base = axis.theta * axis.scale ** (head / reach)
    return torch.maximum(rotary_rates(axis.width, base), interpolated(axis))


def switched(axis: Stretch, watershed: float = 0.3) -> Tensor:
    """(B, d / 2): the released code of `time_aware`, which switches once this share of the way from noise to data is gone."""
    return torch.where(((1.0 - axis.t) < watershed)[:, None], interpolated(axis), ntk(axis))


def yarn(axis: Stretch, slow: float = 1.0, fast: float = 32.0, of: Rule = plain) -> Tensor:
    """Plain up to the wave that turns `fast` times within L, interpolated from the one that turns `slow` times, a ramp over k between them,
    from and to whole k as in the published code. `of`: the rates it starts from, plain or resonant.
    """
    return _blend(of(axis), _ramp(axis, slow, fast), axis.scale)


def _ramp(axis: Stretch, slow: float, fast: float) -> Tensor:
    """(d / 2,): 1 up to the wave that turns `fast` times within L, 0 from the one that turns `slow` times, rounded outwards to whole k."""

    def place(turns: float) -> float:
        return axis.width * math.log(axis.trained / (2 * math.pi * turns)) / (2 * math.log(axis.theta))

    low, high = max(math.floor(place(fast)), 0), min(math.ceil(place(slow)), axis.width - 1)
    k = torch.arange(axis.width // 2, dtype=torch.float64, device=axis.t.device)
    return 1 - ((k - low) / max(high - low, 1e-3)).clamp(0, 1)


def by_parts(axis: Stretch, slow: float = 1.0, fast: float = 32.0, of: Rule = plain) -> Tensor:
    """`yarn` as printed: the ramp is over the number of turns itself (UltraFlux, arXiv 2511.18050: 0.75 to 1.25, of resonant rates)."""
    turns = axis.trained * of(axis) / (2 * math.pi)
    return _blend(of(axis), ((turns - slow) / (fast - slow)).clamp(0, 1), axis.scale)


def _blend(w: Tensor, kept: Tensor, scale: float) -> Tensor:
    return w + (w / scale - w) * (1 - kept)


def resonant(axis: Stretch) -> Tensor:
    """Waves that turn at least once within L are snapped to whole turns, so that none breaks off at its edge; slower ones are left.

    Printed in UltraFlux without "at least once", which would give most waves one and the same rate; its code, and this, do not.
    """
    whole = torch.floor(axis.turns + 0.5)
    return torch.where(axis.turns >= 1, 2 * math.pi * whole / axis.trained, plain(axis))


def blended(axis: Stretch, fine: tuple[float, float] = (2.0, 16.0), coarse: tuple[float, float] = (0.75, 1.25)) -> Tensor:
    """Three spectra of `resonant` rates: as they are, by `ntk` from the wave that turns 2 times within L, divided by s from 0.75 turns;
    ramps between 16 and 2 turns and between 1.25 and 0.75.
    """
    w = resonant(axis)
    # theta -> theta s^(d / (d - 2)) at the same exponents; of two channels there is one wave, w = 1, which no base changes.
    power = axis.width / max(axis.width - 2, 1)
    by_base = w ** (1 + power * math.log(axis.scale) / math.log(axis.theta))
    slowed = w / axis.scale + (by_base - w / axis.scale) * _ramp(axis, *coarse)
    return slowed + (w - slowed) * _ramp(axis, *fine)


RULES: dict[str, Rule] = {
    "interpolated": interpolated,
    "ntk": ntk,
    "yarn": yarn,
    "resonant-yarn": lambda axis: yarn(axis, of=resonant) if axis.scale > 1 else plain(axis),
    "blended": lambda axis: blended(axis) if axis.scale > 1 else plain(axis),
    "frequency": frequency_aware,
    "time": time_aware,
    "switched": switched,
}


def stretched(
    rotary: Rotary, rule: Rule, grid: tuple[int, ...], trained: int, t: Tensor, apart: bool = False, smaller: bool = False
) -> Tensor:
    """(B | 1, head / 2) rates of `rotary` for a picture of `grid` token rows and columns, its last axes; any other is left as it is.

    trained: tokens a side in training.   t: (B,), 1 = noise.   apart: each side is stretched by its own length (UltraFlux) instead of both
    by the square root of the area (Lumina). No side is stretched by less than 1, but with `smaller`.
    """
    shared = math.sqrt(math.prod(grid)) / trained
    scales = [1.0] * (len(rotary.axes) - len(grid)) + [side / trained if apart else shared for side in grid]
    least = 0.0 if smaller else 1.0
    axes = [Stretch(w, max(s, least), trained, t, rotary.theta, sum(rotary.axes)) for w, s in zip(rotary.axes, scales, strict=True)]
    found = [(rule if axis.scale != 1 else plain)(axis) for axis in axes]
    rows = max(len(f) for f in found)
    return rotary.arranged([f.expand(rows, -1) for f in found])


def magnitude(scale: float) -> float:
    """YaRN's factor of both queries and keys: 0.1 ln s + 1. Longer sequences flatten the softmax; this sharpens it again."""
    return 0.1 * math.log(max(scale, 1.0)) + 1.0


def proportional(tokens: Number, trained: Number) -> Number:
    """Lumina's factor of the queries: sqrt(log N / log N_trained), which keeps the entropy of attention over N tokens."""
    log: Any = torch.log if isinstance(tokens, Tensor) else math.log
    factor: Number = (log(tokens) / log(trained)) ** 0.5
    return factor
