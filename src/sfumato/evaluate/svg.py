"""Two figures as plain SVG: a radar of skills, and quality against cost. No plotting library; the same bytes for the same numbers."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ..core.svg import COLOURS, document, label
from .metrics import Score

SIZE, RADIUS = 380, 120
# A radar's names stand beside it, up to 18 letters.
WIDE = 540


@dataclass(frozen=True)
class Spot:
    """One model on a plane of cost and quality; `quality` in [0, 1] with its interval."""

    name: str
    cost: float
    quality: Score


def radar(axes: Sequence[str], series: Mapping[str, Sequence[Score]]) -> str:
    """Rates in [0, 1] on each of `axes`, three or more, one polygon a series, intervals as spokes; "" with fewer axes."""
    if len(axes) < 3:
        return ""
    across, down = WIDE / 2, SIZE / 2

    def at(axis: int, value: float) -> str:
        angle = 2 * math.pi * axis / len(axes) - math.pi / 2
        return f"{across + RADIUS * value * math.cos(angle):.1f},{down + RADIUS * value * math.sin(angle):.1f}"

    parts = []
    for ring in (0.25, 0.5, 0.75, 1.0):
        parts.append(f'<polygon points="{" ".join(at(i, ring) for i in range(len(axes)))}" fill="none" stroke="#ddd"/>')
        parts.append(label(across + 3, down - RADIUS * ring - 2, f"{ring:.0%}", "start", "fill='#888' font-size='9'"))
    for i, name in enumerate(axes):
        parts.append(f'<path d="M{at(i, 0)}L{at(i, 1)}" stroke="#ddd"/>')
        x, y = map(float, at(i, 1.16).split(","))
        side = "middle" if abs(x - across) < 8 else "start" if x > across else "end"
        parts.append(label(x, y + 4, name if len(name) <= 18 else f"{name[:17]}…", side))
    for number, (name, scores) in enumerate(series.items()):
        colour = COLOURS[number % len(COLOURS)]
        points = " ".join(at(i, score.value) for i, score in enumerate(scores))
        parts.append(f'<polygon points="{points}" fill="{colour}" fill-opacity="0.08" stroke="{colour}" stroke-width="1.6"/>')
        parts += [f'<path d="M{at(i, s.low)}L{at(i, s.high)}" stroke="{colour}" stroke-opacity="0.6"/>' for i, s in enumerate(scores)]
        parts.append(label(10, 16 + 15 * number, f"● {name}", "start", f"fill='{colour}'"))
    return document(WIDE, SIZE, parts)


def pareto(spots: Sequence[Spot], cost: str, quality: str) -> str:
    """Quality against cost, intervals as bars; models that no other beats in both are joined. "" with fewer than two."""
    if len(spots) < 2:
        return ""
    left, right, bottom, width = 52, 16, 42, SIZE
    # Names stand above the plane: models of one kind lie close together.
    top = 26 + 15 * len(spots)
    height = top + 256
    most = max(spot.cost for spot in spots) * 1.15 or 1.0

    def place(cost: float, quality: float) -> tuple[float, float]:
        return left + (width - left - right) * cost / most, top + (height - top - bottom) * (1 - quality)

    parts = [label(left + (width - left - right) / 2, height - 6, cost), label(left, top - 8, quality, "start")]
    for k in range(5):
        x, y = place(most * k / 4, k / 4)
        parts.append(f'<path d="M{left} {y:.1f}H{width - right}M{x:.1f} {top}V{height - bottom}" stroke="#eee"/>')
        parts += [label(left - 5, y + 4, f"{k / 4:.0%}", "end"), label(x, height - bottom + 14, f"{most * k / 4:.3g}")]
    front = sorted((s for s in spots if not any(_beats(o, s) for o in spots)), key=lambda s: s.cost)
    joined = " ".join("{:.1f},{:.1f}".format(*place(s.cost, s.quality.value)) for s in front)
    parts.append(f'<polyline points="{joined}" fill="none" stroke="#999" stroke-dasharray="4 3"/>')
    for number, spot in enumerate(spots):
        colour = COLOURS[number % len(COLOURS)]
        (x, low), (_, high), (_, y) = (place(spot.cost, q) for q in (spot.quality.low, spot.quality.high, spot.quality.value))
        parts.append(
            f'<path d="M{x:.1f} {low:.1f}V{high:.1f}" stroke="{colour}"/><circle cx="{x:.1f}" cy="{y:.1f}" r="4" fill="{colour}"/>'
        )
        parts.append(label(10, 16 + 15 * number, f"● {spot.name}", "start", f"fill='{colour}'"))
    return document(width, height, parts)


def _beats(a: Spot, b: Spot) -> bool:
    """Whether a is no worse in either and better in one."""
    better = a.cost < b.cost or a.quality.value > b.quality.value
    return better and a.cost <= b.cost and a.quality.value >= b.quality.value
