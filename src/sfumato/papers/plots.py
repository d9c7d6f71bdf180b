"""Line charts with intervals as plain SVG: no plotting library, a few kilobytes, the same bytes for the same numbers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..core.files import write_bytes
from ..evaluate.svg import COLOURS, text

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 380, 250, 58, 14, 34, 40


@dataclass(frozen=True)
class Line:
    """`points`: (value, low, high) at each x of the panel, None where there is none."""

    name: str
    points: Sequence[tuple[float, float, float] | None]


@dataclass(frozen=True)
class Panel:
    """`x`: evenly spaced labels."""

    title: str
    x: Sequence[str]
    x_title: str
    lines: Sequence[Line]


def chart(panels: Sequence[Panel], path: Path, columns: int = 2) -> Path:
    """Write all panels, `columns` side by side, into the SVG `path`."""
    rows = -(-len(panels) // columns)
    width, height = WIDTH * min(columns, len(panels)), HEIGHT * rows
    placed = [
        f'<g transform="translate({WIDTH * (i % columns)} {HEIGHT * (i // columns)})">{_panel(panel)}</g>' for i, panel in enumerate(panels)
    ]
    head = f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    font = 'font-family="DejaVu Sans, Helvetica, Arial, sans-serif" font-size="11"'
    paper = f'<rect width="{width}" height="{height}" fill="white"/>'
    write_bytes(path, "\n".join([f"{head} {font}>", paper, *placed, "</svg>", ""]).encode())
    return path


def _panel(panel: Panel) -> str:
    seen = [number for line in panel.lines for point in line.points if point for number in point if number == number]
    low, high = (min(seen), max(seen)) if seen else (0.0, 1.0)
    margin = 0.08 * (high - low) or 0.5 * abs(high) or 0.5
    low, high = low - margin, high + margin
    inner_width, inner_height = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM

    def across(i: float) -> float:
        return LEFT + inner_width * (i + 0.5) / len(panel.x)

    def up(value: float) -> float:
        return TOP + inner_height * (high - value) / (high - low)

    parts = [text(LEFT, 14, panel.title, "start", "font-weight='bold'"), text(LEFT + inner_width / 2, HEIGHT - 8, panel.x_title)]
    for k in range(5):
        value = low + (high - low) * k / 4
        parts.append(f'<path d="M{LEFT} {up(value):.1f}H{WIDTH - RIGHT}" stroke="#ddd"/>')
        parts.append(text(LEFT - 5, up(value) + 4, f"{value:.3g}", "end"))
    parts += [text(across(i), HEIGHT - BOTTOM + 14, label) for i, label in enumerate(panel.x)]
    for number, line in enumerate(panel.lines):
        colour = COLOURS[number % len(COLOURS)]
        # Arms stand a little apart so that their intervals do not hide each other.
        at = [(across(i + 0.06 * (number - (len(panel.lines) - 1) / 2)), point) for i, point in enumerate(line.points) if point]
        joined = " ".join(f"{x:.1f},{up(point[0]):.1f}" for x, point in at)
        parts.append(f'<polyline points="{joined}" fill="none" stroke="{colour}" stroke-width="1.6"/>')
        parts += [f'<path d="M{x:.1f} {up(p[1]):.1f}V{up(p[2]):.1f}" stroke="{colour}"/>' for x, p in at if p[1] == p[1]]
        parts += [f'<circle cx="{x:.1f}" cy="{up(point[0]):.1f}" r="2.6" fill="{colour}"/>' for x, point in at]
        parts.append(text(LEFT + 110 * number, 28, f"● {line.name}", "start", f"fill='{colour}'"))
    return "".join(parts)
