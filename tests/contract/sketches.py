"""What several sketches need: plain branches keyed by role, conditions of random text, and comparisons."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from sfumato.core.blocks import Branch
from sfumato.core.call import Call, Site
from sfumato.core.conditions import Conditions, Tokens
from sfumato.core.state import State
from sfumato.nn.attention import JointAttention
from sfumato.nn.mlp import MLP
from sfumato.nn.projections import AttentionShape


class Attention(Branch):
    """Every stream attends every stream, whatever streams there are; a stream's role picks its projections."""

    name = "attention"

    def __init__(self, width: int, roles: tuple[str, ...]) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.core = JointAttention(AttentionShape(width, heads=2), roles)

    def prepare(self, state: State, call: Call | None) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        return {n: self.norm(s.x) for n, s in state.streams.items()}, {}

    def compute(self, inputs: Mapping[str, Tensor], state: State, site: Site, call: Call | None) -> Mapping[str, Tensor]:
        return self.core(inputs, state, site, call)


class Feed(Branch):
    """One MLP per role."""

    name = "mlp"

    def __init__(self, width: int, roles: tuple[str, ...]) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.core = nn.ModuleDict({r: MLP(width, 2 * width) for r in roles})

    def prepare(self, state: State, call: Call | None) -> tuple[Mapping[str, Tensor], Mapping[str, Tensor]]:
        return {n: self.norm(s.x) for n, s in state.streams.items() if (s.role or n) in self.core}, {}

    def compute(self, inputs: Mapping[str, Tensor], state: State, site: Site, call: Call | None) -> Mapping[str, Tensor]:
        return {n: self.core[state.streams[n].role or n](x, call) for n, x in inputs.items()}


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def prompt(rows: int, width: int = 12, pooled: int = 6, seed: int = 0) -> Conditions:
    """Text of five tokens, the last one padding, in the slots of a tiny MMDiT."""
    random = seeded(seed)
    keep = torch.tensor([[True, True, True, True, False]]).expand(rows, -1)
    states = torch.randn(rows, 5, width, generator=random) * keep[..., None]
    return Conditions(tokens={"text": Tokens(states, keep)}, vectors={"pooled": torch.randn(rows, pooled, generator=random)})


def gradients(module: nn.Module) -> dict[str, Tensor]:
    return {n: p.grad.clone() for n, p in module.named_parameters() if p.grad is not None}


def weights(module: nn.Module) -> dict[str, Tensor]:
    return {n: t.detach().clone() for n, t in module.state_dict().items()}


def same(a: Mapping[str, Tensor], b: Mapping[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[n], b[n]) for n in a)
