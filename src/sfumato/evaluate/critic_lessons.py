"""What the critic learns from: pictures, each with a caption that is true and captions that are not, some wrong in one fact only.

A wrong caption has the form of the true one, so that nothing but the picture tells which is which. Touches `data/` only.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from ..data.scenes import Cast, Negative, Scene, captions_of, negatives
from ..training.batches import Columns
from .pictures import Pictures
from .sentences import Phrases

STYLED = (False, True, True, False, True)
"""Which caption forms of a drawing (`data/captions.py`) name its style."""
WRONG = 2
"""Wrong captions beside each true one."""


@dataclass(frozen=True)
class Pair:
    """Two captions of one form: the true one, and one in which `fact` alone is wrong."""

    fact: str
    true: str
    wrong: str


class Rivals:
    """Drawings that differ from one of `rows` in one name: another concept in its style, its concept in another style."""

    def __init__(self, pictures: Pictures, rows: Sequence[int]) -> None:
        self.pictures = pictures
        self._of_style: dict[str, list[int]] = {}
        self._of_concept: dict[str, list[int]] = {}
        for row in rows:
            self._of_style.setdefault(pictures.style[row], []).append(row)
            self._of_concept.setdefault(pictures.concept[row], []).append(row)

    def pair(self, row: int, form: int, fact: str, rng: random.Random) -> Pair | None:
        """Captions of `form` that differ in `fact`, "concept" or "style"; None where no drawing differs in that alone."""
        kept, changed = ("style", "concept") if fact == "concept" else ("concept", "style")
        same: str = getattr(self.pictures, kept)[row]
        mine: str = getattr(self.pictures, changed)[row]
        rows = (self._of_style if kept == "style" else self._of_concept).get(same, [])
        names = getattr(self.pictures, changed)
        # From a random place on: no list of the others for each of many drawings.
        start = rng.randrange(len(rows)) if rows else 0
        other = next((r for r in (*rows[start:], *rows[:start]) if names[r] != mine), None)
        return None if other is None else Pair(fact, self.pictures.captions[row][form], self.pictures.captions[other][form])


def drawing_pairs(rivals: Rivals, row: int, form: int, rng: random.Random) -> list[Pair]:
    """Another concept, and another style where the form names it; two concepts where it does not. Empty for a drawing without rivals."""
    facts = ("concept", "style" if STYLED[form] else "concept")
    pairs = [pair for fact in facts if (pair := rivals.pair(row, form, fact, rng))]
    return pairs if len(pairs) == WRONG else pairs * WRONG


def scene_pairs(cast: Cast, scene: Scene, rng: random.Random) -> list[Pair]:
    """One pair for each kind of fact that the scene has."""
    told = captions_of(scene)
    return [Pair(wrong.fact, _twin(wrong, told), wrong.caption) for wrong in negatives(cast, scene, rng)]


def _twin(wrong: Negative, told: Sequence[str]) -> str:
    """The true caption that `wrong` was made from: the one with the most words in common, place by place from both ends."""
    words = wrong.caption.split()

    def shared(caption: str) -> int:
        true = caption.split()
        ends = (zip(words, true, strict=False), zip(reversed(words), reversed(true), strict=False))
        return sum(a == b for end in ends for a, b in end) - abs(len(words) - len(true))

    return max(told, key=shared)


class Questions(Protocol):
    """`ask(index)`: images (P, 3, H, W) uint8, and for each a true caption and then WRONG others."""

    def ask(self, index: int) -> tuple[Tensor, list[tuple[str, ...]]]: ...


@dataclass(frozen=True)
class DrawingQuestions:
    """Of drawings `rows.columns["row"]` (numbers in the rivals' pictures)."""

    rivals: Rivals
    rows: Columns

    def ask(self, index: int) -> tuple[Tensor, list[tuple[str, ...]]]:
        rows, rng = self.rows.batch(index)["row"], random.Random(f"{self.rows.seed}|drawings|{index}")
        asked: list[tuple[str, ...]] = []
        for row in rows.tolist():
            pairs = drawing_pairs(self.rivals, row, rng.randrange(len(STYLED)), rng)
            asked.append((pairs[0].true, *(pair.wrong for pair in pairs)))
        return self.rivals.pictures.images[rows], asked


@dataclass(frozen=True)
class SceneQuestions:
    """Of scenes `images`, of each its `pairs`: one wrong in a fact, and one that is true of another scene."""

    images: Tensor
    pairs: Sequence[Sequence[Pair]]
    rows: Columns

    def ask(self, index: int) -> tuple[Tensor, list[tuple[str, ...]]]:
        rows, rng = self.rows.batch(index)["row"], random.Random(f"{self.rows.seed}|scenes|{index}")
        asked: list[tuple[str, ...]] = []
        for row in rows.tolist():
            pair = rng.choice(self.pairs[row])
            asked.append((pair.true, pair.wrong, other_scene(self.pairs, row, pair.fact, rng).wrong))
        return self.images[rows], asked


def other_scene(pairs: Sequence[Sequence[Pair]], row: int, fact: str, rng: random.Random) -> Pair:
    """A caption of scene `row`, and as the wrong one what is true of another scene; in one form where that has the same kinds of facts."""
    true = next(pair.true for pair in pairs[row] if pair.fact == fact)
    own = {pair.true for pair in pairs[row]}
    start = rng.randrange(len(pairs))
    for other in (*pairs[start:], *pairs[:start]):
        said = next((pair.true for pair in other if pair.fact == fact), "")
        if said and said not in own:
            return Pair("scene", true, said)
    # Only in a world of one scene: its own wrong caption will do.
    return Pair("scene", true, next(pair.wrong for pair in pairs[row] if pair.fact == fact))


@dataclass(frozen=True)
class Lessons:
    """A stream: batches have `images` (P, 3, H, W) uint8, `scene` (P,) whether a picture is one, `states` (P, 1 + WRONG, N, 384) fp16 and
    `keep` (P, 1 + WRONG, N) of the captions, the true one first.
    """

    questions: Mapping[str, Questions]
    phrases: Phrases

    def batch(self, index: int) -> dict[str, Tensor]:
        asked = {name: source.ask(index) for name, source in self.questions.items()}
        numbers = [self.phrases.number[caption] for _, rows in asked.values() for captions in rows for caption in captions]
        states, keep = self.phrases.states(torch.tensor(numbers))
        return {
            "images": torch.cat([images for images, _ in asked.values()]),
            "scene": torch.cat([torch.full((len(images),), name == "scenes") for name, (images, _) in asked.items()]),
            "states": states.unflatten(0, (-1, 1 + WRONG)),
            "keep": keep.unflatten(0, (-1, 1 + WRONG)),
        }
