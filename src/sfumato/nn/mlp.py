"""Feed-forward parts."""

from __future__ import annotations

from collections import ChainMap
from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import silu

from ..core.blocks import Units
from ..core.call import Call
from .grids import plane, tokens
from .linear import Linear


class MLP(nn.Module):
    """Linear up, GELU, Linear down; `approximate` "tanh" (DiT, SD3) or "none" (exact; U-ViT)."""

    def __init__(
        self, width: int, hidden: int, approximate: Literal["tanh", "none"] = "tanh", last_bias: bool = True, bias: bool = True
    ) -> None:
        super().__init__()
        self.up = Linear(width, hidden, "up", bias=bias)
        self.down = Linear(hidden, width, "down", bias=last_bias)
        self.approximate = approximate

    @property
    def cost(self) -> int:
        """Multiply-adds a token."""
        return 2 * self.up.in_features * self.up.out_features

    def units(self, prefix: str) -> Units:
        """Hidden channels and what they own, under the parameter names that begin with `prefix`."""
        biased = {} if self.up.bias is None else {f"{prefix}.up.bias": (0, 1)}
        owned = {f"{prefix}.up.weight": (0, 1), f"{prefix}.down.weight": (1, 1)} | biased
        return Units("channels", self.up.out_features, owned)

    def forward(self, x: Tensor, call: Call | None = None) -> Tensor:
        y: Tensor = self.down(self.up.activated(x, "gelu tanh" if self.approximate == "tanh" else "gelu", call), call)
        return y


class GLU(nn.Module):
    """down(act(gate x) * up x), act SiLU or exact GELU (Shazeer, arXiv 2002.05202)."""

    def __init__(self, width: int, hidden: int, activation: Literal["silu", "gelu"], bias: bool) -> None:
        super().__init__()
        self.activation = activation
        self.gate = Linear(width, hidden, "up", bias=bias)
        self.up = Linear(width, hidden, "up", bias=bias)
        self.down = Linear(hidden, width, "down", bias=bias)

    @property
    def cost(self) -> int:
        """Multiply-adds a token."""
        return 3 * self.up.in_features * self.up.out_features

    def units(self, prefix: str) -> Units:
        """Hidden channels and what they own, under the parameter names that begin with `prefix`."""
        owned = {f"{prefix}.{n}": (0, 1) for n, _ in self.named_parameters() if not n.startswith("down")}
        return Units("channels", self.up.out_features, owned | {f"{prefix}.down.weight": (1, 1)})

    def forward(self, x: Tensor, call: Call | None = None) -> Tensor:
        y: Tensor = self.down(self.gate.activated(x, self.activation, call) * self.up(x, call), call)
        return y


class SwiGLU(GLU):
    """With SiLU, without biases."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(width, hidden, "silu", bias=False)


class GEGLU(GLU):
    """With GELU and biases."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__(width, hidden, "gelu", bias=True)


class MixFFN(nn.Module):
    """down(conv(silu(up x)) * silu(conv(silu(gate x)))): a gated MLP that sees its neighbours by depth-wise 3 x 3 convolutions over the
    grid, which tell it of places (Sana; Xie et al., arXiv 2410.10629, section 3.1).
    """

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up, self.gate = Linear(width, hidden, "up"), Linear(width, hidden, "up")
        self.up_conv, self.gate_conv = (nn.Conv2d(hidden, hidden, 3, padding=1, groups=hidden) for _ in range(2))
        self.down = Linear(hidden, width, "down", bias=False)

    @property
    def cost(self) -> int:
        """Multiply-adds a token."""
        return self.up.out_features * (3 * self.up.in_features + 2 * 9)

    def units(self, prefix: str) -> Units:
        """Hidden channels and what they own, under the parameter names that begin with `prefix`."""
        parts = ("up", "gate", "up_conv", "gate_conv")
        owned = {f"{prefix}.{part}.{kind}": (0, 1) for part in parts for kind in ("weight", "bias")}
        return Units("channels", self.up.out_features, owned | {f"{prefix}.down.weight": (1, 1)})

    def forward(self, x: Tensor, grid: tuple[int, ...], call: Call | None = None) -> Tensor:
        """x (B, rows * columns, width). Raises `ConflictError` on fewer tokens than the grid has: they have no neighbours."""

        def seen(linear: Linear, conv: nn.Module) -> Tensor:
            return tokens(conv(plane(linear.activated(x, "silu", call), grid)))

        y: Tensor = self.down(seen(self.up, self.up_conv) * silu(seen(self.gate, self.gate_conv)), call)
        return y


def shared_units(roles: nn.ModuleDict, prefix: str) -> tuple[int, Units]:
    """Multiply-adds a token and the hidden channels of equal MLPs, one per role; a channel owns its part of every role's."""
    mlps = {role: mlp for role, mlp in roles.items() if isinstance(mlp, MLP)}
    units = [mlp.units(f"{prefix}.{role}") for role, mlp in mlps.items()]
    first = next(iter(mlps.values()))
    return first.cost, Units("channels", units[0].count, dict(ChainMap(*(dict(u.slices) for u in units))))
