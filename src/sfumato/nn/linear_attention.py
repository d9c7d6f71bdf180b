"""Linear attention with what it lacks, a sharp look at its neighbours, given back by a depth-wise convolution (LiT, arXiv 2501.12976).

    O_i = phi(q_i) (sum_j phi(k_j)^T v_j) / (phi(q_i) . sum_j phi(k_j)) + conv(v)_i,   phi = ReLU + 1e-6

Few heads: the state of a head is d x d, so fewer and wider heads know more at the same number of parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Literal

from torch import Tensor, nn

from ..core.attention import Attend, Heads, Plan, linear_attend
from ..core.blocks import Units
from ..core.errors import ConfigError
from ..core.state import State
from .attention import JointAttention, LinearAttention
from .grids import plane, tokens
from .projections import AttentionShape

SelfAttention = Literal["softmax", "linear", "linear+v", "linear+x"]
# The published code's guard against a query that is nowhere positive: it then listens to all keys alike.
FLOOR = 1e-6
KERNEL = 5


class LocalLinearAttention(LinearAttention):
    """`reads`: what is convolved, "v" (the values, one kernel for all heads) or "x" (the branch's input), "" = nothing.

    Streams without a grid are not convolved; one with gaps is refused (`ConflictError`).
    """

    def __init__(self, shape: AttentionShape, roles: tuple[str, ...], reads: Literal["", "v", "x"] = "v") -> None:
        super().__init__(shape, roles)
        self.reads = reads
        if reads:
            channels = shape.width // shape.heads if reads == "v" else shape.width_in
            self.conv = nn.Conv2d(channels, channels, KERNEL, padding=KERNEL // 2, groups=channels)
        if reads == "x" and shape.width_in != shape.width:
            raise ConfigError(
                f"the input is {shape.width_in} wide, the heads {shape.width}", "equal widths, or a convolution of the values"
            )

    def mixing(self, state: State, inputs: Mapping[str, Tensor]) -> Attend:
        return partial(self._mixed, inputs)

    def _mixed(self, inputs: Mapping[str, Tensor], heads: Mapping[str, Heads], plan: Plan | None) -> dict[str, Tensor]:
        mixed = linear_attend(heads, plan, FLOOR)
        local = {n: self._local(inputs[n], h) for n, h in heads.items() if self.reads and h.grid is not None}
        return {n: x + local[n] if n in local else x for n, x in mixed.items()}

    def _local(self, x: Tensor, heads: Heads) -> Tensor:
        """(B, H, N, d)"""
        if self.reads == "v":
            return tokens(self.conv(plane(heads.v.flatten(0, 1), heads.grid))).view(heads.v.shape).to(heads.v.dtype)
        seen = tokens(self.conv(plane(x, heads.grid)))
        return seen.unflatten(-1, (heads.v.shape[1], -1)).transpose(1, 2).to(heads.v.dtype)

    def units(self, prefix: str) -> Units:
        """Heads and what they own, under the parameter names that begin with `prefix`; a kernel that all heads share belongs to none."""
        units = super().units(prefix)
        if self.reads != "x":
            return units
        each = self.conv.out_channels // units.count
        return replace(units, slices={**units.slices, f"{prefix}.conv.weight": (0, each), f"{prefix}.conv.bias": (0, each)})

    def cost(self, tokens: Mapping[str, int], streams: tuple[str, ...]) -> int:
        """Multiply-adds a row where `streams` attend to one another."""
        local = KERNEL**2 * self._of(streams[0]).shape.width if self.reads else 0
        return super().cost(tokens, streams) + sum(tokens.get(s, 0) for s in streams) * local


def self_attention(kind: SelfAttention, shape: AttentionShape, roles: tuple[str, ...], ratio: int = 1) -> JointAttention:
    """Attention of a picture to itself: softmax, keys and values reduced by `ratio` each way, or linear, with or without a convolution."""
    if kind == "softmax":
        return JointAttention(shape, roles, ratio=ratio)
    if ratio > 1:
        raise ConfigError(f"keys and values reduced by {ratio} for linear attention", "a ratio of 1: its cost grows with the tokens anyway")
    reads: dict[str, Literal["", "v", "x"]] = {"linear": "", "linear+v": "v", "linear+x": "x"}
    return LocalLinearAttention(shape, roles, reads[kind])
