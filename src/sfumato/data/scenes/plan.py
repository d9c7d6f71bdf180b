"""From (seed, index, difficulty) to a scene: the content is drawn, the picture is cut into regions, and each group gets one.

Cuts leave gaps, so every pair of groups has one plain relation; an overlap is made on purpose only, and is then a relation itself.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from .cast import Cast
from .content import Content, Group, draw_content
from .description import Box, Object, Scene, Sign, compose, dice

MARGIN = 0.015
BOARDS = (("white", "black"), ("white", "red"), ("white", "blue"), ("yellow", "black"), ("green", "white"), ("blue", "white"))


@dataclass(frozen=True)
class Plan:
    """A scene and the regions left free in it, in which an edit can put something."""

    scene: Scene
    spare: tuple[Box, ...] = ()


def scene(cast: Cast, seed: int, index: int, difficulty: int = 3) -> Scene:
    """The scene (seed, index) of `cast` at `difficulty` 1 to 5: the same for ever, in any order, on any machine."""
    rng = dice(f"scene {difficulty}", seed, index)
    return arrange(cast, rng, draw_content(cast, rng, difficulty), difficulty).scene


def arrange(cast: Cast, rng: random.Random, content: Content, difficulty: int, spare: int = 0) -> Plan:
    """Give every group and the sign a region, and leave `spare` regions free."""
    groups = list(enumerate(content.groups))
    paired = content.overlap and len(groups) > 1 and groups[0][1].count == groups[1][1].count == 1
    shares = [1.6 if paired and i == 0 else math.sqrt(group.count) for i, group in groups if not (paired and i == 1)]
    shares += [1.0] * spare
    order = rng.sample(range(len(shares)), len(shares))
    sign, ground = put_sign(rng, content.word, (MARGIN, MARGIN, 1 - MARGIN, 1 - MARGIN))
    cut = cut_regions(rng, ground, [shares[i] for i in order])
    regions = [box for _, box in sorted(zip(order, cut, strict=True))]
    objects: list[Object] = []
    for number, group in groups:
        if paired and number == 1:
            continue
        region = regions.pop(0)
        placed = fill(cast, rng, group, number, region)
        front = overlapping(cast, rng, placed[0], groups[1][1], region) if paired and number == 0 else None
        if paired and number == 0 and front is None:  # the two shapes do not overlap well: side by side, then
            halves = cut_regions(rng, region, [1.0, 1.0])
            placed, front = fill(cast, rng, group, 0, halves[0]), fill(cast, rng, groups[1][1], 1, halves[1])[0]
        objects += placed if front is None else [*placed, front]
    return Plan(compose(objects, content.background, sign, difficulty), tuple(regions))


def cut_regions(rng: random.Random, box: Box, shares: Sequence[float]) -> list[Box]:
    """Cut `box` into one region per share, with straight cuts across the longer side, a little gap at each."""
    if len(shares) == 1:
        return [box]
    x0, y0, x1, y1 = box
    half = len(shares) // 2 if len(shares) > 2 else 1
    part = min(0.68, max(0.32, sum(shares[:half]) / sum(shares)))
    width, height = x1 - x0, y1 - y0
    across = rng.random() < 0.5 if abs(width - height) < 0.2 else width > height
    if across:
        middle = x0 + part * width
        first, second = (x0, y0, middle - MARGIN, y1), (middle + MARGIN, y0, x1, y1)
    else:
        middle = y0 + part * height
        first, second = (x0, y0, x1, middle - MARGIN), (x0, middle + MARGIN, x1, y1)
    return cut_regions(rng, first, shares[:half]) + cut_regions(rng, second, shares[half:])


def fill(cast: Cast, rng: random.Random, group: Group, number: int, region: Box) -> list[Object]:
    """The copies of a group in the grid that lets them be largest, each a little off its cell's middle."""
    x0, y0, x1, y1 = region
    aspect, count = cast.aspect(group.figure.drawing), group.count
    grids = [(columns, math.ceil(count / columns)) for columns in range(1, count + 1)]
    columns, rows = max(grids, key=lambda grid: min((x1 - x0) / grid[0], (y1 - y0) / grid[1] * aspect))
    width, height = (x1 - x0) / columns, (y1 - y0) / rows
    scale = rng.uniform(0.78, 0.94)
    w = min(width, height * aspect) * scale
    objects = []
    for k in range(count):
        row, column = divmod(k, columns)
        inset = (columns - min(columns, count - row * columns)) * width / 2  # an unfinished last row stands in the middle
        x = x0 + inset + column * width + rng.uniform(0.2, 0.8) * (width - w)
        y = y0 + row * height + rng.uniform(0.2, 0.8) * (height - w / aspect)
        objects.append(put(group, number, (x, y, x + w, y + w / aspect)))
    return objects


def put(group: Group, number: int, box: Box) -> Object:
    """One copy of a group in `box`; what stands lower in the picture is nearer."""
    figure = group.figure
    exact = tuple(round(edge, 4) for edge in box)
    return Object(
        figure.drawing, figure.concept, figure.style, number, (exact[0], exact[1], exact[2], exact[3]), nearness(exact[3]), group.colour
    )


def nearness(bottom: float) -> float:
    """The depth of a thing whose lower edge is at `bottom`: 0.2 far to 1 near."""
    return round(0.2 + 0.8 * min(1.0, max(0.0, bottom)), 4)


def overlapping(cast: Cast, rng: random.Random, back: Object, group: Group, region: Box) -> Object | None:
    """A copy of `group` that hides 12 to 45% of `back` and stays in `region`; None when a few tries find no place for it."""
    aspect = cast.aspect(group.figure.drawing)
    x0, y0, x1, y1 = back.box
    for _ in range(8):
        h = min((y1 - y0) * rng.uniform(0.5, 0.7), (x1 - x0) * 0.75 / aspect)
        w = h * aspect
        x = min(max(region[0], x0 + rng.uniform(0, 1) * (x1 - x0) - w / 2), region[2] - w)
        y = min(y1 - h * rng.uniform(0.5, 0.9), region[3] - h)
        front = put(group, 1, (x, y, x + w, y + h))
        if front.depth > back.depth and 0.12 <= hidden_share(cast, back, front) <= 0.45:
            return front
    return None


def hidden_share(cast: Cast, back: Object, front: Object, side: int = 64) -> float:
    """Which part of `back`'s silhouette `front` covers."""
    covers = []
    for thing in (back, front):
        x0, y0, x1, y1 = (round(edge * side) for edge in thing.box)
        alpha = Image.fromarray(cast.sprite(thing.drawing, "", cast.stored)[..., 3]).resize((max(1, x1 - x0), max(1, y1 - y0)))
        sheet = Image.new("L", (side, side))
        sheet.paste(alpha, (x0, y0))
        covers.append(np.asarray(sheet) >= 128)
    return float((covers[0] & covers[1]).sum() / max(1, covers[0].sum()))


def put_sign(rng: random.Random, word: str, box: Box) -> tuple[Sign | None, Box]:
    """A board with `word` along the top or the bottom of `box`, as wide as its letters ask, and what is left of `box`; no board for ""."""
    if not word:
        return None, box
    x0, y0, x1, y1 = box
    height = rng.uniform(0.17, 0.21)
    width = min(x1 - x0, height * (0.72 * len(word) + 0.7))
    x = x0 + rng.random() * (x1 - x0 - width)
    top = rng.random() < 0.5
    y = y0 if top else y1 - height
    rest = (x0, y0 + height + MARGIN, x1, y1) if top else (x0, y0, x1, y1 - height - MARGIN)
    board, ink = rng.choice(BOARDS)
    edges = tuple(round(edge, 4) for edge in (x, y, x + width, y + height))
    return Sign(word, (edges[0], edges[1], edges[2], edges[3]), nearness(edges[3]), ink, board), rest


def recoloured(things: Sequence[Object], colour: str) -> tuple[Object, ...]:
    """The same objects in another tint."""
    return tuple(replace(thing, colour=colour) for thing in things)
