"""Videos: 8 to 16 frames of objects that move, grow, spin or appear, each in its band, with a caption that says which does what."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from typing import Literal, get_args

from .captions import backdrop
from .cast import Cast
from .content import Group, draw_content
from .description import Background, Object, Scene, compose, dice
from .nouns import counted, listed
from .plan import MARGIN, put

MotionKind = Literal["moves from left to right", "moves from right to left", "grows", "spins", "appears", "stays"]
MOTIONS: tuple[MotionKind, ...] = get_args(MotionKind)


@dataclass(frozen=True)
class Motion:
    """What the object of one group does from the first frame to the last."""

    group: int
    kind: MotionKind


@dataclass(frozen=True)
class Video:
    """`frames` in order, all of one background; `caption` states every motion."""

    caption: str
    motions: tuple[Motion, ...]
    frames: tuple[Scene, ...]


def video(cast: Cast, seed: int, index: int, difficulty: int = 3) -> Video:
    """The video (seed, index): one object at difficulty 1, at most two at 2 and 3, three beyond; at least one of them acts."""
    rng = dice(f"video {difficulty}", seed, index)
    content = draw_content(cast, rng, difficulty)
    groups = [replace(group, count=1) for group in content.groups[: (difficulty + 2) // 2]]
    motions = [Motion(number, rng.choice(MOTIONS[: -1 if number == 0 else None])) for number in range(len(groups))]
    homes = [_home(cast, rng, group, number, len(groups)) for number, group in enumerate(groups)]
    length = rng.randint(8, 16)
    frames = [_frame(homes, motions, content.background, frame / (length - 1), difficulty) for frame in range(length)]
    return Video(_caption(groups, motions, content.background), tuple(motions), tuple(frames))


def _home(cast: Cast, rng: random.Random, group: Group, number: int, bands: int) -> Object:
    """The object in its band of the picture, with room to turn on the spot."""
    top, bottom = number / bands + MARGIN, (number + 1) / bands - MARGIN
    aspect = cast.aspect(group.figure.drawing)
    diagonal = (1 + aspect**2) ** 0.5
    height = min((bottom - top) / diagonal, 0.55 / aspect)
    width = height * aspect
    x, y = rng.uniform(0.1, 0.9 - width), (top + bottom - height) / 2
    return put(group, number, (x, y, x + width, y + height))


def _frame(homes: list[Object], motions: list[Motion], background: Background, moment: float, difficulty: int) -> Scene:
    """The picture at `moment` in [0, 1]."""
    objects = [_at(home, motion.kind, moment) for home, motion in zip(homes, motions, strict=True)]
    return compose([thing for thing in objects if thing is not None], background, None, difficulty)


def _at(home: Object, kind: MotionKind, moment: float) -> Object | None:
    """Where and how the object is at `moment`; None before it appears."""
    x0, y0, x1, y1 = home.box
    if kind == "appears":
        return home if moment >= 0.5 else None
    if kind == "spins":
        return replace(home, turn=round(360 * moment, 2))
    if kind == "grows":
        w, h = ((x1 - x0) * (0.35 + 0.65 * moment), (y1 - y0) * (0.35 + 0.65 * moment))
        middle = (x0 + x1) / 2
        return replace(home, box=(round(middle - w / 2, 4), round(y1 - h, 4), round(middle + w / 2, 4), y1))
    if kind == "stays":
        return home
    way = moment if kind == "moves from left to right" else 1 - moment
    x = MARGIN + way * (1 - 2 * MARGIN - (x1 - x0))
    return replace(home, box=(round(x, 4), y0, round(x + x1 - x0, 4), y1))


def _caption(groups: list[Group], motions: list[Motion], background: Background) -> str:
    styles = {group.figure.style for group in groups}
    told = []
    for group, motion in zip(groups, motions, strict=True):
        style = f" in {group.figure.style} style" if len(styles) > 1 else ""
        told.append(f"{counted(1, group.colour, group.figure.concept)}{style} {motion.kind}")
    return f"{listed(told)}, {backdrop(background)}" + (f", {styles.pop()} style" if len(styles) == 1 else "")
