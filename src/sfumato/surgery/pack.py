"""A network's weights laid out once as the CPU's matrix kernels read them (oneDNN), instead of again in every product.

An activation that follows a product joins its kernel. Nothing is approximated: sums are taken in another order, and in bf16 the activation
reads the sum before it is rounded. The plain weights are let go one by one: a network stands in memory once, and while it packs, one of its
matrices twice. It draws and does nothing else from then on.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..core.call import Call
from ..core.errors import UsageError
from ..core.program import Network
from ..nn.linear import Activation, Linear

_ONEDNN: dict[Activation | None, tuple[str, str]] = {
    None: ("none", ""),
    "gelu": ("gelu", "none"),
    "gelu tanh": ("gelu", "tanh"),
    "silu": ("swish", ""),
}
# oneDNN lays weights out for a number of rows; what it chooses for any of 2 to 4,096 was measured to serve all the others as well.
_ROWS = 512


class Packed(Linear):
    """`linear` with a packed weight. `weight` stays as a shape on meta: reading it fails instead of giving wrong numbers."""

    def __init__(self, linear: Linear) -> None:
        nn.Module.__init__(self)
        self.in_features, self.out_features = linear.in_features, linear.out_features
        self.role, self.name, self.bias = linear.role, linear.name, linear.bias
        self.weight = nn.Parameter(torch.empty_like(linear.weight, device="meta"), requires_grad=False)
        self._packed = torch.ops.mkldnn._reorder_linear_weight(linear.weight.detach().contiguous(), _ROWS)

    def forward(self, x: Tensor, call: Call | None = None) -> Tensor:
        if call is not None and self.name in call.adapters:
            return call.adapters[self.name](self, x, self._product, call)
        return self._product(x)

    def activated(self, x: Tensor, activation: Activation, call: Call | None = None) -> Tensor:
        if call is not None and self.name in call.adapters:
            return super().activated(x, activation, call)
        return self._product(x, activation)

    def _product(self, x: Tensor, activation: Activation | None = None) -> Tensor:
        attribute, algorithm = _ONEDNN[activation]
        if torch.is_autocast_enabled("cpu"):  # the weights have their type already; the tokens follow it
            x = x.to(self.weight.dtype)
        y: Tensor = torch.ops.mkldnn._linear_pointwise(x, self._packed, self.bias, attribute, [], algorithm)
        return y


def pack(net: Network) -> Network:
    """`net` itself, every Linear packed, one at a time. In eval mode, without gradients, from then on.

    Raises `UsageError` where it is not on a CPU, not in fp32 or bf16, or where torch was built without oneDNN.
    """
    linears = [(parent, name, part) for parent in net.modules() for name, part in parent.named_children() if isinstance(part, Linear)]
    for _, _, linear in linears:
        if not torch.backends.mkldnn.is_available():
            raise UsageError("this torch has no oneDNN, whose layout packing is", "draw without packing")
        if linear.weight.device.type != "cpu" and not isinstance(linear, Packed):
            raise UsageError(f"{linear.name} is on {linear.weight.device}", "packing is for CPUs; move the network there first")
        if linear.weight.dtype not in (torch.float32, torch.bfloat16):
            raise UsageError(f"{linear.name} is {str(linear.weight.dtype).removeprefix('torch.')}", "packing is for float32 and bfloat16")
    while linears:
        # Nobody else holds it: what is replaced here leaves memory at once.
        parent, name, linear = linears.pop()
        if not isinstance(linear, Packed):
            setattr(parent, name, Packed(linear))
        del linear
    return net.eval().requires_grad_(False)


def is_packed(net: nn.Module) -> bool:
    """Whether `pack` has been here."""
    return any(isinstance(part, Packed) for part in net.modules())


def refuse_packed(net: nn.Module, what: str) -> None:
    """Raise `UsageError` for a packed network, which cannot be `what`."""
    if is_packed(net):
        raise UsageError(f"a packed network cannot be {what}: its plain weights are gone", "load the model again, and pack it last")
