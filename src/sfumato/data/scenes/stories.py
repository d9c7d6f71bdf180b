"""Several pictures that share drawings: subject sets (one drawing in several scenes) and stories (the same characters, frame by frame)."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace

from .captions import backdrop
from .cast import ANIMALS, Cast
from .content import Content, Group, draw_background, draw_content, familiar, level_of, pick_figure
from .description import Scene, dice
from .lettering import WORDS
from .nouns import article, counted
from .plan import arrange


@dataclass(frozen=True)
class SubjectSet:
    """One drawing (`drawing`, of `concept`), alone of its concept and as drawn, in each of `scenes`."""

    drawing: str
    concept: str
    scenes: tuple[Scene, ...]


@dataclass(frozen=True)
class Frame:
    """One picture of a story and the sentence that goes with it."""

    sentence: str
    scene: Scene


@dataclass(frozen=True)
class Story:
    """4 to 6 frames; `characters` are the drawings that keep coming back. The first frame is what a story generator is given."""

    characters: tuple[str, ...]
    frames: tuple[Frame, ...]


def subjects(cast: Cast, seed: int, index: int, difficulty: int = 3, count: int = 4) -> SubjectSet:
    """The subject set (seed, index): `count` scenes of their own content and background around one drawing."""
    rng = dice(f"subjects {difficulty}", seed, index)
    figure = pick_figure(cast, rng, familiar, None, set())
    keep = [Group(figure)]
    contents = [draw_content(cast, rng, difficulty, least=2, keep=keep) for _ in range(count)]
    return SubjectSet(figure.drawing, figure.concept, tuple(arrange(cast, rng, content, difficulty).scene for content in contents))


def story(cast: Cast, seed: int, index: int, difficulty: int = 3) -> Story:
    """The story (seed, index): two characters of one style who meet, find things, read a sign, go elsewhere and part."""
    rng = dice(f"story {difficulty}", seed, index)
    animals = [c for c in cast.things if any(f.subgroup in ANIMALS for f in cast.by_concept[c].values())]
    first = pick_figure(cast, rng, familiar, None, set(), animals)
    second = pick_figure(cast, rng, familiar, first.style, {first.concept}, animals)
    hero, friend = Group(first), Group(second)
    background = draw_background(rng, level_of(difficulty).backgrounds)
    told: list[tuple[str, Content]] = [
        (f"Once there was {article(first.concept)}, {backdrop(background)}.", Content((hero,), "", background))
    ]
    scene, together = told[0][1], False
    for event in [*rng.sample(["meet", "find", "read", "go"], rng.randint(2, 4)), "part", "go"]:
        if len(told) == 6 or (event == "part" and not together):
            continue
        sentence, scene, together = _event(cast, rng, event, (hero, friend), scene, together, difficulty)
        told.append((sentence, scene))
    return Story((first.drawing, second.drawing), tuple(Frame(said, arrange(cast, rng, c, difficulty).scene) for said, c in told))


def _event(
    cast: Cast, rng: random.Random, event: str, pair: tuple[Group, Group], last: Content, together: bool, difficulty: int
) -> tuple[str, Content, bool]:
    """(the sentence, what its picture shows, whether the two are together after it)."""
    hero, friend = pair
    if event == "meet":
        said = f"The {hero.figure.concept} meets {article(friend.figure.concept)}."
        return said, replace(last, groups=pair, word=""), True
    if event == "part":
        said = f"The {friend.figure.concept} leaves, and the {hero.figure.concept} is alone again."
        return said, replace(last, groups=(hero,), word=""), False
    present = pair if together else (hero,)
    who = " and ".join(f"the {group.figure.concept}" for group in present)
    who, ending = who[0].upper() + who[1:], "" if together else "s"
    if event == "find":
        thing = pick_figure(cast, rng, familiar, hero.figure.style, {group.figure.concept for group in pair})
        found = Group(thing, rng.randint(1, 3))
        return f"{who} find{ending} {counted(found.count, '', thing.concept)}.", replace(last, groups=(*present, found), word=""), together
    if event == "read":
        word = rng.choice(WORDS)
        return f'{who} read{ending} a sign that says "{word}".', replace(last, groups=present, word=word), together
    go = "go on" if together else "goes on"
    background = draw_background(rng, level_of(difficulty).backgrounds)
    while background == last.background:
        background = draw_background(rng, level_of(difficulty).backgrounds)
    said = f"{who} {go} and come{ending} to a new place, {backdrop(background)}."
    return said, Content(present, "", background), together
