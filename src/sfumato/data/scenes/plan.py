"""From (seed, index, difficulty) to a scene: what is in it is drawn first, then the picture is cut into regions and each group gets one.

Cuts leave gaps, so every pair of groups has one plain relation; an overlap is made on purpose only, and is then a relation itself.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image

from sfumato.core.errors import UnknownNameError

from .cast import Cast, Figure
from .colours import GROUNDS, SOFT
from .description import Background, Box, Object, Scene, Sign, compose, dice
from .lettering import WORDS

MARGIN = 0.015
BOARDS = (("white", "black"), ("white", "red"), ("white", "blue"), ("yellow", "black"), ("green", "white"), ("blue", "white"))


@dataclass(frozen=True)
class Level:
    """How hard a scene is: how many groups and objects, and how often there is a tint, a sign, an overlap, a mixture of styles."""

    groups: tuple[int, int]
    objects: int
    backgrounds: tuple[str, ...]
    colour: float = 0.0
    sign: float = 0.0
    overlap: float = 0.0
    mixed: float = 0.0


LEVELS: Mapping[int, Level] = {
    1: Level((1, 1), 1, ("plain",)),
    2: Level((1, 2), 2, ("plain",), colour=0.3),
    3: Level((1, 3), 4, ("plain", "fade"), colour=0.4, sign=0.25),
    4: Level((2, 4), 6, ("plain", "fade", "ground", "stripes"), colour=0.4, sign=0.4, overlap=0.4, mixed=0.3),
    5: Level((3, 4), 9, ("plain", "fade", "ground", "stripes"), colour=0.5, sign=0.5, overlap=0.6, mixed=0.6),
}


@dataclass(frozen=True)
class Group:
    """`count` copies of a figure, tinted `colour` ("" = as drawn)."""

    figure: Figure
    count: int = 1
    colour: str = ""


@dataclass(frozen=True)
class Content:
    """What is in a scene before it has a place. `overlap`: whether the second group stands in front of the first, where it can."""

    groups: tuple[Group, ...]
    word: str
    background: Background
    overlap: bool = False


@dataclass(frozen=True)
class Plan:
    """A scene and the regions left free in it, in which an edit can put something."""

    scene: Scene
    spare: tuple[Box, ...] = ()


def level_of(difficulty: int) -> Level:
    """Raises `UnknownNameError` unless there is such a level."""
    if difficulty not in LEVELS:
        raise UnknownNameError("difficulty", str(difficulty), map(str, LEVELS))
    return LEVELS[difficulty]


def scene(cast: Cast, seed: int, index: int, difficulty: int = 3) -> Scene:
    """The scene (seed, index) of `cast` at `difficulty` 1 to 5: the same for ever, in any order, on any machine."""
    rng = dice(f"scene {difficulty}", seed, index)
    return arrange(cast, rng, draw_content(cast, rng, difficulty), difficulty).scene


def draw_content(cast: Cast, rng: random.Random, difficulty: int, *, least: int = 1, keep: Sequence[Group] = ()) -> Content:
    """Groups of distinct concepts (first those of `keep`), at least `least` of them, a word or none, and a background.

    Nine samples of ten use training drawings only; the tenth may hold any, and its split follows (`split_of_scenes`).
    """
    level = level_of(difficulty)
    usable = familiar if rng.random() < 0.9 else anything
    many = max(least, len(keep), rng.randint(*level.groups))
    room = max(level.objects, many) - sum(group.count for group in keep)
    mixed = rng.random() < level.mixed
    style = keep[0].figure.style if keep else rng.choice(cast.styles)
    groups, taken = list(keep), {group.figure.concept for group in keep}
    while len(groups) < many:
        figure = pick_figure(cast, rng, usable, None if mixed else style, taken)
        taken.add(figure.concept)
        most = max(1, min(4, room - (many - len(groups) - 1)))
        count = rng.choice([1, 1, *range(1, most + 1)])
        room -= count
        tints = cast.tints(figure.concept)
        groups.append(Group(figure, count, rng.choice(tints) if tints and rng.random() < level.colour else ""))
    word = rng.choice(WORDS) if rng.random() < level.sign else ""
    return Content(tuple(groups), word, draw_background(rng, level.backgrounds), rng.random() < level.overlap)


def familiar(figure: Figure) -> bool:
    """Whether training may see this drawing."""
    return figure.split == "train"


def anything(figure: Figure) -> bool:
    """Every drawing."""
    return True


def pick_figure(
    cast: Cast,
    rng: random.Random,
    usable: Callable[[Figure], bool],
    style: str | None,
    taken: set[str],
    concepts: Sequence[str] | None = None,
) -> Figure:
    """A figure of a concept that is not in `taken`, in `style` where the concept is drawn in it (None: in any)."""
    names = cast.things if concepts is None else concepts
    while True:
        concept = rng.choice(names)
        figures = [figure for figure in cast.by_concept[concept].values() if usable(figure)]
        if concept in taken or not figures:
            continue
        alike = [figure for figure in figures if style in (None, figure.style)]
        if alike or rng.random() < 0.02:  # a world may hold a style with very few drawings
            return rng.choice(alike or figures)


def draw_background(rng: random.Random, kinds: Sequence[str]) -> Background:
    """A background of one of these kinds in soft colours."""
    kind = rng.choice(kinds)
    first, second = rng.sample(sorted(SOFT), 2)
    if kind == "plain":
        return Background("plain", (first,))
    if kind == "ground":
        return Background("ground", (first, rng.choice(sorted(GROUNDS))))
    return Background("fade" if kind == "fade" else "stripes", (first, second))


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
    board, ink = rng.choice(
        [("white", "black"), ("white", "red"), ("white", "blue"), ("yellow", "black"), ("green", "white"), ("blue", "white")]
    )
    edges = tuple(round(edge, 4) for edge in (x, y, x + width, y + height))
    return Sign(word, (edges[0], edges[1], edges[2], edges[3]), nearness(edges[3]), ink, board), rest


def recoloured(things: Sequence[Object], colour: str) -> tuple[Object, ...]:
    """The same objects in another tint."""
    return tuple(replace(thing, colour=colour) for thing in things)
