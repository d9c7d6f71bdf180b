"""A cast of plain shapes, drawn by code: rules about scenes can be checked where no drawings are at hand, and in a moment."""

from __future__ import annotations

import colorsys
import math
from typing import Any

from ..packages import TRAINABLE
from ..records import TableRecords
from ..render import rasterise
from ..sources import Source
from .cast import SUBGROUPS, Cast

SIZE = 64


def shapes(things: int = 21, styles: tuple[str, ...] = ("round", "sharp")) -> Cast:
    """Up to 26 things ("a-shape", "b-shape", ...), each of its own subgroup, colour and number of corners; `SIZE` pixels as stored."""
    import pyarrow as pa

    rows: list[dict[str, Any]] = []
    for i in range(things):
        name = f"{chr(97 + i)}-shape"
        for style in styles:
            svg = _svg(i, things, style == styles[0])
            named = {"id": f"{style}/{name}", "concept": name, "style": style, "subgroup": SUBGROUPS[i], "skin_tone": "", "split": "train"}
            rows.append({**named, "licence": TRAINABLE[0], "svg": svg, "width": SIZE, "captions": [name], "image": rasterise(svg, SIZE)})
    return Cast(Source(TableRecords(pa.Table.from_pylist(rows), "shapes"), range(len(rows)), SIZE, (255, 255, 255), {}), "shapes")


def _svg(i: int, things: int, rounded: bool) -> str:
    corners = 3 + i % 5
    # Every second corner lies inwards by as much as the thing's number says: from a polygon to a star.
    reach = [48.0 if k % 2 == 0 else 48.0 - 7 * (i % 4) for k in range(2 * corners)]
    angles = [math.pi * k / corners for k in range(2 * corners)]
    points = " ".join(f"{50 + r * math.sin(a):.1f},{50 - r * math.cos(a):.1f}" for r, a in zip(reach, angles, strict=True))
    colour = "#" + "".join(f"{round(255 * part):02x}" for part in colorsys.hsv_to_rgb(i / things, 0.9, 0.85))
    join = "round" if rounded else "miter"
    path = f'<polygon points="{points}" fill="{colour}" stroke="{colour}" stroke-width="4" stroke-linejoin="{join}"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 100 100">{path}</svg>'
