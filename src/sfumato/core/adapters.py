"""Several adapters on one Linear: the first stands outermost, as with policies, and each one's `base` is what lies inside it.

    combine(loras, quantised):   y = Q(W) Q(x) + b + B A x        the LoRA adds to what the quantiser makes of the product

One that replaces the product never asks for what lies inside, so it comes last; before another it is refused: the other would be lost.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from .call import Adapter, Call
from .errors import ConflictError


@dataclass(frozen=True)
class Chain:
    """Adapters of one Linear, outermost first."""

    parts: tuple[Adapter, ...]

    @property
    def laneless(self) -> bool:
        """See `Adapter`."""
        return all(getattr(part, "laneless", False) for part in self.parts)

    def __call__(self, linear: Any, x: Tensor, base: Callable[[Tensor], Tensor], call: Call) -> Tensor:
        outer, *inner = self.parts
        if not inner:
            return outer(linear, x, base, call)
        asked = False

        def within(x: Tensor) -> Tensor:
            nonlocal asked
            asked = True
            return Chain(tuple(inner))(linear, x, base, call)

        y = outer(linear, x, within, call)
        if not asked:
            lost, name = " and ".join(type(part).__name__ for part in inner), type(outer).__name__
            raise ConflictError(f"{name} replaces the product of {linear.name}, so that {lost} inside it is lost", f"list {name} last")
        return y


def combine(*adapters: Mapping[str, Adapter]) -> dict[str, Adapter]:
    """One `Call.adapters` of several. Where two have a Linear in common, that of the earlier mapping stands outside."""
    found: dict[str, tuple[Adapter, ...]] = {}
    for each in adapters:
        for name, adapter in each.items():
            found[name] = (*found.get(name, ()), *(adapter.parts if isinstance(adapter, Chain) else (adapter,)))
    return {name: parts[0] if len(parts) == 1 else Chain(parts) for name, parts in found.items()}
