"""Branches, most over the picture's tokens alone, that families share: how a core is called, counted and cut into units.

A family says how the core's inputs are prepared: which norm, whose modulation, what gate.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import Tensor, nn

from ..core.blocks import Branch, SiteInfo
from ..core.call import Call, Site
from ..core.state import Pair, State, Stream
from .attention import CrossAttention, JointAttention, PrefixAttention
from .expert_choice import ExpertChoice
from .linear import Linear
from .mlp import GLU, MLP, MixFFN
from .modulation import Modulation, TableModulation, modulate
from .projections import at_once

PICTURE: tuple[str, ...] = ("image",)


class Attending(Branch):
    """`core` reads the picture, itself or another stream."""

    streams = PICTURE
    core: JointAttention | CrossAttention | PrefixAttention

    def compute(self, inputs: Mapping[str, Tensor], state: State, site: Site, call: Call | None) -> Mapping[str, Tensor]:
        outputs: dict[str, Tensor] = self.core(inputs, state, site, call)
        return outputs

    def stored(self, streams: Mapping[str, Stream]) -> Pair | None:
        if isinstance(self.core, JointAttention) or self.core.source not in streams:
            return None
        return self.core.heard(streams[self.core.source].x)

    def describe(self, site: Site, prefix: str) -> SiteInfo:
        info = super().describe(site, prefix)
        units = self.core.units(f"{prefix}.core")
        return SiteInfo(site, self.streams, info.parameters, (units,), partial(self.core.cost, streams=self.streams))


class PictureAttention(Attending):
    """The picture attends to itself."""

    name = "attention"


class PictureCross(Attending):
    """The picture reads the text, without a gate; by default without a norm (PixArt, arXiv 2310.00426)."""

    name = "cross"
    core: CrossAttention

    def __init__(self, core: CrossAttention, norm: nn.Module | None = None) -> None:
        super().__init__()
        self.norm = norm or nn.Identity()
        self.core = core

    def prepare(self, state: State, call: Call | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return {"image": self.norm(state["image"])}, {}


class PictureMixer(Branch):
    """`core` mixes the channels of each token, with its neighbours' or without; a family says how it is called."""

    name = "mlp"
    streams = PICTURE
    core: MLP | GLU | MixFFN | ExpertChoice

    def describe(self, site: Site, prefix: str) -> SiteInfo:
        info = super().describe(site, prefix)

        def cost(tokens: Mapping[str, int]) -> int:
            return sum(tokens.get(s, 0) for s in self.streams) * self.core.cost

        return SiteInfo(site, self.streams, info.parameters, (self.core.units(f"{prefix}.core"),), cost)


class PictureMLP(PictureMixer):
    """`core` treats each token by itself; experts that choose do so among the tokens of all `streams`."""

    core: MLP | GLU | ExpertChoice

    def compute(self, inputs: Mapping[str, Tensor], state: State, site: Site, call: Call | None) -> dict[str, Tensor]:
        return at_once(inputs, lambda x: self.core(x, call))


class PlainAttention(Attending):
    """x += core(norm(x)) for `streams`, without modulation."""

    name = "attention"

    def __init__(self, core: JointAttention, norm: nn.Module, streams: tuple[str, ...]) -> None:
        super().__init__()
        self.norm, self.core, self.streams = norm, core, streams

    def prepare(self, state: State, call: Call | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return {n: self.norm(state[n]) for n in self.streams}, {}


class PlainMLP(PictureMLP):
    """The same of an MLP."""

    def __init__(self, core: MLP | GLU | ExpertChoice, norm: nn.Module, streams: tuple[str, ...]) -> None:
        super().__init__()
        self.norm, self.core, self.streams = norm, core, streams

    def prepare(self, state: State, call: Call | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return {n: self.norm(state[n]) for n in self.streams}, {}


class ModulatedAttention(PictureAttention):
    """x += gate(c) * core(mod(norm(x), c)), adaLN-zero (Peebles and Xie, arXiv 2212.09748); `modulation` gives shift, scale and gate."""

    def __init__(self, core: JointAttention, norm: nn.Module, modulation: Modulation) -> None:
        super().__init__()
        self.norm, self.modulation, self.core = norm, modulation, core

    def prepare(self, state: State, call: Call | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return _modulated(self.norm, self.modulation, state, call)


class ModulatedMLP(PictureMLP):
    """The same of an MLP."""

    def __init__(self, core: MLP | GLU | ExpertChoice, norm: nn.Module, modulation: Modulation) -> None:
        super().__init__()
        self.norm, self.modulation, self.core = norm, modulation, core

    def prepare(self, state: State, call: Call | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return _modulated(self.norm, self.modulation, state, call)


class Tabled(Branch):
    """x += gate * core(mod(norm(x))), shift, scale and gate being rows of a table of the branch's own added to what all blocks share,
    `State.cond["t0"]` (B, 6, D), `vectors` of them (PixArt; Chen et al., arXiv 2310.00426, "adaLN-single").
    """

    vectors = slice(0, 3)

    def __init__(self, norm: nn.Module, width: int) -> None:
        super().__init__()
        self.norm, self.modulation = norm, TableModulation(width, 3)

    def prepare(self, state: State, call: Call | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        shift, scale, gate = self.modulation(state.cond["t0"][:, self.vectors])
        return {"image": modulate(self.norm(state["image"]), shift, scale)}, {"image": gate}


def _modulated(norm: nn.Module, modulation: Modulation, state: State, call: Call | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    shift, scale, gate = modulation(state.cond["c"], call)
    return {"image": modulate(norm(state["image"]), shift, scale)}, {"image": gate}


def initialise_crossed(net: nn.Module, final: Linear) -> None:
    """Xavier for matrices, 0.02 for embeddings and shared projections, zero for what leaves cross-attention and the network (`final`)."""
    for module in net.modules():
        if isinstance(module, Linear):
            if module.role in ("modulation", "embed"):
                nn.init.normal_(module.weight, std=0.02)
            else:
                nn.init.xavier_uniform_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    # A module comes before its parts, so what starts closed is closed last.
    for module in net.modules():
        if isinstance(module, CrossAttention):
            nn.init.zeros_(module.out.weight)
    nn.init.zeros_(final.weight)
