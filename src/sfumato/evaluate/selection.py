"""Which (concept, style) pairs are asked for: a function of names and seed, so that every model is asked the same.

A pair of the train split was seen in training; of a test pair the model saw the concept in other styles only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch

from ..core.errors import DataError, UsageError
from ..core.rng import generator
from ..data.captions import phrase
from .judge import Judge


class Drawings(Protocol):
    """Real drawings with names (`data.Source`): columns concept, style, group and split; `[i].image` (3, H, W) uint8."""

    def __len__(self) -> int: ...
    def __getitem__(self, i: int) -> Any: ...
    def column(self, name: str) -> list[Any]: ...


@dataclass(frozen=True)
class Selection:
    """The pairs asked for: rows of the source, their names, and as many other rows to compare the real drawings with."""

    rows: tuple[int, ...]
    concepts: tuple[str, ...]
    styles: tuple[str, ...]
    groups: tuple[str, ...]
    others: tuple[int, ...]

    def only(self, places: Sequence[int]) -> Selection:
        """The pairs at `places` alone; what the real drawings are compared with stays."""
        names = {field: tuple(getattr(self, field)[i] for i in places) for field in ("rows", "concepts", "styles", "groups")}
        return replace(self, **names)

    @property
    def prompts(self) -> tuple[str, ...]:
        """The second caption form of `data/captions.py`: the label and the style."""
        return tuple(f"{phrase(c)}, {s} style" for c, s in zip(self.concepts, self.styles, strict=True))


def select(source: Drawings, judge: Judge, pairs: str, count: int, seed: int) -> Selection:
    """`count` pairs of the split `pairs` (all, where there are fewer), shuffled by `seed`; only concepts and styles the judge knows.

    Raises `UsageError` on another split or count, `DataError` when no pair is left.
    """
    if pairs not in ("train", "test"):
        raise UsageError(f"pairs is {pairs!r}", "'train' (seen in training) or 'test' (concepts never seen in that style)")
    if count < 1:
        raise UsageError(f"{count} pairs to evaluate", "at least 1")
    names = {name: [str(value) for value in source.column(name)] for name in ("concept", "style", "split", "group")}
    known = [i for i in range(len(source)) if names["concept"][i] in judge.concept_index and names["style"][i] in judge.style_index]
    order = torch.randperm(len(known), generator=generator((seed, "pairs", 0))).tolist()
    # Shuffled by name, not by place: a source that lists the same drawings in another order gives the same pairs.
    known.sort(key=lambda i: (names["concept"][i], names["style"][i], names["split"][i]))
    shuffled = [known[k] for k in order]
    # One drawing a pair: a set may draw a concept twice.
    distinct = {(names["concept"][i], names["style"][i]): i for i in reversed(shuffled) if names["split"][i] == pairs}
    chosen = [i for i in shuffled if names["split"][i] == pairs and distinct[names["concept"][i], names["style"][i]] == i][:count]
    if not chosen:
        raise DataError(f"no pair of the {pairs} split whose concept and style the judge knows", f"styles: {', '.join(judge.styles)}")
    taken = set(chosen)
    others = [i for i in shuffled if i not in taken and names["split"][i] == "train"][: len(chosen)]
    concepts, styles, groups = (tuple(names[name][i] for i in chosen) for name in ("concept", "style", "group"))
    return Selection(tuple(chosen), concepts, styles, tuple(g or "other" for g in groups), tuple(others))
