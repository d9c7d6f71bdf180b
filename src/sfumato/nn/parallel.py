"""Transformer blocks whose branches stand side by side behind one norm (Wang and Komatsuzaki's GPT-J; with cross-attention: AsCAN, arXiv
2411.04967).

    y = LN(GELU(x))        x += SelfAttention(y) [+ CrossAttention(y, text)] + MLP(y)
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import gelu

from ..core.attention import Rotate
from ..core.blocks import Block, Branch
from ..core.call import Call
from ..core.state import State
from .attention import CrossAttention, JointAttention
from .mlp import MLP
from .picture import PICTURE, Attending, PictureMLP
from .projections import AttentionShape

Prepared = tuple[dict[str, Tensor], dict[str, Tensor]]


class First(Attending):
    """Self-attention, whose norm serves the others too. `activated`: GELU comes before the norm, as printed in AsCAN."""

    name = "attention"

    def __init__(self, core: JointAttention, width: int, streams: tuple[str, ...], activated: bool) -> None:
        super().__init__()
        self.norm, self.core, self.streams, self.activated = nn.LayerNorm(width), core, streams, activated

    def prepare(self, state: State, call: Call | None) -> Prepared:
        return {n: self.norm(gelu(state[n]) if self.activated else state[n]) for n in self.streams}, {}


class Beside(Branch):
    """Reads what the self-attention of its group reads."""

    reads = "attention"

    def prepare(self, state: State, call: Call | None) -> Prepared:
        return {n: state.cond[f"attention.{n}"] for n in self.streams}, {}


class CrossBeside(Beside, Attending):
    name = "cross"

    def __init__(self, core: CrossAttention) -> None:
        super().__init__()
        self.core = core


class MLPBeside(Beside, PictureMLP):
    def __init__(self, core: MLP, streams: tuple[str, ...]) -> None:
        super().__init__()
        self.core, self.streams = core, streams


def parallel(
    shape: AttentionShape,
    hidden: int,
    streams: tuple[str, ...] = PICTURE,
    text_width: int = 0,
    rotate: Rotate | None = None,
    activated: bool = True,
) -> Block:
    """A block of `streams`, which share weights. `text_width`: of the text that is read; 0 = none is."""
    branches: list[Branch] = [First(JointAttention(shape, streams, rotate=rotate), shape.width, streams, activated)]
    if text_width:
        branches.append(CrossBeside(CrossAttention(shape, "text", text_width)))
    return Block((*branches, MLPBeside(MLP(shape.width, hidden, "none"), streams)))
