"""The drawings a scene may use: an EmojiWorld folder, its countable things by concept and style, and their pixels, kept in memory."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np

from sfumato.core.errors import DataError, UnknownNameError

from ..packages import TRAINABLE
from ..pictures import Pixels
from ..render import rasterise
from ..sources import Source, open_source
from ..splits import Split
from .colours import TINTS, tint
from .nouns import countable

_SUBGROUPS = """
animal-mammal animal-bird animal-marine animal-bug animal-reptile animal-amphibian monkey-face cat-face plant-flower plant-other
food-fruit food-vegetable food-prepared food-sweet food-asian drink dishware transport-ground transport-air transport-water
sky-weather event sport game arts-crafts clothing musical-instrument computer light-video book-paper money lock tool science medical
household place-building award-medal writing phone sound heart other-object
"""
SUBGROUPS = tuple(_SUBGROUPS.split())
"""emojibase's subgroups whose drawings show one thing that a sentence can name."""
ANIMALS = ("animal-mammal", "animal-bird", "animal-amphibian", "animal-reptile")
KEPT = 2048
"""Drawings kept decoded in memory, each at most 64 kB at 128 pixels."""


@dataclass(frozen=True)
class Figure:
    """One drawing: its `row` in the source and its names. `split` is that of its (concept, style) pair."""

    row: int
    drawing: str
    concept: str
    style: str
    subgroup: str
    licence: str
    split: Split


class Cast:
    """Everything that can be put into a scene. `things`: the concepts that scenes draw from; `by_concept`: all figures of a concept."""

    def __init__(self, source: Source, name: str) -> None:
        """Raises `DataError` when `source` is not an EmojiWorld or holds nothing that can be counted."""
        try:
            columns = [source.column(c) for c in ("id", "concept", "style", "subgroup", "licence", "split", "svg", "skin_tone", "width")]
        except UnknownNameError as error:
            raise DataError(f"{name} is no EmojiWorld: {error.message}", "build one with: sfumato data emoji --out DIR") from error
        self._source, self._svgs, self.stored = source, columns[6], int(columns[8][0])
        rows = [row for row in range(len(source)) if not columns[7][row]]
        figures = [Figure(row, *[column[row] for column in columns[:6]]) for row in rows]
        self.figures = {figure.drawing: figure for figure in sorted(figures, key=lambda f: f.drawing)}
        self.by_concept: dict[str, dict[str, Figure]] = {}
        for figure in self.figures.values():
            self.by_concept.setdefault(figure.concept, {}).setdefault(figure.style, figure)
        things = (f for f in self.figures.values() if f.subgroup in SUBGROUPS and countable(f.concept))
        self.things = tuple(sorted({figure.concept for figure in things}))
        self.styles = tuple(sorted({figure.style for figure in self.figures.values()}))
        if len(self.things) < 6:
            raise DataError(f"{name} holds {len(self.things)} things that scenes can count", "at least 6; sfumato data emoji fetches them")
        self.sprite = lru_cache(KEPT)(self._sprite)

    @classmethod
    def open(cls, folder: str | Path, licences: Sequence[str] | None = TRAINABLE) -> Cast:
        """The cast of an EmojiWorld folder, without share-alike drawings unless `licences` names them. Raises `DataError`."""
        return cls(open_source(folder, licences=licences), str(folder))

    def tints(self, concept: str) -> tuple[str, ...]:
        """The colours that `concept` may take: none where its name tells a colour, none that would give it another concept's name."""
        if any(word in concept.lower().replace("-", " ").split() for word in (*TINTS, "black", "white", "rainbow")):
            return ()
        return tuple(colour for colour in TINTS if f"{colour} {concept}" not in self.by_concept)

    def _sprite(self, drawing: str, colour: str, side: int) -> Pixels:
        """(h, w, 4) uint8, straight alpha: the opaque part of a drawing whose whole square has `side` pixels, tinted or not."""
        from PIL import Image

        row = self.figures[drawing].row
        png = self._source.encoded(row) if side == self.stored else rasterise(self._svgs[row], side)
        with Image.open(io.BytesIO(png)) as image:
            rgba = np.asarray(image.convert("RGBA"))
        ys, xs = (np.flatnonzero((rgba[..., 3] >= 128).any(axis)) for axis in (1, 0))
        if not len(ys):
            ys, xs = np.arange(rgba.shape[0]), np.arange(rgba.shape[1])
        cut = rgba[ys[0] : ys[-1] + 1, xs[0] : xs[-1] + 1]
        return tint(cut, colour) if colour else cut

    def aspect(self, drawing: str) -> float:
        """Width over height of the opaque part."""
        height, width = self.sprite(drawing, "", self.stored).shape[:2]
        return width / height

    def side_for(self, drawing: str, width: int, height: int) -> int:
        """The size to draw at for a sprite of (width, height) pixels: the stored one, doubled until nothing must be enlarged."""
        side = self.stored
        have = self.sprite(drawing, "", side).shape
        while side < 4096 and (have[1] * side / self.stored < width or have[0] * side / self.stored < height):
            side *= 2
        return side
