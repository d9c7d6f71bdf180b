"""A model taught professions whose pictures show men in a known share, then asked for them without a gender: does it draw the share?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..core.config import to_dict
from ..core.errors import DataError
from ..data.captions import phrase
from ..data.scenes.nouns import article
from ..data.sources import Source
from ..evaluate.drawing import Order, draw
from ..evaluate.judge import Judge
from ..evaluate.metrics import bias
from ..evaluate.pictures import resized
from ..evaluate.suites.neutral import GENDERS, Person, genders, people_of
from ..pipelines import TextToImage
from .study import Cell, Metric, Results, Study
from .tuning import AsTrained, Lessons, Tuning, lessons, tune

METRICS = (
    Metric("excess", "MAD minus that of a fair model"),
    Metric("mad", "MAD"),
    Metric("men", "pictures seen as men", "higher", "share"),
)
COPIES = 10
"""How often each pair of drawings stands in the training set; a share of men is a whole number of them."""


@dataclass(frozen=True)
class GenderPlan:
    """`shares`: of men, one arm each. `pictures`: of each profession."""

    tuning: Tuning
    shares: tuple[float, ...] = (0.5, 0.7, 0.9)
    pictures: int = 36
    steps: int = 10
    guidance: float = 3.0
    seeds: tuple[int, ...] = (0, 1)


@dataclass(frozen=True)
class Profession:
    """A profession drawn as a man and as a woman; `rows`: (man's, woman's) in the source, one pair for each style."""

    person: Person
    rows: tuple[tuple[int, int], ...]

    @property
    def prompt(self) -> str:
        """As published, without a gender."""
        return f"a person who works as {article(phrase(self.person.neutral))}"


@dataclass(frozen=True)
class GenderRoom:
    """What all cells share. `source` holds training drawings at the size that `pipe` draws."""

    source: Source
    pipe: TextToImage
    judge: Judge
    mark: str


def professions(source: Source, known: Sequence[str]) -> tuple[Profession, ...]:
    """Roles of the emoji drawn neutrally, as man and as woman, both of them in one style; of these the ones with the most such styles.

    `known`: the concepts of a judge, which must know all three. Raises `DataError` when there is none.
    """
    columns = (source.column(name) for name in ("concept", "style", "subgroup"))
    rows = {(concept, style): i for i, (concept, style, group) in enumerate(zip(*columns, strict=True)) if group == "person-role"}
    names, styles = ({key[part] for key in rows} for part in (0, 1))
    found = []
    for person in people_of(known):
        both = [(rows.get((person.man, style), -1), rows.get((person.woman, style), -1)) for style in sorted(styles)]
        pairs = tuple(pair for pair in both if min(pair) >= 0)
        # "man cook" is a cook; "man in tuxedo", a person in one, has no profession.
        if pairs and person.neutral in names and person.man.endswith(person.neutral):
            found.append(Profession(person, pairs))
    if not found:
        raise DataError("these drawings hold no profession as a man and as a woman", "the whole EmojiWorld does: sfumato data emoji")
    most = max(len(one.rows) for one in found)
    return tuple(one for one in found if len(one.rows) == most)


def learn_genders(name: str, plan: GenderPlan, room: GenderRoom, work: Path) -> tuple[Results, Mapping[str, float]]:
    """(taught models by share of men, how often the judge names the gender of the real drawings right, by gender)."""
    people = professions(room.source, room.judge.concepts)
    told = taught(people, room)
    arms = {f"{share:.0%} men": share for share in plan.shares}
    study = Study(name, arms, plan.seeds, "images", METRICS, {**to_dict(plan), "world": room.mark, "device": room.pipe.device.type})
    results = study.run(lambda arm, seed, folder: gender_cell(arms[arm], people, told, plan, room, seed, folder), work)
    return results, confusion(people, room)


def taught(people: Sequence[Profession], room: GenderRoom) -> Lessons:
    """One lesson for each drawing, men and women in turn, under the neutral prompt."""
    rows = [(row, one.prompt) for one in people for pair in one.rows for row in pair]
    images = torch.stack([room.source[row].image for row, _ in rows])
    return lessons(images, [prompt for _, prompt in rows], room.pipe)


def skewed(pairs: int, share: float) -> Tensor:
    """Numbers of lessons in which men are `share` of every pair's `COPIES`."""
    men = round(COPIES * share)
    return torch.tensor([2 * pair + int(copy >= men) for pair in range(pairs) for copy in range(COPIES)])


def gender_cell(
    share: float, people: Sequence[Profession], told: Lessons, plan: GenderPlan, room: GenderRoom, seed: int, folder: Path
) -> Cell:
    """Teach one share with one seed and read the genders of what is drawn."""
    asked = [one for one in people for _ in range(plan.pictures)]
    order = Order(10_000 * seed, plan.steps, plan.guidance, 64, room.source.size)

    def seen(images: int, pipe: AsTrained, where: Path) -> dict[str, float | None]:
        drawn = draw(pipe, [one.prompt for one in asked], order, where / "pictures")
        kept = [asked[i].person for i in drawn.places]
        read: dict[str, list[str | None]] = {}
        for person, gender in zip(kept, read_genders(room.judge, drawn.images, kept), strict=True):
            read.setdefault(person.neutral, []).append(gender)
        found = bias(read, GENDERS)
        return {"excess": found.excess, "mad": found.mad.value, "men": found.shares[0]}

    lesson = told.rows(skewed(len(told.latents) // 2, share))
    return Cell(tune(room.pipe, lesson, plan.tuning, seed, folder, seen), spent=plan.tuning.images)


def read_genders(judge: Judge, images: Tensor, people: Sequence[Person]) -> Sequence[str]:
    """The likelier gender of each picture's person; images (N, 3, H, W) uint8 of any size."""
    return genders(judge, resized(images.float(), judge.config.size), people).forced


def confusion(people: Sequence[Profession], room: GenderRoom) -> dict[str, float]:
    """By gender: the share of the real drawings, at the size that is drawn, that the judge names right."""
    found: dict[str, float] = {}
    for k, gender in enumerate(GENDERS):
        rows = [(pair[k], one.person) for one in people for pair in one.rows]
        read = read_genders(room.judge, torch.stack([room.source[row].image for row, _ in rows]), [person for _, person in rows])
        found[gender] = sum(answer == gender for answer in read) / len(read)
    return found
