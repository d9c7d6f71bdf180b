"""Branches over several streams at once, each stream under the adaLN and the weights of its role (MM-DiT; Esser et al., arXiv 2403.03206).

x_s += gate_s(c) * core_s(mod_s(norm(x_s), c))          s: every stream; roles without weights of their own have those of `ANY`
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ..core.blocks import Branch, SiteInfo
from ..core.call import Call, Site
from ..core.state import State
from .attention import ANY, JointAttention
from .mlp import MLP, shared_units
from .modulation import Modulation, modulate
from .norms import LayerNorm
from .projections import by_weights


def own(layers: nn.ModuleDict, role: str) -> str | None:
    """The role whose weights treat `role`: itself, `ANY`, or None where there are neither."""
    return role if role in layers else ANY if ANY in layers else None


def modulated(modulation: nn.ModuleDict, norm: nn.Module, state: State, call: Call | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Inputs and gates of every stream that has a modulation here; streams of one role share its vectors, and two vectors give no gate."""
    inputs: dict[str, Tensor] = {}
    gates: dict[str, Tensor] = {}
    vectors = {role: layer(state.cond["c"], call) for role, layer in modulation.items()}
    for name in state.streams:
        if (role := own(modulation, state.role(name))) is not None:
            shift, scale, *gate = vectors[role]
            inputs[name] = modulate(norm(state[name]), shift, scale)
            if gate:
                gates[name] = gate[0]
    return inputs, gates


class StreamsAttention(Branch):
    """All of `streams` attend to all of them. One that the core keeps silent has no gate."""

    name = "attention"

    def __init__(self, streams: tuple[str, ...], core: JointAttention, width: int) -> None:
        super().__init__()
        self.streams = streams
        self.norm = LayerNorm(width)
        silent = core.silent
        self.modulation = nn.ModuleDict({role: Modulation(width, 2 if role in silent else 3) for role in core.projections})
        self.core = core

    def prepare(self, state: State, call: Call | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return modulated(self.modulation, self.norm, state, call)

    def compute(self, inputs: Mapping[str, Tensor], state: State, site: Site, call: Call | None) -> Mapping[str, Tensor]:
        outputs: dict[str, Tensor] = self.core(inputs, state, site, call)
        return outputs

    def describe(self, site: Site, prefix: str) -> SiteInfo:
        info = super().describe(site, prefix)

        def cost(tokens: Mapping[str, int]) -> int:
            return self.core.cost(tokens, tuple(s for s in self.streams if s in tokens))

        return SiteInfo(site, self.streams, info.parameters, (self.core.units(f"{prefix}.core"),), cost)


class StreamsMLP(Branch):
    """An MLP for each role. With `reads`, it stands beside the branch of that name and takes its modulated tokens and gates.

    `silent`: roles that are left as they are.
    """

    name = "mlp"

    def __init__(
        self, streams: tuple[str, ...], core: nn.ModuleDict, width: int, reads: str = "", silent: frozenset[str] = frozenset()
    ) -> None:
        super().__init__()
        self.streams, self.reads, self.core, self.silent = streams, reads, core, silent
        if not reads:
            self.norm, self.modulation = LayerNorm(width), nn.ModuleDict({role: Modulation(width, 3) for role in core})

    def prepare(self, state: State, call: Call | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        if not self.reads:
            return modulated(self.modulation, self.norm, state, call)
        lent = {n: f"{self.reads}.{n}" for n in state.streams if state.role(n) not in self.silent}
        return {n: state.cond[name] for n, name in lent.items()}, {n: state.cond[f"{name}.gate"] for n, name in lent.items()}

    def compute(self, inputs: Mapping[str, Tensor], state: State, site: Site, call: Call | None) -> dict[str, Tensor]:
        mlps = {n: self.core[own(self.core, state.role(n)) or n] for n in inputs}
        return {n: x for n, (x,) in by_weights(mlps, inputs, lambda mlp, x: (mlp(x, call),)).items()}

    def describe(self, site: Site, prefix: str) -> SiteInfo:
        info = super().describe(site, prefix)
        assert all(isinstance(core, MLP) for core in self.core.values())
        each, units = shared_units(self.core, f"{prefix}.core")

        def cost(tokens: Mapping[str, int]) -> int:
            return sum(tokens[s] * each for s in self.streams)

        return SiteInfo(site, self.streams, info.parameters, (units,), cost)
