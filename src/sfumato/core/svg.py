"""Plain SVG without a plotting library: what charts of several rooms share. The same numbers give the same bytes."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

COLOURS = ("#1f5fa8", "#c4500f", "#2e7d4f", "#7b4ea3", "#b3922a", "#7f8790")
FONT = 'font-family="DejaVu Sans, Helvetica, Arial, sans-serif" font-size="11"'


def document(width: float, height: float, parts: Iterable[str]) -> str:
    """A white page of this size with `parts` on it."""
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    return "\n".join([f"{head} {FONT}>", f'<rect width="{width}" height="{height}" fill="white"/>', *parts, "</svg>", ""])


def label(x: float, y: float, text: str, anchor: str = "middle", more: str = "") -> str:
    """A line of text; `anchor` "start", "middle" or "end"; `more`: further attributes."""
    return f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" {more}>{escape(text)}</text>'


def shifted(x: float, y: float, part: str) -> str:
    """`part` moved to (x, y)."""
    return f'<g transform="translate({x} {y})">{part}</g>'


def si(value: float, unit: str = "") -> str:
    """A number as people read it: 1.24 G, 320 k, 0.5."""
    for factor, prefix in ((1e15, "P"), (1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= factor:
            return f"{value / factor:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}".rstrip()
