"""What attention maps of words say: where they are high, how far two of them overlap, how much of one lies on an object.

Maps are (h, w) tensors, at the picture's size where masks are given. Overlap of content and style after arXiv
2507.23313. A map that is spread over its range says where a word looks most, never how much: report its mass beside it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ..core.errors import UsageError

Threshold = tuple[Literal["absolute", "quantile"], float]
THRESHOLDS: tuple[Threshold, ...] = tuple((kind, k / 10) for kind in ("absolute", "quantile") for k in range(1, 10))


def spread(maps: Tensor) -> Tensor:
    """Each map (..., h, w) on [0, 1]: its least value becomes 0 and its greatest 1; a constant map becomes 0."""
    low, high = maps.amin((-2, -1), keepdim=True), maps.amax((-2, -1), keepdim=True)
    return (maps - low) / torch.where(high > low, high - low, 1.0)


def support(maps: Tensor, threshold: Threshold) -> Tensor:
    """(..., h, w) True where a spread map is high: at least the value ("absolute"), or at least its own quantile ("quantile")."""
    kind, value = threshold
    if kind == "absolute":
        return maps >= value
    quantile = torch.quantile(maps.flatten(-2), value, dim=-1, interpolation="higher")
    return maps >= quantile[..., None, None]


def iou(a: Tensor, b: Tensor) -> float:
    """Intersection over union of two masks (h, w); 0 where both are empty."""
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else 0.0


def independent_iou(a: float, b: float) -> float:
    """The IoU expected of unrelated masks that cover the shares `a` and `b`; p / (2 - p) where both are p."""
    both = a * b
    return both / (a + b - both) if both else 0.0


def inside(maps: Tensor, mask: Tensor) -> float:
    """How many times denser a map (h, w) lies on `mask` (h, w) than over the whole picture: 1 = no preference.

    Raises `UsageError` for a mask that is empty.
    """
    area = float(mask.float().mean())
    if area == 0:
        raise UsageError("the object's mask is empty", "a mask that is true somewhere")
    return float((maps * mask).sum() / maps.sum().clamp_min(torch.finfo(maps.dtype).tiny)) / area


@dataclass(frozen=True)
class Overlap:
    """iou: of the two words asked about.   baseline: mean of all other pairs.   touching: mean of the other pairs with one of the two."""

    iou: float
    baseline: float
    touching: float

    @property
    def gap(self) -> float:
        """Above 0: the two are further apart than pairs of this prompt are."""
        return self.baseline - self.iou


def overlap(maps: Mapping[str, Tensor], a: str, b: str, threshold: Threshold) -> Overlap:
    """Overlap of the words `a` and `b` among all words' spread maps (h, w). Raises `UsageError` when there is no other pair."""
    masks = {name: support(one, threshold) for name, one in maps.items()}
    every, touching = other_pairs(tuple(masks), a, b)
    if not touching:
        raise UsageError(f"{len(maps)} words make no pair but {a!r} and {b!r}", "a prompt of at least three words")
    found = {pair: iou(masks[pair[0]], masks[pair[1]]) for pair in every}
    return Overlap(iou(masks[a], masks[b]), sum(found.values()) / len(every), sum(found[p] for p in touching) / len(touching))


@dataclass(frozen=True)
class Attribution:
    """Two words of one picture. density: of each word's map on the object, 1 = no preference.   on_object: IoU of the first word's map with
    the object, less that of chance.   gaps, control: how much further apart the two lie than all other words, than the chosen ones alone.
    """

    density: tuple[float, float]
    on_object: float
    gaps: Mapping[Threshold, float]
    control: Mapping[Threshold, float]


def attribute(maps: Mapping[str, Tensor], mask: Tensor, a: str, b: str, others: str, thresholds: Sequence[Threshold]) -> Attribution:
    """The words `a` and `b` among the maps (h, w) of a prompt, held against the object's mask (h, w) and other words.

    others: what the control's words start with.   thresholds: the first one also makes the mask that is compared with the object.
    """
    even = {name: spread(one) for name, one in maps.items()}
    chosen = {name: one for name, one in even.items() if name in (a, b) or name.startswith(others)}
    high = support(even[a], thresholds[0])
    chance = independent_iou(float(high.float().mean()), float(mask.float().mean()))
    gaps, control = ({t: overlap(words, a, b, t).gap for t in thresholds} for words in (even, chosen))
    return Attribution((inside(maps[a], mask), inside(maps[b], mask)), iou(high, mask) - chance, gaps, control)


Pair = tuple[str, str]


def other_pairs(words: Sequence[str], a: str, b: str) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
    """(all pairs but {a, b}, those of them that hold a or b)."""
    every = tuple(pair for pair in itertools.combinations(words, 2) if set(pair) != {a, b})
    return every, tuple(pair for pair in every if {a, b} & set(pair))
