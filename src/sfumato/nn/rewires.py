"""Program items between blocks: long skips that remember tokens and bring them back (U-Net; Ronneberger et al., arXiv 1505.04597), a change
of width, and masking, which leaves tokens out for the rest of the program.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from ..core.blocks import Rewire, SiteInfo
from ..core.call import Call, Site
from ..core.state import State, Stream
from .linear import Linear
from .positions import grid_coordinates
from .projections import at_once


class Push(Rewire):
    """Remember the named streams, all without names, for the next item that takes them up: last in, first out."""

    recalls = False

    def __init__(self, *streams: str) -> None:
        super().__init__()
        self.streams = streams

    def forward(self, state: State, call: Call | None = None) -> State:
        return state.push(*(self.streams or state.streams))


class Join(Rewire):
    """x = [x, skip] along channels."""

    def forward(self, state: State, call: Call | None = None) -> State:
        state, skip = state.pop()
        return state.with_x({n: torch.cat([state[n], s.x], dim=-1) for n, s in skip.items()})


class Merge(Rewire):
    """x = W [x, skip] + b, the same W for every token of every stream (U-ViT; Bao et al., arXiv 2209.12152).

    `streams`: those that were remembered, so that costs are counted; () = all.   `normed`: LN of it (UniDiffuser).
    """

    def __init__(self, width: int, streams: tuple[str, ...] = (), normed: bool = False) -> None:
        super().__init__()
        self.linear, self.streams = Linear(2 * width, width, "skip"), streams
        self.norm = nn.LayerNorm(width) if normed else nn.Identity()

    def forward(self, state: State, call: Call | None = None) -> State:
        state, skip = state.pop()
        pairs = {n: torch.cat([state[n], s.x], dim=-1) for n, s in skip.items()}
        return state.with_x(at_once(pairs, lambda x: self.norm(self.linear(x, call))))

    def describe(self, prefix: str) -> tuple[SiteInfo, ...]:
        width = self.linear.out_features

        def cost(tokens: Mapping[str, int]) -> int:
            return sum(tokens[n] for n in self.streams or tokens) * 2 * width * width

        names = tuple(f"{prefix}.{n}" for n, _ in self.named_parameters())
        return (SiteInfo(Site(self.index, "linear"), (), names, (), cost),)


def skipped(blocks: list[nn.Module], width: int, normed: bool = False) -> list[nn.Module]:
    """The program of an odd number of blocks as a U: each of the first half is remembered, each of the last half merges one."""
    half = len(blocks) // 2
    before = [item for block in blocks[:half] for item in (block, Push())]
    after = [item for block in blocks[half + 1 :] for item in (Merge(width, normed=normed), block)]
    return [*before, blocks[half], *after]


class Place(Rewire):
    """The picture's positions are the rows and columns of its grid, which may have changed."""

    def forward(self, state: State, call: Call | None = None) -> State:
        image = state.streams["image"]
        assert image.grid is not None
        rows, columns = image.grid
        return state.attach("image", replace(image, pos=grid_coordinates(rows, columns)[..., 1:].to(image.x.device)))


class Project(Rewire):
    """`streams` to another width, each through a LayerNorm and a Linear of its own."""

    def __init__(self, streams: tuple[str, ...], width: int, width_out: int) -> None:
        super().__init__()
        self.norms = nn.ModuleDict({n: nn.LayerNorm(width, eps=1e-6, bias=False) for n in streams})
        self.linears = nn.ModuleDict({n: Linear(width, width_out, "embed") for n in streams})

    def forward(self, state: State, call: Call | None = None) -> State:
        return state.with_x({n: linear(self.norms[n](state[n]), call) for n, linear in self.linears.items()})

    def describe(self, prefix: str) -> tuple[SiteInfo, ...]:
        names = tuple(f"{prefix}.{n}" for n, _ in self.named_parameters())

        def cost(tokens: Mapping[str, int]) -> int:
            return sum(tokens[n] * linear.weight.numel() for n, linear in self.linears.items() if isinstance(linear, Linear))

        return (SiteInfo(Site(self.index, "linears"), (), names, (), cost),)


class Gather(Rewire):
    """Go on with the picture's tokens `State.cond["keep"]` (B, K) alone, numbers drawn before the forward; without it, with all."""

    def forward(self, state: State, call: Call | None = None) -> State:
        keep = state.cond.get("keep")
        return state if keep is None else state.attach("image", gathered(state.streams["image"], keep))


def gathered(stream: Stream, cells: Tensor) -> Stream:
    """The tokens `cells` (B, K) of a stream that is still whole, with everything known of them."""

    def of(value: Tensor | None) -> Tensor | None:
        if value is None or value.ndim < 2:
            return value
        index = cells.reshape(*cells.shape, *(1,) * (value.ndim - 2)).expand(-1, -1, *value.shape[2:])
        return value.expand(len(cells), *value.shape[1:]).gather(1, index)

    x = of(stream.x)
    assert x is not None
    return replace(stream, x=x, cells=cells, pos=of(stream.pos), t=of(stream.t), keep=of(stream.keep), known=of(stream.known))


def scattered(tokens: Tensor, stream: Stream) -> Tensor:
    """(B, N, D) on the whole grid of `stream`, of whose tokens (B, K, D) are an answer: zero where none was asked."""
    if stream.cells is None:
        return tokens
    assert stream.grid is not None
    whole = tokens.new_zeros(len(tokens), math.prod(stream.grid), tokens.shape[-1])
    return whole.scatter(1, stream.cells[..., None].expand_as(tokens), tokens)
