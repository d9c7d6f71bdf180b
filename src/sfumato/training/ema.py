"""An exponential moving average of a network's floating-point state, kept in fp32 and warmed up so that early weights are forgotten."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Ema:
    """`decay` is the final decay; at step n the decay in force is min(decay, (1 + n) / (10 + n))."""

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.shadow = {n: t.detach().float().clone() for n, t in _floating(module).items()}

    @torch.no_grad()
    def update(self, module: nn.Module, step: int) -> None:
        decay = min(self.decay, (1 + step) / (10 + step))
        live = _floating(module)
        torch._foreach_lerp_(list(self.shadow.values()), [live[n].float() for n in self.shadow], 1.0 - decay)

    @contextmanager
    def applied(self, module: nn.Module) -> Iterator[None]:
        """Inside the block, `module` holds the averaged weights; afterwards its own are back."""
        live = _floating(module)
        own = {n: t.detach().clone() for n, t in live.items()}
        try:
            self._copy(self.shadow, live)
            yield
        finally:
            self._copy(own, live)

    @staticmethod
    @torch.no_grad()
    def _copy(source: Mapping[str, Tensor], target: Mapping[str, Tensor]) -> None:
        for name, tensor in target.items():
            tensor.copy_(source[name])


def _floating(module: nn.Module) -> dict[str, Tensor]:
    return {n: t for n, t in module.state_dict(keep_vars=True).items() if t.is_floating_point()}
