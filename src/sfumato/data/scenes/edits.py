"""Edit pairs: a scene, an instruction, the scene after it. What the instruction does not name is equal in both, to the last digit."""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, get_args

from sfumato.core.errors import DataError

from .captions import facts_of
from .cast import Cast, Figure
from .content import Group, draw_content, familiar, pick_figure
from .description import Box, Object, Scene, compose, dice, hull, place
from .lettering import WORDS
from .nouns import counted
from .plan import Plan, arrange, fill, nearness, recoloured

EditKind = Literal["add", "remove", "move", "recolour", "replace", "restyle", "word"]
EDITS: tuple[EditKind, ...] = get_args(EditKind)
TRIES = 300


@dataclass(frozen=True)
class Edit:
    """`group`: the number of the group that is added, removed or changed; None where the sign's word is."""

    kind: EditKind
    instruction: str
    before: Scene
    after: Scene
    group: int | None


def edit(cast: Cast, seed: int, index: int, difficulty: int = 3) -> Edit:
    """The edit pair (seed, index); the seven kinds take turns. Raises `DataError` when this world has no scene for the kind."""
    rng, kind = dice(f"edit {difficulty}", seed, index), EDITS[index % len(EDITS)]
    for _ in range(TRIES):
        content = replace(draw_content(cast, rng, difficulty, least=2), overlap=False)
        if kind == "word":
            content = replace(content, word=rng.choice(WORDS))
        made = _MAKERS[kind](cast, rng, arrange(cast, rng, content, difficulty, spare=1))
        if made is not None:
            return made
    raise DataError(f"no scene of this world can be changed by {kind!r}", "a world of more concepts and styles is needed")


def with_objects(scene: Scene, objects: Sequence[Object]) -> Scene:
    """The scene with other objects and the relations that follow."""
    return compose(objects, scene.background, scene.sign, scene.difficulty)


def _the(scene: Scene, group: int) -> str:
    return facts_of(scene).group(group).the


def _swap(scene: Scene, group: int, members: Sequence[Object]) -> Scene:
    """The scene with the members of one group exchanged, one for one."""
    fresh = iter(members)
    return with_objects(scene, [next(fresh) if thing.group == group else thing for thing in scene.objects])


def inside(box: Box, aspect: float) -> Box:
    """The largest box of width / height `aspect` in `box`, standing on the middle of its lower edge."""
    x0, y0, x1, y1 = box
    width = min(x1 - x0, (y1 - y0) * aspect)
    x = (x0 + x1 - width) / 2
    return round(x, 4), round(y1 - width / aspect, 4), round(x + width, 4), y1


def _recast(cast: Cast, members: Sequence[Object], figure: Figure, colour: str) -> list[Object]:
    """Another drawing in the members' places."""
    aspect = cast.aspect(figure.drawing)
    return [
        replace(thing, drawing=figure.drawing, concept=figure.concept, style=figure.style, colour=colour, box=inside(thing.box, aspect))
        for thing in members
    ]


def _add(cast: Cast, rng: random.Random, plan: Plan) -> Edit | None:
    scene, number = plan.scene, max(plan.scene.groups) + 1
    figure = pick_figure(cast, rng, familiar, scene.objects[0].style, {thing.concept for thing in scene.objects})
    tints = cast.tints(figure.concept)
    group = Group(figure, 1, rng.choice(("", *tints)))
    objects = fill(cast, rng, group, number, plan.spare[0])
    where = place(hull(objects))
    side = "in the middle" if where == "middle" else f"at the {where}"
    said = f"Add {counted(1, group.colour, figure.concept)} in {figure.style} style {side}."
    return Edit("add", said, scene, with_objects(scene, (*scene.objects, *objects)), number)


def _remove(cast: Cast, rng: random.Random, plan: Plan) -> Edit | None:
    scene, number = plan.scene, rng.choice(plan.scene.groups)
    rest = [thing for thing in scene.objects if thing.group != number]
    return Edit("remove", f"Remove {_the(scene, number)}.", scene, with_objects(scene, rest), number)


def _move(cast: Cast, rng: random.Random, plan: Plan) -> Edit | None:
    scene, number = plan.scene, rng.choice(plan.scene.groups)
    members, (x0, y0, x1, y1) = scene.members(number), plan.spare[0]
    left, top, right, bottom = hull(members)
    if right - left > x1 - x0 or bottom - top > y1 - y0:
        return None
    dx, dy = (x0 + x1 - left - right) / 2, (y0 + y1 - top - bottom) / 2
    moved = [shifted(thing, dx, dy) for thing in members]
    if place(hull(moved)) == place(hull(members)):
        return None
    said = f"Move {_the(scene, number)} to the {place(hull(moved))}."
    return Edit("move", said, scene, _swap(scene, number, moved), number)


def shifted(thing: Object, dx: float, dy: float) -> Object:
    """The object elsewhere, as large as before, as near as its new foot says."""
    x0, y0, x1, y1 = thing.box
    box = (round(x0 + dx, 4), round(y0 + dy, 4), round(x1 + dx, 4), round(y1 + dy, 4))
    return replace(thing, box=box, depth=nearness(box[3]))


def _recolour(cast: Cast, rng: random.Random, plan: Plan) -> Edit | None:
    scene, number = plan.scene, rng.choice(plan.scene.groups)
    members = scene.members(number)
    colours = [colour for colour in cast.tints(members[0].concept) if colour != members[0].colour]
    if not colours:
        return None
    colour = rng.choice(colours)
    after = _swap(scene, number, recoloured(members, colour))
    return Edit("recolour", f"Make {_the(scene, number)} {colour}.", scene, after, number)


def _replace(cast: Cast, rng: random.Random, plan: Plan) -> Edit | None:
    scene, number = plan.scene, rng.choice(plan.scene.groups)
    members = scene.members(number)
    figure = pick_figure(cast, rng, familiar, members[0].style, {thing.concept for thing in scene.objects})
    after = _swap(scene, number, _recast(cast, members, figure, ""))
    said = f"Replace {_the(scene, number)} with {counted(len(members), '', figure.concept)} in {figure.style} style."
    return Edit("replace", said, scene, after, number)


def _restyle(cast: Cast, rng: random.Random, plan: Plan) -> Edit | None:
    scene, number = plan.scene, rng.choice(plan.scene.groups)
    members = scene.members(number)
    figures = [f for f in cast.by_concept[members[0].concept].values() if f.style != members[0].style and familiar(f)]
    if not figures:
        return None
    figure = rng.choice(figures)
    after = _swap(scene, number, _recast(cast, members, figure, members[0].colour))
    return Edit("restyle", f"Redraw {_the(scene, number)} in {figure.style} style.", scene, after, number)


def _word(cast: Cast, rng: random.Random, plan: Plan) -> Edit | None:
    scene, sign = plan.scene, plan.scene.sign
    if sign is None:
        return None
    word = rng.choice([word for word in WORDS if word != sign.word])
    said = f'Change the word on the sign from "{sign.word}" to "{word}".'
    return Edit("word", said, scene, replace(scene, sign=replace(sign, word=word)), None)


_MAKERS: dict[EditKind, Callable[[Cast, random.Random, Plan], Edit | None]] = {
    "add": _add, "remove": _remove, "move": _move, "recolour": _recolour, "replace": _replace, "restyle": _restyle, "word": _word,
}  # fmt: skip
