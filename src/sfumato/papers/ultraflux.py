"""UltraFlux (Ye et al., arXiv 2511.18050): rotary positions for pictures of other shapes, each side stretched by its own length.

The smoke check holds resonance, YaRN and the blend of the released code against the paper. Not built: the wavelet loss, the codec of twice
the reduction and the curriculum over noise levels, so the claim as a whole is not measured.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor

from ..nn.positions import Rotary
from ..nn.rope import RULES, Rule, Stretch, blended, by_parts, magnitude, ntk, plain, resonant, stretched
from .claims import Budget, Claim, Finding, Outcome, exact
from .inputs import gap

CLAIM = Claim(
    slug="ultraflux",
    title="UltraFlux: Data-Model Co-Design for High-quality Native 4K Text-to-Image Generation across Diverse Aspect Ratios",
    arxiv="2511.18050",
    statement="Rotary waves that turn a whole number of times within the trained side, blended by how often they do and stretched for each "
    "side apart, carry a transformer to 4K pictures of any shape.",
    budgets=("smoke",),
)
TRAINED = Stretch(56, 1.0, 64)  # FLUX's rows: 56 of 128 channels, 64 tokens a side
TWICE = Stretch(56, 2.0, 64)


def check(budget: Budget) -> Outcome:
    """The exact checks."""
    return Outcome((*resonance(), *stretching(), *shapes()))


def resonance() -> tuple[Finding, ...]:
    """Waves snapped to whole turns, as the code does it and as it is printed."""
    snapped, printed = resonant(TWICE)[0], _printed(TWICE)[0]
    trained = TWICE.trained
    phase, free = _phase(trained * snapped[:8]), _phase(trained * plain(TWICE)[0, :4])
    turns = (10.186, 7.331, 5.276, 3.797, 2.733, 1.967, 1.415, 1.019)
    return (
        exact("turns within 64 tokens of the first 8 waves", turns, TWICE.turns[0, :8].tolist(), 6e-4),
        exact("the same snapped", (10, 7, 5, 4, 3, 2, 1, 1), (trained * snapped[:8] / (2 * math.pi)).tolist(), 1e-12),
        exact("phase left over after 64 tokens, snapped", 0, float(phase.max()), 1e-12, "rad"),
        exact("phase left over after 64 tokens, first 4 waves as trained", (1.168, 2.078, 1.733, 1.276), free.tolist(), 6e-4, "rad"),
        exact("change of waves that turn less than once", 0, gap(snapped[8:], plain(TWICE)[0, 8:])),
        exact("distinct rates of 28, by the code and as printed", (27, 7), (len(snapped.unique()), len(printed.unique()))),
        exact("the slowest wave, printed over trained", 707, float(printed[-1] / plain(TWICE)[0, -1]), 0.5),
    )


def stretching() -> tuple[Finding, ...]:
    """YaRN as printed and the blend of the code, for twice the trained side."""
    mixed = by_parts(TWICE, 0.75, 1.25, of=resonant) / resonant(TWICE)
    rates, base = (rule(TWICE)[0] for rule in (blended, resonant))
    by_base = base ** (1 + 56 / 54 * math.log(2) / math.log(1e4))
    other = float((ntk(TWICE, 56 / 54) / plain(TWICE))[0, -1])
    return (
        exact("printed YaRN over snapped rates, first 8 waves", (1, 1, 1, 1, 1, 1, 0.75, 0.75), mixed[0, :8].tolist(), 1e-12),
        exact("blend: wave 0 as snapped, 5 and 6 by base, from 8 on halved: largest difference", 0, _parts(rates, base, by_base), 1e-15),
        exact("by base the slowest wave is slowed by the scale", 0.5, other, 1e-12),
        exact("at the trained side, largest change by blend, YaRN or resonant YaRN", 0, _unchanged("blended", "yarn", "resonant-yarn")),
        exact("magnitude at twice the side", 1.0693, magnitude(2.0), 5e-5),
    )


def shapes() -> tuple[Finding, ...]:
    """Every side by its own length: a wider picture leaves the rows alone."""
    rotary, t = Rotary((16, 56, 56)), torch.zeros(1)
    rates = partial(stretched, rotary, RULES["blended"], trained=64, t=t, apart=True)
    wide, square = (rates(grid=grid)[0] for grid in ((64, 128), (64, 64)))
    return (
        exact("change of time's and rows' rates when only the columns are stretched", 0, gap(wide[:36], square[:36])),
        exact("columns' rates and the blend's own", 0, gap(wide[36:], blended(TWICE)[0])),
    )


def _printed(axis: Stretch) -> Tensor:
    """Resonance as printed: at least one turn for every wave."""
    return 2 * math.pi * torch.floor(axis.turns + 0.5).clamp(min=1) / axis.trained


def _phase(angle: Tensor) -> Tensor:
    """How far from whole turns."""
    over = angle.remainder(2 * math.pi)
    return torch.minimum(over, 2 * math.pi - over)


def _parts(rates: Tensor, base: Tensor, by_base: Tensor) -> float:
    return max(gap(rates[:1], base[:1]), gap(rates[5:7], by_base[5:7]), gap(rates[8:], base[8:] / 2))


def _unchanged(*rules: str) -> float:
    found: list[Rule] = [RULES[name] for name in rules]
    return max(gap(rule(TRAINED), plain(TRAINED)) for rule in found)
