"""A Linear with a role and a call-time adapter slot: LoRA and quantisers find it by role and act through the Call."""

from __future__ import annotations

from torch import Tensor, nn

from ..core.call import Call


class Linear(nn.Linear):
    """`role`: what it is for ("q", "k", "v", "out", "up", "down", "modulation", "embed", "router", "head"). `name`: its full name in the
    network.
    """

    def __init__(self, width_in: int, width_out: int, role: str, bias: bool = True) -> None:
        super().__init__(width_in, width_out, bias=bias)
        self.role = role
        self.name = ""

    def forward(self, x: Tensor, call: Call | None = None) -> Tensor:
        if call is not None and self.name in call.adapters:
            return call.adapters[self.name](self, x, super().forward, call)
        return super().forward(x)


def name_linears(network: nn.Module) -> None:
    """Tell every Linear its full name; called once when a network is built or rewritten."""
    for name, module in network.named_modules():
        if isinstance(module, Linear):
            module.name = name
