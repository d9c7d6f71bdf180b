"""Branches over the picture's tokens alone, which families of one image stream share: how a core is called, counted and cut into units.

A family says how the core's inputs are prepared: which norm, whose modulation, what gate.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

from torch import Tensor, nn

from ..core.call import Call, Site
from ..core.program import Branch, SiteInfo
from ..core.state import State
from .attention import CrossAttention, JointAttention, PrefixAttention
from .linear import Linear
from .mlp import GLU, MLP, MixFFN

PICTURE = ("image",)


class Attending(Branch):
    """`core` reads the picture, itself or another stream."""

    streams = PICTURE
    core: JointAttention | CrossAttention | PrefixAttention

    def compute(self, inputs: Mapping[str, Tensor], state: State, site: Site, call: Call | None) -> Mapping[str, Tensor]:
        outputs: dict[str, Tensor] = self.core(inputs, state, site, call)
        return outputs

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
    core: MLP | GLU | MixFFN

    def describe(self, site: Site, prefix: str) -> SiteInfo:
        info = super().describe(site, prefix)

        def cost(tokens: Mapping[str, int]) -> int:
            return tokens["image"] * self.core.cost

        return SiteInfo(site, self.streams, info.parameters, (self.core.units(f"{prefix}.core"),), cost)


class PictureMLP(PictureMixer):
    """`core` treats each token by itself."""

    core: MLP | GLU

    def compute(self, inputs: Mapping[str, Tensor], state: State, site: Site, call: Call | None) -> dict[str, Tensor]:
        return {"image": self.core(inputs["image"], call)}


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
