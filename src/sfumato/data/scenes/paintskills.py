"""PaintSkills in EmojiWorld: prompts that ask for one skill each, every combination equally often (DALL-Eval, arXiv 2202.04053).

An item belongs to a cell: (thing) of skill "object", (thing, count) of "count", (A, B, relation) of "spatial", where B stands so to A. Each
sweep over the items holds every cell once, in an order of its own, so that neither a thing nor a pair of things is the likelier answer.
All else is random: style, scale, place, background. Items are pure functions of (version, seed, skill, split, part, index) and drawings.

Splits share their prompts, as published, and nothing else: an item's id names its split, and the hash of its whole description decides
which split may hold it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from itertools import product
from typing import Literal, get_args

from sfumato.core.errors import UnknownNameError, UsageError

from ..splits import SPLITS, Split
from .cast import Cast
from .content import Group, draw_background, level_of
from .description import Box, Object, Scene, compose, dice
from .distinct import distinct
from .plan import MARGIN, put

PAINTSKILLS_VERSION = 1
"""Raise when the same (seed, skill, split, part, index) would give another item."""

Skill = Literal["object", "count", "spatial"]
Direction = Literal["left of", "right of", "above", "below"]
Part = Literal["all", "seen", "held out"]
PAINTSKILLS: tuple[Skill, ...] = get_args(Skill)
DIRECTIONS: tuple[Direction, ...] = get_args(Direction)
PARTS: tuple[Part, ...] = get_args(Part)
COUNTS = (1, 2, 3, 4)
CLASSES = 21
HELD_OUT = 0.2
"""Which part of the spatial cells a training on "seen" ones does not meet, as nearly as a whole number of shifts comes."""
SCALES: dict[Skill, tuple[float, float]] = {"object": (0.35, 0.9), "count": (0.3, 0.46), "spatial": (0.3, 0.46)}
"""The longer side of a thing, in parts of the picture: alike for every cell of a skill, so that a size tells no count."""
EDGE, ROOM = 0.01, 0.485
"""The picture in quarters: the gap at their borders and their side. A counted thing moves in a quarter, a pair in a row of two."""
CLEAR = 0.06
"""How far |dx| and |dy| of a pair's centres lie apart at least, so that the direction holds for the pixels at any size."""
DIFFICULTY = 4


@dataclass(frozen=True)
class Cell:
    """What a prompt asks for: `things[0]`; `count` of it; or `things[1]` standing `relation` `things[0]`."""

    things: tuple[str, ...]
    count: int | None = None
    relation: Direction | None = None

    @property
    def caption(self) -> str:
        """The published template, word for word: "a photo of 3 fox"."""
        first = self.things[0]
        if self.relation is not None:
            return f"a photo of {first} and {self.things[1]}; {self.things[1]} is {self.relation} {first}"
        return f"a photo of {first}" if self.count is None else f"a photo of {self.count} {first}"


@dataclass(frozen=True)
class Item:
    """One prompt and a scene that is right."""

    id: str
    skill: Skill
    split: Split
    cell: Cell
    scene: Scene


class PaintSkills:
    """The items of a cast. `things`: the classes, chosen by `distinct` and in alphabetical order."""

    def __init__(self, cast: Cast, seed: int = 0, classes: int = CLASSES) -> None:
        """Raises `DataError` when the world has too few things that differ."""
        self.cast, self.seed, self.things = cast, seed, distinct(cast, classes)
        self.cells = lru_cache(None)(self._cells)
        self._sweep = lru_cache(8)(self._ordered)

    def _cells(self, skill: Skill, part: Part = "all") -> tuple[Cell, ...]:
        """All cells of a skill in a fixed order. `part`: only "spatial" holds cells out (`held_out`)."""
        if skill not in PAINTSKILLS:
            raise UnknownNameError("PaintSkills skill", skill, PAINTSKILLS)
        if part not in PARTS or (part != "all" and skill != "spatial"):
            raise UsageError(f"part {part!r} of skill {skill!r}", "all; of skill 'spatial' also: seen, held out")
        if skill == "object":
            return tuple(Cell((thing,)) for thing in self.things)
        if skill == "count":
            return tuple(Cell((thing,), n) for thing in self.things for n in COUNTS)
        pairs = [Cell((a, b), relation=r) for a, b in product(self.things, repeat=2) for r in DIRECTIONS]
        return tuple(cell for cell in pairs if part == "all" or self.held_out(cell) == (part == "held out"))

    def held_out(self, cell: Cell) -> bool:
        """Whether a spatial cell belongs to the held-out ones.

        Things stand in a circle, and what stands first (left, above) and second is held out where the step from one to the other is among
        a few. So an arrangement is held out under both of its captions, and every thing is held out equally often, first and second.
        """
        a, b = (self.things.index(thing) for thing in cell.things)
        first, second = (a, b) if cell.relation in ("right of", "below") else (b, a)
        axis = int(cell.relation in ("above", "below"))
        many = len(self.things)
        steps = dice(f"paintskills {PAINTSKILLS_VERSION} held out", self.seed, axis).sample(range(1, many), round(HELD_OUT * many))
        return (second - first) % many in steps

    def _ordered(self, skill: Skill, split: Split, part: Part, sweep: int) -> tuple[Cell, ...]:
        cells = self.cells(skill, part)
        return tuple(dice(f"{_purpose(skill, split, part)} order", self.seed, sweep).sample(cells, len(cells)))

    def item(self, skill: Skill, split: Split, index: int, part: Part = "all") -> Item:
        """Item `index` (from 0, no end). Every cell has exactly k items among the first k * len(cells). Raises `UsageError`."""
        if split not in SPLITS:
            raise UnknownNameError("split", split, SPLITS)
        if index < 0:
            raise UsageError(f"index is {index}", "0 or more")
        sweep, place = divmod(index, len(self.cells(skill, part)))
        cell = self._sweep(skill, split, part, sweep)[place]
        rng = dice(_purpose(skill, split, part), self.seed, index)
        while True:
            scene = self._scene(skill, cell, rng)
            if _clear(scene, cell) and home(scene) == split:
                return Item(f"{skill}/{split}/{part}/{index:06d}", skill, split, cell, scene)

    def _scene(self, skill: Skill, cell: Cell, rng: random.Random) -> Scene:
        style = rng.choice(self.cast.styles)
        groups = [Group(self.cast.by_concept[thing][style]) for thing in cell.things]
        many = cell.count or len(groups)
        objects = []
        for k, region in enumerate(_regions(rng, cell, many)):
            number = min(k, len(groups) - 1)
            aspect, side = self.cast.aspect(groups[number].figure.drawing), rng.uniform(*SCALES[skill])
            objects.append(put(groups[number], number, _within(rng, region, side * min(1, aspect), side * min(1, 1 / aspect))))
        return compose(objects, draw_background(rng, level_of(DIFFICULTY).backgrounds), None, DIFFICULTY)


def home(scene: Scene) -> Split:
    """The one split that may hold this description: scenes that agree in everything are never in two."""
    return SPLITS[int(sha256(repr((scene.objects, scene.background)).encode()).hexdigest(), 16) % len(SPLITS)]


def _purpose(skill: Skill, split: Split, part: Part) -> str:
    return f"paintskills {PAINTSKILLS_VERSION} {skill} {split} {part}"


def _regions(rng: random.Random, cell: Cell, many: int) -> list[Box]:
    """Where each thing may be: anywhere for one, in quarters of the picture for a number, side by side in a row or column for a pair."""
    if cell.count is None and cell.relation is None:
        return [(MARGIN, MARGIN, 1 - MARGIN, 1 - MARGIN)]
    if cell.relation is None:
        return [_room(*divmod(quarter, 2)) for quarter in rng.sample(range(4), many)]
    across = rng.uniform(EDGE, 1 - EDGE - ROOM)
    order = (0, 1) if cell.relation in ("right of", "below") else (1, 0)
    rooms = [_room(n, 0) for n in order]
    if cell.relation in ("left of", "right of"):
        return [(x0, across, x1, across + ROOM) for x0, _, x1, _ in rooms]
    return [(across, x0, across + ROOM, x1) for x0, _, x1, _ in rooms]


def _room(column: int, row: int) -> Box:
    x, y = (EDGE + n * (ROOM + EDGE) for n in (column, row))
    return x, y, x + ROOM, y + ROOM


def _within(rng: random.Random, region: Box, width: float, height: float) -> Box:
    x, y = rng.uniform(region[0], region[2] - width), rng.uniform(region[1], region[3] - height)
    return x, y, x + width, y + height


def _clear(scene: Scene, cell: Cell) -> bool:
    """Whether a pair lies along the axis of its relation by a margin."""
    if cell.relation is None:
        return True
    dx, dy = (abs(_middle(scene.objects[1], axis) - _middle(scene.objects[0], axis)) for axis in (0, 1))
    return (dx - dy if cell.relation in ("left of", "right of") else dy - dx) >= CLEAR


def _middle(thing: Object, axis: int) -> float:
    return (thing.box[axis] + thing.box[axis + 2]) / 2
