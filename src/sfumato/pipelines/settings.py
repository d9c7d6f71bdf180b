"""What a model is sampled with unless asked otherwise, and the settings of one call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from ..core.call import Policy
from ..core.errors import UsageError
from ..sampling.guidance import Guide
from ..sampling.policies.extrapolation import OtherSizes
from ..sampling.schedules import Layout, resolution_shift, token_shift
from ..surgery import Lora

LARGEST_SIDE = 4096


@dataclass(frozen=True)
class Defaults:
    """How a model is sampled unless asked otherwise. `size`: (height, width) in pixels it was trained at; `shift` holds at that size.

    `cfg`: weight of classifier-free guidance in networks that are told the guidance as a number (FLUX.1 dev); elsewhere that is `guidance`.
    `guide`: where guidance acts.   `other_sizes`: what rotary positions do at other sizes than `size`, None = nothing.
    """

    size: tuple[int, int] = (128, 128)
    steps: int = 20
    guidance: float = 4.0
    solver: str = "euler"
    shift: float = 1.0
    layout: Layout = field(default_factory=Layout)
    cfg: float = 1.0
    guide: Guide = field(default_factory=Guide)
    other_sizes: OtherSizes | None = None

    def own_shift(self, size: tuple[int, int], patch: int) -> float:
        """The shift of a flow at `size` where none is asked for; `patch`: pixels of a token's side."""
        pixels, base = (height * width for height, width in (size, self.size))
        if self.layout.discrete or self.layout.scaling == "fixed":
            return self.shift
        if self.layout.scaling == "tokens":
            return token_shift(pixels // patch**2, self.layout.tokens)
        return resolution_shift(self.shift, pixels, base)


@dataclass(frozen=True)
class Draw:
    """Settings of one call. `size` (height, width) in pixels; `shift` None = the model's own, scaled to the size.

    `guidance`: what the network is told, where it reads the slot "guidance", and the weight of guidance elsewhere; `weight`: that weight.

    `loras` act as they are weighted.   `frame`: (rows, row, text tokens) of an earlier batch to imitate, so that one of its pictures comes
    out bit for bit.
    """

    steps: int
    guidance: float
    solver: str
    size: tuple[int, int]
    shift: float | None = None
    policies: tuple[Policy, ...] = ()
    loras: tuple[Lora, ...] = ()
    frame: tuple[int, int, int] | None = None
    weight: float = 1.0
    layout: Layout = field(default_factory=Layout)
    guide: Guide = field(default_factory=Guide)


def possible_size(size: tuple[int, int], step: int) -> tuple[int, int]:
    """`size` (height, width) in pixels where sides are multiples of `step`; `UsageError` naming the nearest possible size otherwise."""
    if any(n % step or not 0 < n <= LARGEST_SIDE for n in size):
        nearest = tuple(min(max(step, round(n / step) * step), LARGEST_SIDE // step * step) for n in size)
        raise UsageError(
            f"size {by(size)} is not possible", f"sides are multiples of {step} up to {LARGEST_SIDE}; the nearest is {by(nearest)}"
        )
    return size


def by(size: Sequence[int]) -> str:
    """Width x height, as people say it."""
    return f"{size[1]}x{size[0]}"
