"""Prompts that ask for one thing each, as GenEval does (arXiv 2310.11513): single, two objects, count, colour, position, binding, text.

Unlike a probe, a task says which drawings it may use, so that an evaluation can keep to what a model was trained on, or to what it was not.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Literal, get_args

from sfumato.core.errors import DataError

from .captions import facts_of, related, short
from .cast import Cast
from .content import familiar
from .description import Scene, dice
from .lettering import WORDS
from .probes import Usable, staged, two_things

TaskName = Literal["single", "two", "count", "colour", "position", "binding", "text"]
TASKS: tuple[TaskName, ...] = get_args(TaskName)
MOST_COUNTED = 4
DIFFICULTY = 3
TRIES = 200


@dataclass(frozen=True)
class Posed:
    """A prompt for one task and a scene that it describes. What the task asks of a picture is read off the scene."""

    task: TaskName
    prompt: str
    scene: Scene


def pose(
    cast: Cast,
    task: TaskName,
    seed: int,
    index: int,
    first_of: Usable = familiar,
    second_of: Usable = familiar,
    fits: Callable[[Posed], bool] = lambda posed: True,
) -> Posed:
    """The prompt (task, seed, index): its first thing is one of `first_of`, another one of `second_of`; drawn anew until `fits`.

    Raises `DataError` when the world has no such things or no scene fits.
    """
    rng = dice(f"task {task}", seed, index)
    for _ in range(TRIES):
        posed = _MAKERS[task](cast, rng, first_of, second_of)
        if fits(posed):
            return posed
    raise DataError(f"no scene for the task {task} fits, in {TRIES} tries", "a world of more concepts is needed: sfumato data emoji")


def _short(task: TaskName, scene: Scene) -> Posed:
    return Posed(task, short(facts_of(scene)), scene)


def _single(cast: Cast, rng: Random, first_of: Usable, second_of: Usable) -> Posed:
    group, _ = two_things(cast, rng, False, first_of, second_of)
    return _short("single", staged(cast, rng, DIFFICULTY, (group,)))


def _two(cast: Cast, rng: Random, first_of: Usable, second_of: Usable) -> Posed:
    return _short("two", staged(cast, rng, DIFFICULTY, two_things(cast, rng, False, first_of, second_of)))


def _count(cast: Cast, rng: Random, first_of: Usable, second_of: Usable) -> Posed:
    group, _ = two_things(cast, rng, False, first_of, second_of)
    return _short("count", staged(cast, rng, DIFFICULTY, (replace(group, count=rng.randint(2, MOST_COUNTED)),)))


def _colour(cast: Cast, rng: Random, first_of: Usable, second_of: Usable) -> Posed:
    group, _ = two_things(cast, rng, True, first_of, second_of)
    return _short("colour", staged(cast, rng, DIFFICULTY, (group,)))


def _position(cast: Cast, rng: Random, first_of: Usable, second_of: Usable) -> Posed:
    scene = staged(cast, rng, DIFFICULTY, two_things(cast, rng, False, first_of, second_of))
    return Posed("position", related(facts_of(scene), scene.relations[0]), scene)


def _binding(cast: Cast, rng: Random, first_of: Usable, second_of: Usable) -> Posed:
    return _short("binding", staged(cast, rng, DIFFICULTY, two_things(cast, rng, True, first_of, second_of)))


def _text(cast: Cast, rng: Random, first_of: Usable, second_of: Usable) -> Posed:
    group, _ = two_things(cast, rng, False, first_of, second_of)
    return _short("text", staged(cast, rng, DIFFICULTY, (group,), rng.choice(WORDS)))


_MAKERS: dict[TaskName, Callable[[Cast, Random, Usable, Usable], Posed]] = {
    "single": _single, "two": _two, "count": _count, "colour": _colour, "position": _position, "binding": _binding, "text": _text,
}  # fmt: skip
