"""What a model is sampled with unless asked otherwise, and the settings of one call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from torch import Tensor

from ..core.call import Policy
from ..core.config import to_dict
from ..core.discrete import Betas
from ..core.errors import ConfigError, UsageError
from ..sampling.guidance import ClassifierFree, Guide
from ..sampling.policies.extrapolation import OtherSizes
from ..sampling.schedules import Layout, resolution_shift, token_shift
from ..surgery import Lora
from .bins import SIDES, nearest

LARGEST_SIDE = 4096
T = TypeVar("T")


@dataclass(frozen=True)
class Defaults:
    """How a model is sampled unless asked otherwise. `size`: (height, width) in pixels it was trained at; `shift` holds at that size.

    `cfg`: weight of classifier-free guidance in networks that are told the guidance as a number (FLUX.1 dev); elsewhere that is `guidance`.
    `bins`: side of the square among the sizes that the model was trained at and is drawn at (see `bins.py`); 0 = drawn as asked.
    `guide`: where guidance acts.   `other_sizes`: what rotary positions do at other sizes than `size`, None = nothing.
    """

    size: tuple[int, int] = (128, 128)
    steps: int = 20
    guidance: float = 4.0
    solver: str = "euler"
    shift: float = 1.0
    layout: Layout = field(default_factory=Layout)
    cfg: float = 1.0
    bins: int = 0
    guide: Guide = field(default_factory=Guide)
    other_sizes: OtherSizes | None = None

    def __post_init__(self) -> None:
        if self.bins and self.bins not in SIDES:
            raise ConfigError(f"bins around {self.bins} pixels", f"0 for none, or one of {', '.join(map(str, SIDES))}")

    def drawn_at(self, size: tuple[int, int], patch: int, binned: bool | None = None) -> tuple[bool, tuple[int, int]]:
        """(whether by a bin, the size to draw a picture of `size` at); `binned` None: as the model is released. Raises `UsageError`."""
        if binned and not self.bins:
            raise UsageError("binned, and this model has no bins", "it is drawn at the size asked for")
        if not self.bins or binned is False:
            return False, possible_size(size, patch)
        possible_size(size, 1)
        return True, nearest(size, self.bins)

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
    """Settings of one call, each decided. `size`: (height, width) in pixels; `drawn`: that of what is drawn, before it is resized to `size`
    because it is `binned`.

    `guidance`: what the network is told, where it reads the slot "guidance", and the weight of classifier-free guidance elsewhere; `cfg`:
    that weight where guidance is told, else None.   The rest as in a call (`Options`).
    `part`: numbers of the first and the last time that is walked; None = to the end.
    """

    steps: int
    guidance: float
    solver: str
    size: tuple[int, int]
    drawn: tuple[int, int]
    shift: float
    layout: Layout
    guide: Guide = field(default_factory=Guide)
    binned: bool = False
    cfg: float | None = None
    negative: str = ""
    policies: tuple[Policy, ...] = ()
    loras: tuple[Lora, ...] = ()
    frame: tuple[int, int, int] | None = None
    micro: Mapping[str, Sequence[float]] = field(default_factory=dict)
    part: tuple[int, int | None] = (0, None)

    @property
    def weight(self) -> float:
        """Of classifier-free guidance."""
        return self.guidance if self.cfg is None else self.cfg

    def notes(self, trained: tuple[int, int]) -> Iterator[str]:
        """What the user should know of pictures by a model that was `trained` at that size."""
        if self.drawn != self.size:
            yield f"drawn at {by(self.drawn)}, the nearest size it was trained at, and resized to {by(self.size)}"
        if self.drawn != trained and not self.binned:
            yield f"this model was trained at {by(trained)}; {by(self.size)} is beyond what it has seen"
        if self.negative and self.weight == 1.0:
            yield "guidance is 1, so the negative prompt was not read"

    def record(self) -> dict[str, Any]:
        """What a picture must know of its settings to be drawn again, JSON-ready."""
        return {
            "negative": self.negative,
            "steps": self.steps,
            "guidance": self.guidance,
            **({} if self.cfg is None else {"cfg": self.cfg}),
            "solver": self.solver,
            "size": list(self.size),
            "binned": self.binned,
            "shift": self.shift,
            "layout": to_dict(self.layout),
            "guide": to_dict(self.guide),
            **({"micro": {name: list(numbers) for name, numbers in self.micro.items()}} if self.micro else {}),
            "loras": [lora.record() for lora in self.loras],
        }


def otherwise(asked: T | None, own: T) -> T:
    """What was asked for, where it was."""
    return own if asked is None else asked


def walk_times(layout: Layout, steps: int, shift: float, path: str | Betas) -> Tensor:
    """(steps + 1,) fp64 on a model's path. Raises `UsageError` for steps or a shift that the layout cannot have, or a layout of another
    kind of path.
    """
    if layout.discrete != isinstance(path, Betas):
        raise UsageError(
            f"the layout {layout.kind!r} on the path {path}", "spacings of steps are for discrete schedules, the others for flows"
        )
    return layout.times(steps, shift, train_steps(path))


def train_steps(path: str | Betas) -> int:
    """Of a discrete schedule; a flow has none and 1000 stands for them."""
    return path.steps if isinstance(path, Betas) else 1000


def settled_cfg(cfg: float | None, own: float, told: bool, guidance: float, negative: str) -> float | None:
    """The weight of classifier-free guidance in a network that is `told` its guidance; None for others, where `guidance` is the weight.

    Raises `UsageError` for numbers out of range and for what would change nothing.
    """
    ClassifierFree(guidance)  # what the network is told has the same range
    if not told:
        if cfg is not None or own != 1.0:
            raise UsageError(
                f"cfg is {own if cfg is None else cfg}", "this network is not told a guidance: `guidance` is the weight itself"
            )
        return None
    weight = ClassifierFree(own if cfg is None else cfg).weight
    if negative and weight == 1.0:
        raise UsageError("a negative prompt, and cfg is 1", "guidance is a number here; a negative prompt acts with cfg above 1")
    return weight


def settled_guide(asked: Guide | None, own: Guide, weight: float, times: Tensor, channels: int) -> Guide:
    """Where guidance of `weight` acts on latents of so many `channels`. Raises `UsageError` for an `asked` one with which it never acts,
    unless that is the model's `own`.
    """
    if asked is None or asked == own:
        return own
    if weight == 1.0:
        raise UsageError(f"a guide ({said(asked)}), and guidance is 1", "it says where guidance acts, which needs a weight other than 1")
    if asked.channels > channels:
        raise UsageError(f"guidance acts on {asked.channels} channels", f"this model's latents have {channels}; 0 = all")
    low, high = asked.interval
    if not ((low <= times) & (times <= high)).any():
        stops = ", ".join(f"{t:.3g}" for t in times.tolist()[:8]) + (", ..." if len(times) > 8 else "")
        raise UsageError(f"guidance acts from t = {low} to {high}, where no step is", f"steps are at {stops}; guidance 1 draws without it")
    return asked


def said(guide: Guide) -> str:
    """What a guide says otherwise than one that lets guidance act everywhere."""
    plain = to_dict(Guide())
    return ", ".join(f"{name} {value}" for name, value in to_dict(guide).items() if value != plain[name]) or "everywhere"


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
