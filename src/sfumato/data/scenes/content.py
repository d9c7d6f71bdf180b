"""What is in a scene before it has a place: how many of which drawings, a word, a background; how much of each the difficulty says."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from sfumato.core.errors import DataError, UnknownNameError

from .cast import Cast, Figure
from .colours import GROUNDS, SOFT
from .description import Background
from .lettering import WORDS


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


def level_of(difficulty: int) -> Level:
    """Raises `UnknownNameError` unless there is such a level."""
    if difficulty not in LEVELS:
        raise UnknownNameError("difficulty", str(difficulty), map(str, LEVELS))
    return LEVELS[difficulty]


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
    """A figure of a concept that is not in `taken`, in `style` where the concept is drawn in it (None: in any).

    Raises `DataError` when the world has none left.
    """
    names = cast.things if concepts is None else concepts
    if not any(name not in taken and any(map(usable, cast.by_concept[name].values())) for name in names):
        raise DataError("this world has too few things for such a sample", "a world of more concepts is needed: sfumato data emoji")
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
