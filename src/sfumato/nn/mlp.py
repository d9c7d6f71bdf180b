"""Feed-forward parts."""

from __future__ import annotations

from collections import ChainMap
from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import gelu, silu

from ..core.call import Call
from ..core.program import Units
from .linear import Linear


class MLP(nn.Module):
    """Linear up, GELU, Linear down; `approximate` "tanh" (DiT, SD3) or "none" (exact; U-ViT)."""

    def __init__(self, width: int, hidden: int, approximate: Literal["tanh", "none"] = "tanh", last_bias: bool = True) -> None:
        super().__init__()
        self.up = Linear(width, hidden, "up")
        self.down = Linear(hidden, width, "down", bias=last_bias)
        self.approximate = approximate

    @property
    def cost(self) -> int:
        """Multiply-adds a token."""
        return 2 * self.up.in_features * self.up.out_features

    def units(self, prefix: str) -> Units:
        """Hidden channels and what they own, under the parameter names that begin with `prefix`."""
        owned = {f"{prefix}.up.weight": (0, 1), f"{prefix}.up.bias": (0, 1), f"{prefix}.down.weight": (1, 1)}
        return Units("channels", self.up.out_features, owned)

    def forward(self, x: Tensor, call: Call | None = None) -> Tensor:
        y: Tensor = self.down(gelu(self.up(x, call), approximate=self.approximate), call)
        return y


class SwiGLU(nn.Module):
    """down(silu(gate x) * up x), without biases (Shazeer, arXiv 2002.05202)."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.gate = Linear(width, hidden, "up", bias=False)
        self.up = Linear(width, hidden, "up", bias=False)
        self.down = Linear(hidden, width, "down", bias=False)

    @property
    def cost(self) -> int:
        """Multiply-adds a token."""
        return 3 * self.up.in_features * self.up.out_features

    def units(self, prefix: str) -> Units:
        """Hidden channels and what they own, under the parameter names that begin with `prefix`."""
        owned = {f"{prefix}.gate.weight": (0, 1), f"{prefix}.up.weight": (0, 1), f"{prefix}.down.weight": (1, 1)}
        return Units("channels", self.up.out_features, owned)

    def forward(self, x: Tensor, call: Call | None = None) -> Tensor:
        y: Tensor = self.down(silu(self.gate(x, call)) * self.up(x, call), call)
        return y


def shared_units(roles: nn.ModuleDict, prefix: str) -> tuple[int, Units]:
    """Multiply-adds a token and the hidden channels of equal MLPs, one per role; a channel owns its part of every role's."""
    mlps = {role: mlp for role, mlp in roles.items() if isinstance(mlp, MLP)}
    units = [mlp.units(f"{prefix}.{role}") for role, mlp in mlps.items()]
    first = next(iter(mlps.values()))
    return first.cost, Units("channels", units[0].count, dict(ChainMap(*(dict(u.slices) for u in units))))
