"""Adaptive layer norm: shift, scale and gate of a branch from the conditioning vector (adaLN-zero; Peebles and Xie, arXiv 2212.09748)."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import silu

from ..core.call import Call
from .linear import Linear


class Modulation(nn.Module):
    """`count` vectors of `width` from c (B, D) or per token (B, N, D), each returned as (B, 1 | N, width). Starts at zero."""

    def __init__(self, width: int, count: int) -> None:
        super().__init__()
        self.linear = Linear(width, count * width, "modulation")
        self.count = count
        nn.init.zeros_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, c: Tensor, call: Call | None = None) -> tuple[Tensor, ...]:
        vectors = self.linear(silu(c), call)
        return (vectors[:, None] if vectors.ndim == 2 else vectors).chunk(self.count, dim=-1)


def modulate(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x (1 + scale) + shift."""
    return x * (1 + scale) + shift
