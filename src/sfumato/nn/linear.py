"""A Linear with a role and a call-time adapter slot: LoRA and quantisers find it by role and act through the Call."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import gelu, silu

from ..core.call import Call

Activation = Literal["gelu", "gelu tanh", "silu"]


def activate(x: Tensor, activation: Activation) -> Tensor:
    """GELU, exact or by tanh, or SiLU."""
    return silu(x) if activation == "silu" else gelu(x, approximate="tanh" if activation == "gelu tanh" else "none")


class Linear(nn.Linear):
    """`role`: what it is for ("q", "k", "v", "out", "up", "down", "modulation", "embed", "router", "head"). `name`: its full name in the
    network.
    """

    def __init__(self, width_in: int, width_out: int, role: str, bias: bool = True) -> None:
        super().__init__(width_in, width_out, bias=bias)
        self.role = role
        self.name = ""

    def reset_parameters(self) -> None:
        # On meta there is nothing to fill, and torch takes its time to find out.
        if not self.weight.is_meta:
            super().reset_parameters()

    def forward(self, x: Tensor, call: Call | None = None) -> Tensor:
        if call is not None and self.name in call.adapters:
            return call.adapters[self.name](self, x, super().forward, call)
        return super().forward(x)

    def activated(self, x: Tensor, activation: Activation, call: Call | None = None) -> Tensor:
        """`activation` of the product, an adapter's part included; one kernel where the weight is packed (`surgery/pack.py`)."""
        return activate(self(x, call), activation)


def name_linears(network: nn.Module) -> None:
    """Tell every Linear its full name; called once when a network is built or rewritten."""
    for name, module in network.named_modules():
        if isinstance(module, Linear):
            module.name = name
