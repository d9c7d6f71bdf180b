"""What is said about a scene: its facts, and captions that state them, or all of them but one.

Every caption is a function of `Facts`, never of the scene itself; a caption of changed facts is therefore wrong in exactly that change.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace

from .cast import Cast
from .colours import SOFT
from .description import OPPOSITE, Background, Relation, RelationKind, Scene, hull, place
from .lettering import WORDS
from .nouns import NUMBERS, article, counted, definite, listed

SAID: dict[RelationKind, str] = {
    "left of": "to the left of", "right of": "to the right of", "above": "above", "below": "below",
    "in front of": "in front of", "behind": "behind",
}  # fmt: skip


@dataclass(frozen=True)
class GroupFact:
    """`count` objects of one concept, style and tint ("" = as drawn), at `place` (see `description.place`)."""

    group: int
    count: int
    colour: str
    concept: str
    style: str
    place: str

    @property
    def a(self) -> str:
        """ "a red fox", "three foxes"."""
        return counted(self.count, self.colour, self.concept)

    @property
    def the(self) -> str:
        """ "the red fox", "the foxes"."""
        return definite(self.count, self.colour, self.concept)

    @property
    def verb(self) -> str:
        return "is" if self.count == 1 else "are"


@dataclass(frozen=True)
class Facts:
    """Everything a caption can say of a scene. `word` is "" without a sign."""

    groups: tuple[GroupFact, ...]
    relations: tuple[Relation, ...]
    background: Background
    word: str = ""
    word_place: str = ""

    @property
    def style(self) -> str:
        """The one style of all groups, "" for a mixture."""
        styles = {group.style for group in self.groups}
        return styles.pop() if len(styles) == 1 else ""

    def group(self, number: int) -> GroupFact:
        return next(group for group in self.groups if group.group == number)


@dataclass(frozen=True)
class Negative:
    """A caption with one wrong fact: which kind it is, what it says, what is true."""

    caption: str
    fact: str
    said: str
    true: str


def facts_of(scene: Scene) -> Facts:
    """The facts of a scene, its groups in their order."""
    groups = []
    for number in scene.groups:
        members = scene.members(number)
        one = members[0]
        groups.append(GroupFact(number, len(members), one.colour, one.concept, one.style, place(hull(members))))
    sign = scene.sign
    return Facts(tuple(groups), scene.relations, scene.background, sign.word if sign else "", place(sign.box) if sign else "")


def at(where: str) -> str:
    """ "in the middle", "at the top left"."""
    return f"{'in' if where == 'middle' else 'at'} the {where}"


def backdrop(background: Background) -> str:
    """ "on a pale blue background", "on green ground under a cream sky"."""
    first, second = (*background.colours, "")[:2]
    return {
        "plain": f"on {article(first)} background",
        "fade": f"on a background that fades from {first} to {second}",
        "ground": f"on {second} ground under {article(first)} sky",
        "stripes": f"on {first} and {second} stripes",
    }[background.kind]


def _styled(facts: Facts, text: str) -> str:
    return f"{text}, {facts.style} style" if facts.style else text


def _noun(facts: Facts, group: GroupFact) -> str:
    return group.a if facts.style else f"{group.a} in {group.style} style"


def _signed(facts: Facts) -> list[str]:
    return [f'a sign that says "{facts.word}"'] if facts.word else []


def short(facts: Facts) -> str:
    """ "two red foxes, a key and a sign that says "GO", noto style"."""
    return _styled(facts, listed([*(_noun(facts, group) for group in facts.groups), *_signed(facts)]))


def related(facts: Facts, stated: Relation) -> str:
    """One relation, then what else there is: "a key above two foxes, with a star, noto style"."""
    a, b = facts.group(stated.subject), facts.group(stated.object)
    others = [_noun(facts, group) for group in facts.groups if group not in (a, b)] + _signed(facts)
    text = f"{_noun(facts, a)} {SAID[stated.kind]} {_noun(facts, b)}"
    return _styled(facts, f"{text}, with {listed(others)}" if others else text)


def long(facts: Facts) -> str:
    """Sentences that say every fact: style, background, each group and where it is, each group's relation to the one before, the word."""
    lines = [f"A picture{f' in {facts.style} style' if facts.style else ''} {backdrop(facts.background)}."]
    lines += [f"There {group.verb} {_noun(facts, group)} {at(group.place)}." for group in facts.groups]
    for before, after in zip(facts.groups, facts.groups[1:], strict=False):
        kind = kind_between(facts, after.group, before.group)
        lines.append(f"T{after.the[1:]} {after.verb} {SAID[kind]} {before.the}.")
    if facts.word:
        lines.append(f'A sign {at(facts.word_place)} says "{facts.word}".')
    return " ".join(lines)


def kind_between(facts: Facts, a: int, b: int) -> RelationKind:
    """How group `a` stands to group `b`, whichever way round the facts hold it."""
    for stated in facts.relations:
        if (stated.subject, stated.object) == (a, b):
            return stated.kind
        if (stated.subject, stated.object) == (b, a):
            return OPPOSITE[stated.kind]
    raise KeyError((a, b))


def turned(facts: Facts) -> Facts:
    """The same facts with the groups told in reverse order."""
    return replace(facts, groups=facts.groups[::-1])


def captions_of(scene: Scene) -> tuple[str, ...]:
    """All true captions of a scene, each once: short in two orders, one per relation and its reverse, long in two orders."""
    facts = facts_of(scene)
    told = [short(facts), short(turned(facts))]
    for stated in facts.relations:
        told.append(related(facts, stated))
        told.append(related(facts, Relation(stated.object, OPPOSITE[stated.kind], stated.subject)))
    return tuple(dict.fromkeys([*told, long(facts), long(turned(facts))]))


def region_captions(scene: Scene) -> tuple[str, ...]:
    """What is in each item's box: the objects in order, then the sign."""
    told = [f"{counted(1, thing.colour, thing.concept)}, {thing.style} style" for thing in scene.objects]
    return (*told, *_signed(facts_of(scene)))


def negatives(cast: Cast, scene: Scene, rng: random.Random) -> tuple[Negative, ...]:
    """One caption per kind of fact the scene has, wrong in that alone: count, colour, concept, style, background, relation, word."""
    facts = facts_of(scene)
    wrong: list[Negative] = []

    def other(values: Sequence[str], *true: str) -> str:
        return rng.choice([value for value in values if value not in true])

    def changed(kind: str, said: str, true: str, group: GroupFact, **change: object) -> None:
        groups = tuple(replace(g, **change) if g is group else g for g in facts.groups)  # type: ignore[arg-type]
        wrong.append(Negative(short(replace(facts, groups=groups)), kind, said, true))

    group = rng.choice(facts.groups)
    count = rng.choice([n for n in range(1, 6) if n != group.count])
    changed("count", NUMBERS[count], NUMBERS[group.count], group, count=count)
    tinted = [group for group in facts.groups if group.colour]
    if tinted:
        group = rng.choice(tinted)
        colour = other(cast.tints(group.concept), group.colour)
        changed("colour", colour, group.colour, group, colour=colour)
    group = rng.choice(facts.groups)
    present = [g.concept for g in facts.groups]
    concept = other([thing for thing in cast.things if not group.colour or group.colour in cast.tints(thing)], *present)
    changed("concept", concept, group.concept, group, concept=concept)
    if facts.style and len(cast.styles) > 1:
        style = other(cast.styles, facts.style)
        groups = tuple(replace(g, style=style) for g in facts.groups)
        wrong.append(Negative(short(replace(facts, groups=groups)), "style", style, facts.style))
    first, *rest = facts.background.colours
    ground = replace(facts.background, colours=(other(sorted(SOFT), *facts.background.colours), *rest))
    wrong.append(Negative(long(replace(facts, background=ground)), "background", ground.colours[0], first))
    if facts.relations:
        true = rng.choice(facts.relations)
        false = replace(true, kind=OPPOSITE[true.kind])
        wrong.append(Negative(related(facts, false), "relation", false.kind, true.kind))
    if facts.word:
        word = other(WORDS, facts.word)
        wrong.append(Negative(short(replace(facts, word=word)), "word", word, facts.word))
    return tuple(wrong)
