"""Skills probes: prompts that ask for one thing each (object, count, spatial relation, colour binding, text), with the answer."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Literal, get_args

from sfumato.core.errors import DataError

from .captions import facts_of, related, short
from .cast import Cast, Figure
from .content import Content, Group, draw_background, familiar, level_of, pick_figure
from .description import Scene, dice
from .lettering import WORDS
from .nouns import NUMBERS, plural
from .plan import arrange

Skill = Literal["object", "count", "spatial", "colour", "text"]
SKILLS: tuple[Skill, ...] = get_args(Skill)
Usable = Callable[[Figure], bool]


@dataclass(frozen=True)
class Probe:
    """A prompt that asks for one skill, a question about the picture it should give, the right answer, and a scene that is right."""

    skill: Skill
    prompt: str
    question: str
    answer: str
    scene: Scene


def probe(cast: Cast, seed: int, index: int, difficulty: int = 3) -> Probe:
    """The probe (seed, index); the five skills take turns. Difficulty raises the count that is asked for, and mixes backgrounds."""
    rng, skill = dice(f"probe {difficulty}", seed, index), SKILLS[index % len(SKILLS)]
    return _MAKERS[skill](cast, rng, difficulty)


def two_things(
    cast: Cast, rng: Random, tinted: bool = False, first_of: Usable = familiar, second_of: Usable = familiar
) -> tuple[Group, Group]:
    """Two things of one style, each among the drawings that are usable for it; with `tinted`, in two colours."""
    for _ in range(300):
        first = pick_figure(cast, rng, first_of, None, set())
        second = pick_figure(cast, rng, second_of, first.style, {first.concept})
        if not tinted:
            return Group(first), Group(second)
        one, two = cast.tints(first.concept), cast.tints(second.concept)
        if one and two:
            colour = rng.choice(one)
            others = [other for other in two if other != colour]
            return Group(first, 1, colour), Group(second, 1, rng.choice(others))
    raise DataError("this world has no two things that take a colour", "a world of more concepts is needed")


def staged(cast: Cast, rng: Random, difficulty: int, groups: tuple[Group, ...], word: str = "") -> Scene:
    """A scene of these groups and this word, on a background of the difficulty."""
    content = Content(groups, word, draw_background(rng, level_of(difficulty).backgrounds))
    return arrange(cast, rng, content, difficulty).scene


def _object(cast: Cast, rng: Random, difficulty: int) -> Probe:
    group, _ = two_things(cast, rng)
    scene = staged(cast, rng, difficulty, (group,))
    return Probe("object", short(facts_of(scene)), "What is in the picture?", group.figure.concept, scene)


def _count(cast: Cast, rng: Random, difficulty: int) -> Probe:
    group, _ = two_things(cast, rng)
    count = rng.randint(2, 4 + difficulty)
    scene = staged(cast, rng, difficulty, (replace(group, count=count),))
    return Probe("count", short(facts_of(scene)), f"How many {plural(group.figure.concept)} are there?", NUMBERS[count], scene)


def _spatial(cast: Cast, rng: Random, difficulty: int) -> Probe:
    first, second = two_things(cast, rng)
    scene = staged(cast, rng, difficulty, (first, second))
    stated = scene.relations[0]
    question = f"Where is the {first.figure.concept}, seen from the {second.figure.concept}?"
    return Probe("spatial", related(facts_of(scene), stated), question, stated.kind, scene)


def _colour(cast: Cast, rng: Random, difficulty: int) -> Probe:
    groups = two_things(cast, rng, tinted=True)
    scene = staged(cast, rng, difficulty, groups)
    asked = rng.choice(groups)
    return Probe("colour", short(facts_of(scene)), f"What colour is the {asked.figure.concept}?", asked.colour, scene)


def _text(cast: Cast, rng: Random, difficulty: int) -> Probe:
    group, _ = two_things(cast, rng)
    word = rng.choice(WORDS)
    scene = staged(cast, rng, difficulty, (group,), word)
    return Probe("text", short(facts_of(scene)), "What does the sign say?", word, scene)


_MAKERS: dict[Skill, Callable[[Cast, Random, int], Probe]] = {
    "object": _object, "count": _count, "spatial": _spatial, "colour": _colour, "text": _text,
}  # fmt: skip
