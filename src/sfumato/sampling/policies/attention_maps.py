"""A recorder of attention: how much each place of the picture attends to each token of the text, summed up while a picture is drawn.

Attention is linear in its values: with indicators as values it returns its own probabilities. So the recorder asks the attention at hand
once more with `v = 1` at one text key and 0 elsewhere, a head's width of keys at a time, and gets the columns of the full softmax whatever
the backbone (joint or cross attention, rotations, masks, weighted groups, any kernel) without ever holding the whole matrix.
Heat maps of words by attention: Tang et al., DAAM, arXiv 2210.04885.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from ...core.attention import Attend, Heads
from ...core.call import Call, Footprint, Session, Site
from ...core.errors import ConflictError, UnknownNameError, UsageError

Axis = Literal["sites", "steps", "heads"]
AXES: tuple[Axis, ...] = ("sites", "steps", "heads")


class Place(NamedTuple):
    """Where probabilities were seen; None where all places of the kind are averaged. `grid`: token rows and columns of the picture."""

    grid: tuple[int, int]
    site: Site | None = None
    step: int | None = None


@dataclass(frozen=True)
class AttentionRecorder:
    """`apart`: what is kept apart instead of being averaged.   blocks, steps: where it looks, None = everywhere.

    lane: whose rows are recorded.   queries, keys: streams by name. It leaves every bit of the picture as it is, but attention is
    computed twice where it looks (more often for texts longer than a head is wide), and a compiled block runs eagerly there, which may
    change last bits. A recorder inside another sees the other's questions too: the same numbers once more, so its means hold.
    """

    apart: frozenset[Axis] = frozenset()
    blocks: frozenset[int] | None = None
    steps: frozenset[int] | None = None
    lane: str = "cond"
    queries: str = "image"
    keys: str = "text"

    def __post_init__(self) -> None:
        for axis in self.apart:
            if axis not in AXES:
                raise UnknownNameError("axis", axis, AXES)

    @property
    def footprint(self) -> Footprint:
        return Footprint(frozenset({"attention"}), self.blocks, requires=frozenset({"softmax"}), observes=True)

    def begin(self, run: Any = None) -> AttentionRecording:
        return AttentionRecording(self, self.footprint)


@dataclass
class AttentionRecording(Session):
    """The recorder at work. `sums`: (B, N, H | 1, h, w) in fp32 by place, for N text tokens; `seen`: evaluations in each sum."""

    config: AttentionRecorder
    footprint: Footprint
    sums: dict[Place, Tensor] = field(default_factory=dict)
    seen: dict[Place, int] = field(default_factory=dict)

    def attention(self, site: Site, heads: Mapping[str, Heads], attend: Attend, call: Call) -> Mapping[str, Tensor]:
        config, rows = self.config, call.rows_of(self.config.lane)
        wanted = config.steps is None or call.step in config.steps
        if rows is not None and wanted and config.queries in heads and config.keys in heads:
            with torch.no_grad():
                self._add(site, call.step, heads[config.queries].grid, probabilities(heads, attend, config.queries, config.keys)[rows])
        return attend(heads, None)

    def _add(self, site: Site, step: int, grid: tuple[int, ...] | None, seen: Tensor) -> None:
        if grid is None or len(grid) != 2:
            raise ConflictError(f"the stream {self.config.queries!r} at {site} lies on no grid", "record a picture's stream")
        apart = self.config.apart
        place = Place((grid[0], grid[1]), site if "sites" in apart else None, step if "steps" in apart else None)
        maps = seen.permute(0, 3, 1, 2) if "heads" in apart else seen.mean(1, keepdim=True).permute(0, 3, 1, 2)
        maps = maps.unflatten(-1, grid)
        self.sums[place] = maps.clone() if place not in self.sums else self.sums[place].add_(maps)
        self.seen[place] = self.seen.get(place, 0) + 1

    def maps(self) -> dict[Place, Tensor]:
        """(B, N, H | 1, h, w) mean probabilities by place. Raises `UsageError` when nothing was recorded."""
        if not self.sums:
            config = self.config
            raise UsageError(
                f"no attention from {config.queries!r} to {config.keys!r} in lane {config.lane!r} was seen",
                "this backbone or the blocks and steps chosen have none",
            )
        return {place: total / self.seen[place] for place, total in self.sums.items()}

    def mean(self) -> Tensor:
        """(B, N, h, w): the mean over places and heads; maps of coarser grids are enlarged to the finest."""
        maps = {place: found.mean(2) for place, found in self.maps().items()}
        finest = max((place.grid for place in maps), key=lambda grid: grid[0] * grid[1])
        return torch.stack([resized(found, finest) for found in maps.values()]).mean(0)


def probabilities(heads: Mapping[str, Heads], attend: Attend, queries: str, keys: str) -> Tensor:
    """(B, H, Nq, Nk) fp32: the columns of the full softmax that belong to the stream `keys`, for the queries of `queries`.

    Raises `ConflictError` where stored values take part: their share cannot be told from the keys'.
    """
    k, width = heads[keys].k, heads[keys].v.shape[-1]
    batch, count, length = k.shape[0], k.shape[1], k.shape[2]
    blank = {n: replace(h, q=h.q.float(), k=h.k.float(), v=torch.zeros_like(h.v, dtype=torch.float32)) for n, h in heads.items()}
    columns: list[Tensor] = []
    # The last channel stays zero in every value of ours, so anything there was stored by another policy.
    for start in range(0, length, width - 1):
        taken = min(width - 1, length - start)
        values = torch.zeros(length, width, device=k.device)
        values[start : start + taken, :taken] = torch.eye(taken, device=k.device)
        indicators = {**blank, keys: replace(blank[keys], v=values.expand(batch, count, length, width))}
        out = attend(indicators, None)[queries]
        if out[..., -1].any():
            raise ConflictError("an attention recorder meets stored keys and values, whose share it cannot tell", "use one of the two")
        columns.append(out[..., :taken])
    return torch.cat(columns, dim=-1)


def renormalised(maps: Tensor, keep: Tensor | None = None) -> Tensor:
    """Maps (B, N, h, w) divided by the text's whole mass at each place: in joint attention the picture holds the rest.

    keep: (B, N), tokens that count; the others (padding, an end token that draws everything) become 0.
    """
    counted = maps if keep is None else maps * keep[:, :, None, None]
    return counted / counted.sum(1, keepdim=True).clamp_min(torch.finfo(maps.dtype).tiny)


Merge = Literal["mean", "first", "sum", "max"]


def merged(maps: Tensor, tokens: Collection[int], merge: Merge = "mean") -> Tensor:
    """One word's map (h, w) from its tokens' rows of `maps` (N, h, w)."""
    rows = maps[sorted(tokens)]
    return {"mean": lambda: rows.mean(0), "first": lambda: rows[0], "sum": lambda: rows.sum(0), "max": lambda: rows.amax(0)}[merge]()


def resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (..., h, w) at `size` (rows, columns), bicubic and clamped at 0; unchanged where they have that size."""
    if maps.shape[-2:] == torch.Size(size):
        return maps
    flat = maps.reshape(1, -1, *maps.shape[-2:])
    larger = torch.nn.functional.interpolate(flat, size, mode="bicubic", align_corners=False).clamp_min(0)
    return larger.view(*maps.shape[:-2], *size)
