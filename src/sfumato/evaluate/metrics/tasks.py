"""Did the picture show what was asked? Right or wrong, with the reason, from what a detector found in it.

Pure functions of detections: GenEval's rules (arXiv 2310.11513) and PaintSkills' (DALL-Eval, arXiv 2202.04053, section 3). Boxes are
(x0, y0, x1, y1) as fractions of the picture, y growing downwards.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from ...core.errors import UsageError

RelationName = Literal["left of", "right of", "above", "below"]

# GenEval's settings: least score of a detection, that of one that counts, and how far centres must lie apart, in parts of both sizes.
LEAST, LEAST_COUNTED, APART = 0.3, 0.9, 0.1
# PaintSkills': least score of a detection that counts.
SURE = 0.7


@dataclass(frozen=True)
class Detection:
    """One object a detector found; `score` in [0, 1]. `style` and `colour` are "" where the detector does not tell."""

    concept: str
    box: tuple[float, float, float, float]
    score: float
    style: str = ""
    colour: str = ""

    @property
    def centre(self) -> tuple[float, float]:
        return (self.box[0] + self.box[2]) / 2, (self.box[1] + self.box[3]) / 2


@dataclass(frozen=True)
class Asked:
    """An object the prompt asks for: exactly `count` of it where given, at least one otherwise; of `colour` and `style` where given."""

    concept: str
    count: int | None = None
    colour: str = ""
    style: str = ""

    def __str__(self) -> str:
        number = "a" if self.count is None else str(self.count)
        style = f" in {self.style} style" if self.style else ""
        return " ".join(part for part in (number, self.colour, self.concept) if part) + style


@dataclass(frozen=True)
class Facts:
    """All that a prompt asks for. `relation`: how the second object lies to the first. `words`: what is to be read."""

    objects: tuple[Asked, ...] = ()
    relation: RelationName | None = None
    words: str | None = None

    def __post_init__(self) -> None:
        if self.relation is not None and len(self.objects) != 2:
            raise UsageError(f"a relation ({self.relation}) of {len(self.objects)} objects", "two objects: the second lies so to the first")


@dataclass(frozen=True)
class Answer:
    """Whether the picture is right, and what decided."""

    right: bool
    reason: str


def judge_facts(found: Sequence[Detection], facts: Facts, read: str | None = None) -> Answer:
    """GenEval's verdict: every fact must hold; the reason names the first that fails.

    Single and two objects, counting, colours, position and colour binding are all this one rule with other facts. Objects count from a
    score of 0.3, where their number is asked from 0.9. `read`: what a reader found, needed where `facts.words` is asked; case
    and spacing are free, letters are not. Raises `UsageError` when words are asked and nothing was read.
    """
    if facts.words is not None:
        if read is None:
            raise UsageError(f"the prompt asks for the words {facts.words!r}", "pass what a reader found: read=")
        if _letters(read) != _letters(facts.words):
            return Answer(False, f"reads {read!r}, asked {facts.words!r}")
    seen: list[list[Detection]] = []
    for asked in facts.objects:
        named = [d for d in found if d.concept == asked.concept and d.score > (LEAST if asked.count is None else LEAST_COUNTED)]
        fitting = [d for d in named if asked.colour in ("", d.colour) and asked.style in ("", d.style)]
        if not named:
            return Answer(False, f"no {asked.concept}")
        if not fitting:
            best = max(named, key=lambda d: d.score)
            named_so = ((asked.colour, best.colour, "of no named colour"), (asked.style, best.style, "of no named style"))
            looks = " and ".join(look or unnamed for wanted, look, unnamed in named_so if wanted)
            return Answer(False, f"{asked.concept} is {looks}, asked {asked}")
        if asked.count is not None and len(fitting) != asked.count:
            return Answer(False, f"{len(fitting)} {asked.concept}, asked {asked.count}")
        seen.append(fitting)
    if facts.relation is not None:
        # As published, the likeliest of each kind; two of one concept are its two likeliest, in either order.
        first, second = (max(group, key=lambda d: d.score) for group in seen)
        orders = [(first, second)]
        if facts.objects[0] == facts.objects[1]:
            two = sorted(seen[0], key=lambda d: -d.score)[:2]
            if len(two) < 2:
                return Answer(False, f"one {facts.objects[0].concept}, asked two")
            orders = [(two[0], two[1]), (two[1], two[0])]
        if not any(facts.relation in relations(*order) for order in orders):
            told = " and ".join(sorted(relations(*orders[0]))) or "at"
            return Answer(False, f"{orders[0][1].concept} is {told} {orders[0][0].concept}, asked {facts.relation}")
    return Answer(True, "all asked for is there")


def relations(a: Detection, b: Detection) -> set[RelationName]:
    """How b lies to a by GenEval's rule; empty where they are too near or the direction is between.

    Offsets of the centres are shortened by a tenth of both sizes; what is left, over the distance of the centres, must exceed 0.5.
    """
    offsets = [b.centre[axis] - a.centre[axis] for axis in (0, 1)]
    sizes = [sum(d.box[axis + 2] - d.box[axis] for d in (a, b)) for axis in (0, 1)]
    left = [max(0.0, abs(o) - APART * s) * (1 if o > 0 else -1) for o, s in zip(offsets, sizes, strict=True)]
    distance = max(1e-9, (offsets[0] ** 2 + offsets[1] ** 2) ** 0.5)
    x, y = left[0] / distance, left[1] / distance
    names: dict[RelationName, bool] = {"left of": x < -0.5, "right of": x > 0.5, "above": y < -0.5, "below": y > 0.5}
    return {name for name, holds in names.items() if holds}


def paint_object(found: Sequence[Detection], concept: str, least: float = 0.0) -> Answer:
    """PaintSkills' object skill: the single most confident detection is the object.

    As published there is no threshold; with `least` above 0 a detector may abstain, and a black picture has no object.
    """
    best = max((d for d in found if d.score >= least), key=lambda d: d.score, default=None)
    if best is None:
        return Answer(False, f"nothing found with a score of {least:g} or more")
    return Answer(best.concept == concept, f"the surest detection is {best.concept}")


def paint_count(found: Sequence[Detection], concept: str, count: int) -> Answer:
    """PaintSkills' count skill: of as many detections as reach 0.7, the likeliest for the object, `count` are the object.

    Others are tolerated, and let unsure ones of the object into the count: min(detections above 0.7, detections of the object).
    """
    sure = sum(d.score > SURE for d in found)
    counted = min(sure, sum(d.concept == concept for d in found))
    return Answer(counted == count, f"{counted} {concept} among {sure} sure detections, asked {count}")


def paint_spatial(found: Sequence[Detection], a: str, b: str, relation: RelationName) -> Answer:
    """PaintSkills' spatial skill: the two most confident detections are a and b, and b lies so to a: along x where |dx| > |dy|, else y."""
    two = sorted(found, key=lambda d: -d.score)[:2]
    if sorted(d.concept for d in two) != sorted((a, b)):
        return Answer(False, f"the two surest detections are {' and '.join(d.concept for d in two) or 'none'}, asked {a} and {b}")
    orders = [order for order in (two, two[::-1]) if order[0].concept == a]
    told = [_direction(first, second) for first, second in orders]
    return Answer(relation in told, f"{b} is {told[0]} {a}, asked {relation}")


def _direction(a: Detection, b: Detection) -> RelationName:
    dx, dy = (b.centre[axis] - a.centre[axis] for axis in (0, 1))
    if abs(dx) > abs(dy):
        return "right of" if dx > 0 else "left of"
    return "above" if dy < 0 else "below"


def _letters(text: str) -> str:
    return " ".join(text.lower().split())
