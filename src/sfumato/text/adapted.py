"""A transformers text model with low-rank changes in some of its Linears.

Such a model takes no argument that could carry an adapter, and what varies by request is never the state of a shared module: so a request
with changes gets modules of its own, around the same tensors, and no weight is written to or copied.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeVar, cast

from torch import Tensor, nn
from torch.nn.functional import linear as product

from sfumato.core.errors import WeightsError

M = TypeVar("M", bound=nn.Module)
# A (rank, D_in), B (D_out, rank), and the factor of B A.
Change = tuple[Tensor, Tensor, float]
Changes = Mapping[str, Sequence[Change]]


class Adapted(nn.Module):
    """y = W x + b + sum_k factor_k B_k A_k x."""

    def __init__(self, linear: nn.Linear, changes: Sequence[Change]) -> None:
        super().__init__()
        self.linear, self.changes = linear, tuple(changes)

    @property
    def weight(self) -> Tensor:
        """T5 asks its Linears for their type."""
        return self.linear.weight

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.linear(x)
        for down, up, factor in self.changes:
            y = y + factor * product(product(x, down.to(x)), up.to(x))
        return y


def adapted(model: M, changes: Changes, name: str) -> M:
    """`model` with `changes` by module; `model` itself stays as it is. Raises `WeightsError`, with its `name`, for what does not fit."""
    linears = {n: m for n, m in model.named_modules() if isinstance(m, nn.Linear)}
    for module, parts in changes.items():
        linear = linears.get(module)
        shapes = {(up.shape[0], down.shape[1]) for down, up, _ in parts}
        if linear is None or shapes != {(linear.out_features, linear.in_features)}:
            raise WeightsError(
                f"a LoRA changes {module} of {name}, which is none of its Linears or of another size", "load it for this pipeline"
            )
    known: dict[int, nn.Module] = {id(linears[module]): Adapted(linears[module], parts) for module, parts in changes.items()}
    return _copied(model, known)


def _copied(module: M, known: dict[int, nn.Module]) -> M:
    """`module` and all below it as new objects, `known` ones in their places, around the same tensors and settings."""
    if id(module) not in known:
        known[id(module)] = copied = type(module).__new__(type(module))
        # Dictionaries of their own: a hook on a copy, such as transformers puts on layers, is no hook on the original.
        vars(copied).update({name: value.copy() if isinstance(value, dict) else value for name, value in vars(module).items()})
        copied._modules.update({name: _copied(child, known) for name, child in module._modules.items() if child is not None})
    return cast(M, known[id(module)])
