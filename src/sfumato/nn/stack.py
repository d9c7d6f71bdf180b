"""A stack of transformer blocks inside a U-Net (Rombach et al., arXiv 2112.10752): x += Out(blocks(In(GN(x)))).

`Enter` remembers x and goes in; the blocks are items of the program like any others; `Leave` is a branch that adds what came out to what
was remembered, so that a policy sees the stack's whole contribution and may replace it.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from ..core.blocks import Block, Branch, Rewire, SiteInfo
from ..core.call import Call, Site
from ..core.state import State
from .attention import CrossAttention, JointAttention, PrefixAttention
from .linear import Linear
from .mlp import GEGLU
from .norms import GroupNorm
from .picture import PICTURE, PictureAttention, PictureCross, PlainAttention, PlainMLP
from .projections import AttentionShape

# The norm before a stack has an eps of its own in every published U-Net, whatever the others'.
EPS = 1e-6


class Enter(Rewire):
    """x is remembered, and becomes W GN(x) + b."""

    def __init__(self, width: int, groups: int) -> None:
        super().__init__()
        self.norm, self.linear = GroupNorm(groups, width, EPS), Linear(width, width, "in")

    def forward(self, state: State, call: Call | None = None) -> State:
        return state.push("image").with_x({"image": self.linear(self.norm(state["image"]), call)})

    def describe(self, prefix: str) -> tuple[SiteInfo, ...]:
        each = self.linear.in_features**2
        names = tuple(f"{prefix}.{n}" for n, _ in self.named_parameters())
        return (SiteInfo(Site(self.index, "linear"), PICTURE, names, (), lambda tokens: tokens["image"] * each),)


class Leave(Branch):
    """x = what was remembered + W x + b."""

    name = "stack"
    streams = PICTURE
    recalls = True

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = Linear(width, width, "out")

    def carry(self, state: State, call: Call | None) -> State:
        state, skip = state.pop()
        return state.attach("image", skip["image"])

    def prepare(self, state: State, call: Call | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return {"image": state["image"]}, {}

    def compute(self, inputs: Mapping[str, Tensor], state: State, site: Site, call: Call | None) -> dict[str, Tensor]:
        return {"image": self.linear(inputs["image"], call)}

    def describe(self, site: Site, prefix: str) -> SiteInfo:
        each = self.linear.in_features**2
        names = super().describe(site, prefix).parameters
        return SiteInfo(site, PICTURE, names, (), lambda tokens: tokens["image"] * each)


class PrefixBranch(PictureAttention):
    """x += Attention(GN(x)), the text's keys and values before the picture's own: a block by itself, without a stack around it."""

    def __init__(self, shape: AttentionShape, text_width: int, groups: int) -> None:
        super().__init__()
        self.norm = GroupNorm(groups, shape.width)
        self.core = PrefixAttention(shape, "image", "text", text_width)

    def prepare(self, state: State, call: Call | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return {"image": self.norm(state["image"]), "text": state["text"]}, {}


def layer(width: int, heads: int, text_width: int) -> Block:
    """A block of a stack, each part behind a LayerNorm: self-attention, cross-attention, a GEGLU four times as wide inside."""
    shape = AttentionShape(width, heads, qk_norm=False, bias=False)
    return Block(
        PlainAttention(JointAttention(shape, PICTURE), nn.LayerNorm(width), PICTURE),
        PictureCross(CrossAttention(shape, "text", text_width), nn.LayerNorm(width)),
        PlainMLP(GEGLU(width, 4 * width), nn.LayerNorm(width), PICTURE),
    )
