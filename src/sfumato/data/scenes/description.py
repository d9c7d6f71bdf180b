"""What a scene is: objects in boxes, a sign, a background and what follows from them. Pure data; nothing here draws or knows a drawing.

Geometry decides the relations: two groups of objects stand left, right, above or below where their boxes leave a gap, and before or behind
each other where they do not. A caption, a question or an edit that speaks of a relation therefore speaks of these boxes.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from hashlib import sha256
from itertools import combinations
from typing import Literal

from ..splits import SPLITS, Split, split_of

SCENES_VERSION = 1
"""Raise when the same (seed, index) would give another scene."""

Box = tuple[float, float, float, float]
"""(x0, y0, x1, y1) as fractions of the picture, y downwards."""

RelationKind = Literal["left of", "right of", "above", "below", "in front of", "behind"]
OPPOSITE: dict[RelationKind, RelationKind] = {
    "left of": "right of", "right of": "left of", "above": "below", "below": "above", "in front of": "behind", "behind": "in front of",
}  # fmt: skip


@dataclass(frozen=True)
class Object:
    """One drawing in the picture: `box` is where its opaque part lies, `depth` in [0, 1] how near it is (nearer is painted later).

    Objects of one `group` are copies that a caption counts together. `colour` is the word of a tint ("" = as drawn), `turn` degrees
    counter-clockwise about the box's centre.
    """

    drawing: str
    concept: str
    style: str
    group: int
    box: Box
    depth: float
    colour: str = ""
    turn: float = 0.0


@dataclass(frozen=True)
class Sign:
    """A word on a board, or printed straight on what lies beneath where `board` is ""; `ink` and `board` are colour words."""

    word: str
    box: Box
    depth: float
    ink: str = "black"
    board: str = "white"


@dataclass(frozen=True)
class Background:
    """`kind` says how `colours` (one for "plain", two for the others) cover the picture."""

    kind: Literal["plain", "fade", "ground", "stripes"]
    colours: tuple[str, ...]


@dataclass(frozen=True)
class Relation:
    """Group `subject` stands `kind` group `object`, as the eye sees the picture."""

    subject: int
    kind: RelationKind
    object: int


@dataclass(frozen=True)
class Scene:
    """A whole description; `core.config` takes it to JSON and back. Made by `compose`, which fills in the relations."""

    objects: tuple[Object, ...]
    background: Background
    sign: Sign | None
    relations: tuple[Relation, ...]
    difficulty: int

    @property
    def groups(self) -> tuple[int, ...]:
        """The group numbers in the order of their first objects."""
        return tuple(dict.fromkeys(thing.group for thing in self.objects))

    def members(self, group: int) -> tuple[Object, ...]:
        """The objects of one group."""
        return tuple(thing for thing in self.objects if thing.group == group)

    @property
    def items(self) -> tuple[Object | Sign, ...]:
        """Everything that is painted on the background: the objects, then the sign. Masks and boxes come in this order."""
        return self.objects if self.sign is None else (*self.objects, self.sign)

    @property
    def paint_order(self) -> tuple[int, ...]:
        """Positions in `items`, farthest first; of two equally near ones the later is painted later."""
        return tuple(sorted(range(len(self.items)), key=lambda i: self.items[i].depth))


def compose(objects: Iterable[Object], background: Background, sign: Sign | None, difficulty: int) -> Scene:
    """The scene of these parts, with the relation of every pair of groups."""
    objects = tuple(objects)
    bare = Scene(objects, background, sign, (), difficulty)
    pairs = combinations(bare.groups, 2)
    relations = tuple(Relation(a, relation(bare.members(a), bare.members(b)), b) for a, b in pairs)
    return Scene(objects, background, sign, relations, difficulty)


def hull(objects: Sequence[Object | Sign]) -> Box:
    """The smallest box around all of these."""
    x0, y0, x1, y1 = zip(*(thing.box for thing in objects), strict=True)
    return min(x0), min(y0), max(x1), max(y1)


def relation(a: Sequence[Object], b: Sequence[Object]) -> RelationKind:
    """How `a` stands to `b`: along the widest gap between their hulls, or by depth where the hulls overlap."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = hull(a), hull(b)
    gaps: dict[RelationKind, float] = {"left of": bx0 - ax1, "right of": ax0 - bx1, "above": by0 - ay1, "below": ay0 - by1}
    kind = max(gaps, key=lambda k: gaps[k])
    if gaps[kind] >= 0:
        return kind
    return "in front of" if max(thing.depth for thing in a) > max(thing.depth for thing in b) else "behind"


def place(box: Box) -> str:
    """Where a box's centre lies, in words: "middle", "left", "top right", ..."""
    x, y = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
    row = "top" if y < 0.4 else "bottom" if y > 0.6 else ""
    column = "left" if x < 0.4 else "right" if x > 0.6 else ""
    return f"{row} {column}".strip() or "middle"


def canonical(scene: Scene) -> str:
    """The scene's facts in one fixed order: counts, colours, concepts, styles, relations, the word; no pixels and no background.

    Scenes that one prompt describes share it, so that a prompt cannot be in two splits.
    """
    names = {}
    for group in scene.groups:
        members = scene.members(group)
        names[group] = f"{len(members)} {members[0].colour} {members[0].concept}|{members[0].style}"
    facts = sorted(names.values())
    for stated in scene.relations:
        a, kind, b = names[stated.subject], stated.kind, names[stated.object]
        facts.append(f"{a} {kind} {b}" if kind in ("left of", "above", "in front of") else f"{b} {OPPOSITE[kind]} {a}")
    return "; ".join(sorted(facts) + ([f"sign {scene.sign.word}"] if scene.sign else []))


def split_of_scenes(scenes: Iterable[Scene]) -> Split:
    """The split of a sample made of these scenes: the most held-out of its prompts' hashes and of its drawings' own splits.

    So neither a test drawing nor a test prompt is ever in a training sample.
    """
    found: set[Split] = set()
    for scene in scenes:
        found.add(split_of(canonical(scene), ""))
        found.update(split_of(thing.concept, thing.style) for thing in scene.objects)
    return max(found, key=SPLITS.index)


def dice(purpose: str, seed: int, index: int) -> random.Random:
    """The random numbers of one sample: they depend on nothing but the version, the purpose, the seed and the index."""
    key = f"{SCENES_VERSION}|{purpose}|{seed}|{index}"
    return random.Random(int.from_bytes(sha256(key.encode()).digest()[:16], "big"))


def tally(scene: Scene) -> Counter[str]:
    """How many objects of each concept there are."""
    return Counter(thing.concept for thing in scene.objects)
