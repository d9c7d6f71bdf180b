"""Feed-forward parts."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import gelu

from ..core.call import Call
from .linear import Linear


class MLP(nn.Module):
    """Linear up, GELU, Linear down; `approximate` "tanh" (DiT, SD3) or "none" (exact; U-ViT)."""

    def __init__(self, width: int, hidden: int, approximate: Literal["tanh", "none"] = "tanh", last_bias: bool = True) -> None:
        super().__init__()
        self.up = Linear(width, hidden, "up")
        self.down = Linear(hidden, width, "down", bias=last_bias)
        self.approximate = approximate

    def forward(self, x: Tensor, call: Call | None = None) -> Tensor:
        y: Tensor = self.down(gelu(self.up(x, call), approximate=self.approximate), call)
        return y
