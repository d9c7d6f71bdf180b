"""Adaptive layer norm: shift, scale and gate of a branch from the conditioning vector, through a Linear of its own (adaLN-zero;
Peebles and Xie, arXiv 2212.09748), or through one for all and a small table (adaLN-single; Chen et al., arXiv 2310.00426).
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu, silu

from ..core.call import Call
from .linear import Linear


class Modulation(nn.Module):
    """`count` vectors of `width` from c (B, D) or per token (B, N, D), each returned as (B, 1 | N, width). Starts at zero.

    `width_in`: D, where c is of another width.   `activation`: of c before its Linear.
    """

    def __init__(self, width: int, count: int, width_in: int | None = None, activation: Literal["silu", "gelu"] = "silu") -> None:
        super().__init__()
        self.linear = Linear(width_in or width, count * width, "modulation")
        self.count, self.activation = count, activation
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, c: Tensor, call: Call | None = None) -> tuple[Tensor, ...]:
        vectors = self.linear(silu(c) if self.activation == "silu" else gelu(c, approximate="tanh"), call)
        return (vectors[:, None] if vectors.ndim == 2 else vectors).chunk(self.count, dim=-1)


class TableModulation(nn.Module):
    """`count` vectors of `width`, each a row of a learned table added to a shared projection of the condition."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.empty(count, width))
        nn.init.normal_(self.table, std=width**-0.5)

    def forward(self, shared: Tensor) -> tuple[Tensor, ...]:
        """shared (B, count | 1, width) -> vectors (B, 1, width)."""
        return (self.table + shared).chunk(len(self.table), dim=1)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (1 + scale) + shift."""
    return x * (1 + scale) + shift
