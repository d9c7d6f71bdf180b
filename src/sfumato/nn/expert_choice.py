"""A mixture of experts in which experts choose tokens, so that every expert has the same work and no balance loss is needed (Zhou et al.,
arXiv 2202.09368; in a diffusion transformer: MicroDiT, arXiv 2407.15811).
"""

from __future__ import annotations

from collections import ChainMap

import torch
from torch import Tensor, nn

from ..core.blocks import Units
from ..core.call import Call
from .linear import Linear
from .mlp import MLP


class ExpertChoice(nn.Module):
    """y_i = sum over the experts e that chose token i of p_ie MLP_e(x_i), p = softmax over the experts of a router's logits.

    Of a row's T tokens each expert takes the int(capacity T / experts) that give it the highest p; a token may be taken by all experts or
    by none. Rows never compete, but a row's tokens do: fewer tokens (masked training) are routed differently from all of them.
    """

    def __init__(self, width: int, hidden: int, experts: int = 8, capacity: float = 2.0) -> None:
        super().__init__()
        self.router = Linear(width, experts, "router", bias=False)
        self.experts = nn.ModuleList(MLP(width, hidden, bias=False, last_bias=False) for _ in range(experts))
        self.capacity = capacity

    @property
    def cost(self) -> int:
        """Multiply-adds a token, on average."""
        first = self._expert(0)
        return round(self.capacity * first.cost) + self.router.in_features * self.router.out_features

    def units(self, prefix: str) -> Units:
        """Hidden channels and what they own, under the names that begin with `prefix`; a channel owns its part of every expert."""
        owned = [dict(self._expert(e).units(f"{prefix}.experts.{e}").slices) for e in range(len(self.experts))]
        return Units("channels", self._expert(0).up.out_features, dict(ChainMap(*owned)))

    def chosen(self, x: Tensor, call: Call | None = None) -> tuple[Tensor, Tensor]:
        """(p, tokens), both (B, experts, k): which tokens each expert takes, and how much its answer counts. In fp32."""
        p: Tensor = self.router(x, call).float().softmax(-1)
        k = int(self.capacity * x.shape[1] / len(self.experts))
        values, tokens = p.transpose(1, 2).topk(k, dim=-1)
        return values, tokens

    def forward(self, x: Tensor, call: Call | None = None) -> Tensor:
        """x (B, T, D)."""
        p, tokens = self.chosen(x, call)
        places = [tokens[:, e, :, None].expand(-1, -1, x.shape[-1]) for e in range(len(self.experts))]
        answers = [self._expert(e)(x.gather(1, place), call) for e, place in enumerate(places)]
        total = torch.zeros_like(x, dtype=answers[0].dtype)
        for e, (place, answer) in enumerate(zip(places, answers, strict=True)):
            total = total.scatter_add(1, place, answer * p[:, e, :, None].to(answer.dtype))
        return total

    def _expert(self, e: int) -> MLP:
        expert = self.experts[e]
        assert isinstance(expert, MLP)
        return expert
