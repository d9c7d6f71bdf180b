"""Mixtures of experts in which each token chooses its experts, beside one that serves all (Dai et al., arXiv 2401.06066; in a diffusion
transformer: HiDream-I1, arXiv 2505.22705).

    p = softmax(W x)        y = S(x) + sum over the top k of p_e E_e(x)        weights are not renormalised: they sum to less than 1
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn
from torch.nn.functional import one_hot

from ..core.blocks import Units
from ..core.call import Call
from ..core.errors import ConfigError
from .linear import Linear
from .mlp import MLP, SwiGLU


class Experts(nn.ModuleList):
    """Equal MLPs, each for some of the tokens; who goes where is somebody else's choice."""

    def __init__(self, experts: Iterable[MLP | SwiGLU]) -> None:
        super().__init__(experts)

    @torch.compiler.disable  # type: ignore[untyped-decorator]
    def forward(self, x: Tensor, counts: Tensor, call: Call | None = None, owners: Tensor | None = None, rows: int = 1) -> Tensor:
        """x (A, D): the first counts[0] rows are for expert 0, the next counts[1] for expert 1, and so on; returns their answers (A, D).

        An expert without rows runs too: its gradients are then zero rather than missing, which sharded training needs on every rank. An
        adapter sees (1, count, D); `owners` (A,), of `rows` pictures, tell it which picture each is of (`Call.owners`). Not compiled, for
        counts are data, and each would be compiled for.
        """
        sizes = counts.tolist()
        parts = x[None].split(sizes, dim=1)
        calls = [call] * len(parts)
        if call is not None and owners is not None:
            calls = [replace(call, owners=(part, rows)) for part in owners.split(sizes)]
        return torch.cat([expert(part, c) for expert, part, c in zip(self, parts, calls, strict=True)], dim=1)[0]

    @property
    def cost(self) -> int:
        """Multiply-adds of a token at one expert."""
        first = self[0]
        assert isinstance(first, (MLP, SwiGLU))
        return first.cost

    def whole(self, prefix: str) -> tuple[tuple[str, ...], ...]:
        """Names of the parameters of each expert, under the names that begin with `prefix`."""
        return tuple(tuple(f"{prefix}.{e}.{name}" for name, _ in expert.named_parameters()) for e, expert in enumerate(self))


class MixtureOfExperts(nn.Module):
    """`count` routed SwiGLUs, `active` of them for each token, and a shared one. `hidden`, `shared`: their hidden channels."""

    def __init__(self, width: int, hidden: int, shared: int, count: int = 4, active: int = 2) -> None:
        super().__init__()
        if not 1 <= active <= count:
            raise ConfigError(f"{active} of {count} experts", f"each token goes to 1 to {count} of them")
        self.active = active
        self.router = Linear(width, count, "router", bias=False)
        self.experts = Experts(SwiGLU(width, hidden) for _ in range(count))
        self.shared = SwiGLU(width, shared)

    @property
    def cost(self) -> int:
        """Multiply-adds a token."""
        return self.router.in_features * self.router.out_features + self.active * self.experts.cost + self.shared.cost

    def units(self, prefix: str) -> Units:
        """The routed experts and what they own, under the parameter names that begin with `prefix`."""
        return Units("experts", len(self.experts), {f"{prefix}.router.weight": (0, 1)}, self.experts.whole(f"{prefix}.experts"), True)

    def route(self, x: Tensor, call: Call | None = None) -> tuple[Tensor, Tensor, Tensor]:
        """Of tokens (..., D): p of every expert (..., count) in fp32, and p and number of those chosen, both (..., active)."""
        p = self.router(x, call).float().softmax(-1)
        return p, *p.topk(self.active, dim=-1)

    def forward(self, x: Tensor, call: Call | None = None) -> Tensor:
        """x (B, N, D). Tokens are sorted by expert, so that each expert runs once."""
        _, weights, chosen = self.route(x, call)
        order = chosen.flatten().argsort(stable=True)
        counts = chosen.flatten().bincount(minlength=len(self.experts))
        tokens = order // self.active
        answers = self.experts(x.flatten(0, 1)[tokens], counts, call, tokens // x.shape[1], len(x))
        # Sorted back rather than added up in place: a sum in a fixed order comes out the same in every run on every device.
        answers = answers[order.argsort()].view(*chosen.shape, x.shape[-1])
        y: Tensor = (answers * weights[..., None].to(answers.dtype)).sum(-2) + self.shared(x, call)
        return y

    def balance(self, x: Tensor, keep: Tensor, call: Call | None = None) -> Tensor:
        """sum_e P_e f_e over the tokens (B, N, D) where `keep` (B, N): P_e the mean of p_e, f_e = count * the share of choices that are e
        (Fedus et al., arXiv 2101.03961). 1 when balanced, `count` / `active` when all go to the same.
        """
        p, _, chosen = self.route(x, call)
        kept = keep[..., None].to(p)
        number = kept.sum().clamp(min=1)
        share = (one_hot(chosen, p.shape[-1]).sum(-2) * kept).sum((0, 1)) / (number * self.active)
        return ((p * kept).sum((0, 1)) / number * p.shape[-1] * share).sum()
