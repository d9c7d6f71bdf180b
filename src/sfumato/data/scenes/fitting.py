"""Try-on pairs: a person, a garment with a word printed on it, and the person wearing it.

Where a garment goes is annotated by hand: `BODIES` gives, per style, the box of the shirt that the standing persons of that style wear,
and the garment is laid over it. The person is shown from head to knees, so that the word can be read at 128 pixels.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sfumato.core.errors import DataError

from .cast import Cast, Figure
from .content import draw_background, familiar, level_of
from .description import Box, Object, Scene, Sign, compose, dice
from .lettering import WORDS
from .nouns import article

PERSONS = {"person standing": "person", "man standing": "man", "woman standing": "woman"}
GARMENTS = {"t-shirt": "t-shirt", "woman’s clothes": "blouse", "coat": "coat", "lab coat": "lab coat", "kimono": "kimono"}
BODIES: dict[str, Box] = {  # the shirt with its sleeves, as fractions of the drawing's opaque part
    "noto": (0.0, 0.265, 1.0, 0.58),
    "fluent 3d": (0.0, 0.225, 1.0, 0.505),
    "fluent flat": (0.0, 0.225, 1.0, 0.505),
    "twemoji": (0.03, 0.205, 0.97, 0.58),
}
CHEST: Box = (0.27, 0.34, 0.73, 0.6)
"""Where the word is printed, as fractions of the garment."""
LOOSE = {"t-shirt": 1.08, "woman’s clothes": 1.14, "coat": 1.26, "lab coat": 1.26, "kimono": 1.24}
"""How much wider than the shirt it covers a garment is laid: sleeves that hang down need more."""


@dataclass(frozen=True)
class TryOn:
    """Three scenes and the box of the body, in the picture of the person, that the garment covers. `word` is what is printed on it.

    `caption` is said of the worn garment, `wearer` and `piece` of the person and the garment alone.
    """

    caption: str
    wearer: str
    piece: str
    word: str
    body: Box
    person: Scene
    garment: Scene
    worn: Scene


def tryon(cast: Cast, seed: int, index: int, difficulty: int = 3) -> TryOn:
    """The try-on pair (seed, index). Raises `DataError` when the world has no standing person or no garment in an annotated style."""
    rng = dice(f"tryon {difficulty}", seed, index)
    persons, garments = _figures(cast, PERSONS), _figures(cast, GARMENTS)
    persons = [figure for figure in persons if figure.style in BODIES]
    if not persons or not garments:
        raise DataError(
            "this world has no standing person or no garment to try on",
            f"it needs {', '.join(PERSONS)} in one of the styles {', '.join(BODIES)}, and {', '.join(GARMENTS)}",
        )
    person = rng.choice(persons)
    alike = [figure for figure in garments if figure.style == person.style]
    garment = rng.choice(alike or garments)
    colour = rng.choice(("", *cast.tints(garment.concept))) if difficulty > 1 else ""
    word = rng.choice([word for word in WORDS if len(word) <= 4])
    background = draw_background(rng, level_of(difficulty).backgrounds)

    standing = _object(person, 0, _portrait(cast.aspect(person.drawing)), 0.5)
    body = within(standing.box, BODIES[person.style])
    worn = _object(garment, 1, _over(body, cast.aspect(garment.drawing), LOOSE[garment.concept]), 0.7, colour)
    hung = replace(worn, box=_hung(cast.aspect(garment.drawing)))
    ink = "black" if _lightness(cast, worn) > 130 else "white"
    printed, shown = (Sign(word, within(thing.box, CHEST), 0.9, ink, "") for thing in (worn, hung))
    wearer, piece = article(PERSONS[person.concept]), article(f"{colour} {GARMENTS[garment.concept]}".strip())
    return TryOn(
        f'{wearer} wearing {piece} that says "{word}", {person.style} style',
        wearer,
        f'{piece} that says "{word}"',
        word,
        body,
        compose([standing], background, None, difficulty),
        compose([hung], background, shown, difficulty),
        compose([standing, worn], background, printed, difficulty),
    )


def _figures(cast: Cast, concepts: dict[str, str]) -> list[Figure]:
    return [f for concept in concepts for f in cast.by_concept.get(concept, {}).values() if familiar(f)]


def _object(figure: Figure, group: int, box: Box, depth: float, colour: str = "") -> Object:
    return Object(figure.drawing, figure.concept, figure.style, group, box, depth, colour)


def within(box: Box, part: Box) -> Box:
    """The box that lies in `box` where `part` lies in the unit square."""
    x0, y0, x1, y1 = box
    w, h = x1 - x0, y1 - y0
    return round(x0 + part[0] * w, 4), round(y0 + part[1] * h, 4), round(x0 + part[2] * w, 4), round(y0 + part[3] * h, 4)


def _portrait(aspect: float, height: float = 1.72) -> Box:
    """A standing figure in the middle, its feet below the picture's edge."""
    width = height * aspect
    return round(0.5 - width / 2, 4), 0.03, round(0.5 + width / 2, 4), round(0.03 + height, 4)


def _over(body: Box, aspect: float, loose: float) -> Box:
    """A garment over the body: a little wider, at least as long, hanging from the collar."""
    x0, y0, x1, y1 = body
    width = (x1 - x0) * loose
    height = max(width / aspect, (y1 - y0) * 1.04)
    x = (x0 + x1 - width) / 2
    return round(x, 4), y0, round(x + width, 4), round(y0 + height, 4)


def _hung(aspect: float) -> Box:
    """A garment alone, as large as the picture lets it be."""
    width, height = min(0.86, 0.86 * aspect), min(0.86, 0.86 / aspect)
    return round(0.5 - width / 2, 4), round(0.5 - height / 2, 4), round(0.5 + width / 2, 4), round(0.5 + height / 2, 4)


def _lightness(cast: Cast, garment: Object) -> float:
    """The mean grey level, 0 to 255, of the part that the word is printed on."""
    sprite = cast.sprite(garment.drawing, garment.colour, cast.stored)
    height, width = sprite.shape[:2]
    x0, y0, x1, y1 = CHEST
    chest = sprite[int(y0 * height) : int(y1 * height) + 1, int(x0 * width) : int(x1 * width) + 1, :3]
    return float((chest @ np.array([0.299, 0.587, 0.114])).mean())
