"""UniDiffuser (Bao et al., arXiv 2303.06555): one network for pictures, captions, either from the other, and both at once.

The smoke check holds what stands: the schedule, the two ways to write guidance, and the U-ViT that carries it, counted with the parts that
are added to it. Not built: two streams with a time each, the norm after the sum, the caption's latent and its decoder.
"""

from __future__ import annotations

import torch

from ..backbones import backbones
from ..backbones.uvit import UViTConfig
from ..core.discrete import Betas
from ..core.rng import Rows
from ..nn.rewires import Merge
from ..sampling.guidance import ClassifierFree
from .claims import Budget, Claim, Finding, Outcome, exact
from .inputs import gap

CLAIM = Claim(
    slug="unidiffuser",
    title="One Transformer Fits All Distributions in Multi-Modal Diffusion at Scale",
    arxiv="2303.06555",
    statement="One transformer with a noise level for each modality draws, captions, and does both at once about as well as a model each, "
    "and is its own unconditional model for guidance.",
    budgets=("smoke",),
)
WIDTH = 1536
SHAPE = UViTConfig(depth=30, width=WIDTH, heads=24, grid=32, words=77, text_width=64, smooth=False)


def check(budget: Budget) -> Outcome:
    """The exact checks of what stands."""
    return Outcome((*network(), *schedule(), *guidance()))


def network() -> tuple[Finding, ...]:
    """The published shape."""
    with torch.device("meta"):
        net = backbones.build(SHAPE)
    count = sum(p.numel() for p in net.parameters())
    # Beside a U-ViT's: the CLIP token's way in and out, the caption's way out, a norm after every skip, a time and a CLIP token's position.
    added = (512 * WIDTH + WIDTH) + (512 * WIDTH + 512) + (64 * WIDTH + 64) + 15 * 2 * WIDTH + 2 * WIDTH
    tokens = 2 + SHAPE.words + 1 + SHAPE.grid**2
    return (
        exact("parameters of the U-ViT and what is added", 952, (count + added) / 1e6, 1.0, "M"),
        exact("long skips", 15, sum(isinstance(item, Merge) for item in net.blocks)),
        exact("tokens: two times, caption, CLIP, patches", 1104, tokens),
    )


def schedule() -> tuple[Finding, ...]:
    """Stable Diffusion's betas: at t = T a little of the data is left, so what is to be ignored is not quite unheard."""
    betas = Betas("scaled_linear", 0.00085, 0.012)
    one, last = betas.step(torch.tensor([1 / 1000, 1.0], dtype=torch.float64)).tolist()
    return (
        exact("alpha_bar at t = T", 0.0047, float(betas.alpha_bars()[-1]), 5e-5),
        exact("first and last published index, counted from 1", (1, 1000), (one + 1, last + 1)),
    )


def guidance() -> tuple[Finding, ...]:
    """(1 + s) e - s u is ours at w = 1 + s; the unconditional answer is the same network's with noise in the other modality's place."""
    told, untold = Rows((0, 1)).normal((8,), "guidance")
    published = {s: (1 + s) * told - s * untold for s in (0.0, 3.0, 7.0)}
    off = max(gap(ClassifierFree(1 + s).combine({"cond": told, "uncond": untold}, 0.5), wanted) for s, wanted in published.items())
    same = max(gap(ClassifierFree(w).combine({"cond": told, "uncond": told}, 0.5), told) for w in (1.0, 4.0, 8.0))
    return (
        exact("guidance at s = 0, 3, 7 and ours at w = 1, 4, 8, largest difference", 0, off, 1e-5),
        exact("equal answers at any scale, largest change", 0, same, 1e-6),
        exact("share of the error that is the picture's when squares are summed", 0.7742, (16_384 + 512) / (16_384 + 512 + 77 * 64), 5e-5),
    )
