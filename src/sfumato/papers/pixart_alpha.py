"""PixArt-alpha (Chen et al., arXiv 2310.00426): one modulation for all blocks, text by cross-attention, begun from a DiT of classes.

The smoke check holds the network, its start and the way from a dense modulation to the shared one against the paper. The claim about
quality and training cost is not measured: it needs a class-conditional DiT to begin with and far more training than a CPU gives.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from ..backbones.dit import DiT, DiTConfig
from ..backbones.dit import tiny as tiny_dit
from ..backbones.pixart import PixArt, PixArtConfig, tiny
from ..core.conditions import Conditions, Tokens
from ..core.discrete import Betas
from ..nn.positions import corner_coordinates
from .claims import Budget, Claim, Finding, Outcome, exact
from .inputs import asked, gap, parameters

CLAIM = Claim(
    slug="pixart-alpha",
    title="PixArt-α: Fast Training of Diffusion Transformer for Photorealistic Text-to-Image Synthesis",
    arxiv="2310.00426",
    statement="A class-conditional DiT becomes a text-to-image model at a tenth of the usual cost when one modulation with a small table "
    "for each block replaces the blocks' own, text enters by cross-attention that starts closed, and captions are dense.",
    budgets=("smoke",),
)
# side in tokens, base side, scale -> last position, spacing
GRIDS = {(16, 16, 0.5): (30, 2), (32, 32, 1.0): (31, 1), (64, 64, 2.0): (31.5, 0.5), (96, 64, 2.0): (31 + 2 / 3, 1 / 3)}


def check(budget: Budget) -> Outcome:
    """The exact checks."""
    return Outcome((*sizes(), *start(), *from_dit(), *schedule()))


def sizes() -> tuple[Finding, ...]:
    """Parameters of the published network and of what it replaces; positions of the trained sizes."""
    with torch.device("meta"):
        net, dense = PixArt(PixArtConfig()), DiT(DiTConfig())
    ends = [corner_coordinates(count, base / scale) for count, base, scale in GRIDS]
    block, modulations = (sum(p.numel() for p in module.parameters()) for module in (net.blocks[0], _modulations(dense)))
    return (
        exact("parameters", 610_856_096, sum(p.numel() for p in net.parameters())),
        exact("parameters with sizes and aspect ratio", 611_349_152, parameters(PixArtConfig(sizes=True))),
        exact("parameters of a block", 21_255_552, block),
        exact("parameters of 28 blocks' own modulations, which one replaces", 223_147_008, modulations),
        exact(
            f"last position at {', '.join(str(n) for n, _, _ in GRIDS)} tokens",
            [v[0] for v in GRIDS.values()],
            [float(x[-1]) for x in ends],
            1e-5,
        ),
        exact("spacing there", [v[1] for v in GRIDS.values()], [float(x[1] - x[0]) for x in ends], 1e-5),
    )


@torch.no_grad()
def start() -> tuple[Finding, ...]:
    """A new network answers 0 and does not hear the caption; padding is never heard."""
    torch.manual_seed(0)
    new, alive = PixArt(PixArtConfig(depth=2, width=24, heads=2, text_width=12, span=4.0)), tiny()
    zero = max(float(p.abs().max()) for p in new(*asked(new)).pred.values())
    nn.init.normal_(new.final.weight)
    (streams, cond), (_, other) = asked(new), asked(new, seed=1)
    deaf = gap(*(new(streams, c).pred["image"] for c in (cond, other)))
    hears = gap(*(alive(streams, c).pred["image"] for c in (cond, other)))
    padded, garbage = (Conditions({"text": _padded(cond.tokens["text"], value)}) for value in (0.0, 1e6))
    unheard = gap(*(alive(streams, c).pred["image"] for c in (padded, garbage)))
    return (
        exact("a new network answers 0, largest value", 0, zero),
        exact("with a head that is not 0, the answers to two captions differ by", 0, deaf),
        Finding("once cross-attention is open: the same", "above 0", hears, hears > 0),
        exact("change of the answer when padding is garbage", 0, unheard),
    )


@torch.no_grad()
def from_dit() -> tuple[Finding, ...]:
    """E_i = S_i(t) - t0(t): at that t the shared modulation with its tables is the DiT's own, in all blocks; elsewhere it is not."""
    dit, net = tiny_dit(), tiny()
    net.time.load_state_dict(dit.time.state_dict())
    vectors = {t: [_vectors(dit, i, t) for i in range(len(dit.blocks))] for t in (0.5, 0.6)}
    for block, wanted in zip(net.blocks, vectors[0.5], strict=True):
        for branch, table in zip(_branches(block), (wanted - _shared(net, 0.5)[0]).chunk(2), strict=True):
            branch.modulation.table.copy_(table)
    off = {t: max(gap(_ours(net, i, t), wanted) for i, wanted in enumerate(vectors[t])) for t in vectors}
    return (
        exact("blocks' modulation and the DiT's at the chosen t, largest difference", 0, off[0.5], 1e-6),
        Finding("the same at another t", "above 0.001", off[0.6], off[0.6] > 1e-3),
    )


def schedule() -> tuple[Finding, ...]:
    """What is left of the data at the last step and in the middle."""
    alpha_bar = Betas("linear").alpha_bars()
    return (
        exact("alpha_bar of the last step of the linear schedule", 4.04e-5, float(alpha_bar[999]), 5e-8),
        exact("alpha_bar of step 500", 0.0778, float(alpha_bar[500]), 5e-5),
    )


def _branches(block: Any) -> tuple[Any, Any]:
    """The two branches of a block that are modulated."""
    return block.attention, block.mlp


def _modulations(net: DiT) -> nn.ModuleList:
    return nn.ModuleList([branch.modulation for block in net.blocks for branch in _branches(block)])


def _vectors(net: DiT, block: int, t: float) -> Tensor:
    """(6, D): what the block of a DiT modulates by at t, without a class."""
    c = net.time(torch.tensor([t]), None)
    return torch.cat([vector[0] for branch in _branches(net.blocks[block]) for vector in branch.modulation(c, None)])


def _shared(net: PixArt, t: float) -> Tensor:
    """(1, 6, D): what all blocks' tables are added to."""
    return net.shared(silu(net.time(torch.tensor([t]), None)), None).unflatten(-1, (6, -1))


def _ours(net: PixArt, block: int, t: float) -> Tensor:
    """(6, D): what the block of a PixArt modulates by at t."""
    halves = _shared(net, t).chunk(2, dim=1)
    found = [branch.modulation(half) for branch, half in zip(_branches(net.blocks[block]), halves, strict=True)]
    return torch.cat([vector[0] for vectors in found for vector in vectors])


def _padded(text: Tokens, value: float) -> Tokens:
    longer = text.pad_to(text.states.shape[1] + 3)
    return Tokens(longer.states.masked_fill(~longer.keep[..., None], value), longer.keep)
