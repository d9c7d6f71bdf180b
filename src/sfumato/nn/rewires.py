"""Program items between blocks: long skips that remember tokens and bring them back (U-Net; Ronneberger et al., arXiv 1505.04597)."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ..core.call import Call, Site
from ..core.program import Rewire, SiteInfo
from ..core.state import State
from .linear import Linear


class Push(Rewire):
    """Remember every stream's tokens for the next `Merge` that has none yet: last in, first out."""

    def forward(self, state: State, call: Call | None = None) -> State:
        return state.push(*state.streams)


class Merge(Rewire):
    """x = W [x, skip] + b, the same W for every token of every stream (U-ViT; Bao et al., arXiv 2209.12152); normed: LN of it."""

    def __init__(self, width: int, normed: bool = False) -> None:
        super().__init__()
        self.linear = Linear(2 * width, width, "skip")
        self.norm = nn.LayerNorm(width) if normed else nn.Identity()

    def forward(self, state: State, call: Call | None = None) -> State:
        state, skip = state.pop()
        return state.with_x({n: self.norm(self.linear(torch.cat([state[n], x], dim=-1), call)) for n, x in skip.items()})

    def describe(self, prefix: str) -> tuple[SiteInfo, ...]:
        width = self.linear.out_features

        def cost(tokens: Mapping[str, int]) -> int:
            return sum(tokens.values()) * 2 * width * width

        names = tuple(f"{prefix}.{n}" for n, _ in self.named_parameters())
        return (SiteInfo(Site(self.index, "linear"), (), names, (), cost),)


def skipped(blocks: list[nn.Module], width: int, normed: bool = False) -> list[nn.Module]:
    """The program of an odd number of blocks as a U: each of the first half is remembered, each of the last half merges one."""
    half = len(blocks) // 2
    before = [item for block in blocks[:half] for item in (block, Push())]
    after = [item for block in blocks[half + 1 :] for item in (Merge(width, normed), block)]
    return [*before, blocks[half], *after]
