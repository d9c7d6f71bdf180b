"""Branches between two norms, with scales and bounded gates but no shifts (Lumina-Next; Zhuo et al., arXiv 2406.18583, section 2.1).

    x += tanh(gate(c)) * RMS_after(core(RMS_before(x) * (1 + scale(c))))        without modulation: x += RMS_after(core(RMS_before(x)))

The gate is at most 1 and what it multiplies has unit size, so no branch can blow up the stream. "Open", to compare with, a branch has
neither: x += gate(c) * core(RMS_before(x) * (1 + scale(c))).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import Tensor, nn

from ..core.blocks import Branch, SiteInfo
from ..core.call import Call, Site
from ..core.state import State
from .attention import GatedAttention, JointAttention
from .mlp import SwiGLU
from .modulation import Modulation
from .norms import RMSNorm
from .projections import at_once


class Sandwich(Branch):
    """`streams` share all weights. `width_c`: of the condition `State.cond["c"]`; 0 = no modulation. `open`: without bounds."""

    def __init__(self, streams: tuple[str, ...], width: int, width_c: int, eps: float, open: bool = False) -> None:
        super().__init__()
        self.streams, self.open = streams, open
        self.before, self.after = RMSNorm(width, eps), nn.Identity() if open else RMSNorm(width, eps)
        self.modulation = Modulation(width, 2, width_c) if width_c else None

    def prepare(self, state: State, call: Call | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        inputs = {n: self.before(state[n]) for n in self.streams}
        if self.modulation is None:
            return inputs, {}
        scale, gate = self.modulation(state.cond["c"], call)
        return {n: x * (1 + scale) for n, x in inputs.items()}, {n: gate if self.open else gate.tanh() for n in self.streams}


class SandwichAttention(Sandwich):
    """`core` attends over `streams`."""

    name = "attention"

    def __init__(
        self, core: JointAttention | GatedAttention, streams: tuple[str, ...], width: int, width_c: int, eps: float, open: bool = False
    ) -> None:
        super().__init__(streams, width, width_c, eps, open)
        self.core = core

    def compute(self, inputs: Mapping[str, Tensor], state: State, site: Site, call: Call | None) -> dict[str, Tensor]:
        return {n: self.after(x) for n, x in self.core(inputs, state, site, call).items()}

    def describe(self, site: Site, prefix: str) -> SiteInfo:
        info = super().describe(site, prefix)
        units = self.core.units(f"{prefix}.core")
        return SiteInfo(site, self.streams, info.parameters, (units,), partial(self.core.cost, streams=self.streams))


class SandwichMLP(Sandwich):
    """`core` treats each token of `streams` by itself."""

    name = "mlp"

    def __init__(self, core: SwiGLU, streams: tuple[str, ...], width: int, width_c: int, eps: float, open: bool = False) -> None:
        super().__init__(streams, width, width_c, eps, open)
        self.core = core

    def compute(self, inputs: Mapping[str, Tensor], state: State, site: Site, call: Call | None) -> dict[str, Tensor]:
        return at_once(inputs, lambda x: self.after(self.core(x, call)))

    def describe(self, site: Site, prefix: str) -> SiteInfo:
        info = super().describe(site, prefix)
        core = self.core

        def cost(tokens: Mapping[str, int]) -> int:
            return sum(tokens[s] for s in self.streams) * core.cost

        return SiteInfo(site, self.streams, info.parameters, (core.units(f"{prefix}.core"),), cost)
