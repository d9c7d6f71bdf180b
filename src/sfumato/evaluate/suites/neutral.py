"""Neutral prompts: people that EmojiWorld draws as nobody in particular, as a man and as a woman, and how well a judge tells the three.

Gender is read off the Unicode labels ("firefighter", "man firefighter", "woman firefighter"; "person running", "man running", ...): the
data's own attribute is empty for the professions. Skin tone is not measured: this data set has no drawings with one.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ...core.errors import DataError, UsageError
from ...core.rng import generator
from ...data.captions import phrase
from ...data.scenes.nouns import article
from ..judge import Judge
from ..selection import Drawings

Gender = Literal["man", "woman"]
GENDERS: tuple[Gender, ...] = ("man", "woman")
ANSWERS = ("neither", *GENDERS)


@dataclass(frozen=True)
class Person:
    """Labels of one person's three drawings."""

    neutral: str
    man: str
    woman: str

    @property
    def labels(self) -> tuple[str, str, str]:
        """In the order of `ANSWERS`."""
        return self.neutral, self.man, self.woman


@dataclass(frozen=True)
class Neutral:
    """A person asked for in one style, without a gender."""

    person: Person
    style: str

    @property
    def prompt(self) -> str:
        return f"{article(phrase(self.person.neutral))}, {self.style} style"


def people_of(labels: Collection[str]) -> list[Person]:
    """The persons of whom all three labels are there, in alphabetical order.

    Labels that differ in the way a person faces are left out: they would count one activity twice.
    """
    found = []
    for label in sorted(set(labels)):
        head, rest = label[:6], label[6:]
        stems = ("man" + rest, "woman" + rest) if head == "person" and rest[:1] in ("", " ", ":") else (f"man {label}", f"woman {label}")
        if ": facing" not in label and all(stem in labels for stem in stems):
            found.append(Person(label, *stems))
    return found


def select_neutral(source: Drawings, judge: Judge, count: int, seed: int) -> list[Neutral]:
    """`count` neutral prompts (all, where there are fewer), shuffled by `seed`.

    A person is asked for in styles of which training saw all three drawings: what a model could not have learnt is no bias of it.
    Raises `UsageError` for a count below 1, `DataError` when there is no such person.
    """
    if count < 1:
        raise UsageError(f"{count} neutral prompts", "at least 1")
    columns = (map(str, source.column(name)) for name in ("concept", "style", "split"))
    seen = {(concept, style) for concept, style, split in zip(*columns, strict=True) if split == "train"}
    people = people_of(judge.concept_index)
    found = [Neutral(p, style) for p in people for style in judge.styles if all((label, style) in seen for label in p.labels)]
    if not found:
        raise DataError(
            "nobody is drawn neutrally, as a man and as a woman in one style that the judge knows",
            f"the whole EmojiWorld has such people: sfumato data emoji; styles: {', '.join(judge.styles)}",
        )
    order = torch.randperm(len(found), generator=generator((seed, "neutral", 0))).tolist()
    return [found[k] for k in order[:count]]


@dataclass(frozen=True)
class Seen:
    """What the judge says of N pictures of known persons: `free` chooses among neither, man and woman, `forced` between the genders;
    `known` whether its first guess among all concepts is one of the person's three."""

    free: tuple[str, ...]
    forced: tuple[str, ...]
    known: Tensor


def genders(judge: Judge, images: Tensor, people: Sequence[Person]) -> Seen:
    """Of images (N, 3, H, W) uint8, one of each of `people`: the largest logit among the person's own classes."""
    free, forced, known = [], [], []
    for start in range(0, len(images), 256):
        logits = judge(images[start : start + 256].float() / 127.5 - 1.0).concept
        for row, person in zip(logits, people[start : start + 256], strict=True):
            places = [judge.concept_index[label] for label in person.labels]
            free.append(ANSWERS[int(row[places].argmax())])
            forced.append(GENDERS[int(row[places[1:]].argmax())])
            known.append(int(row.argmax()) in places)
    return Seen(tuple(free), tuple(forced), torch.tensor(known, dtype=torch.bool))


Confusion = Mapping[str, Mapping[str, int]]


@dataclass(frozen=True)
class JudgeError:
    """How often the judge answers what, by what real drawings show: of those it never saw and of those it learned from; `forced`: where
    it must name a gender, on those it never saw."""

    unseen: Confusion
    learned: Confusion
    forced: Confusion


def judge_error(source: Drawings, judge: Judge) -> JudgeError:
    """From every drawing of a person whose style the judge knows."""
    people = people_of(judge.concept_index)
    shown = {label: (person, answer) for person in people for label, answer in zip(person.labels, ANSWERS, strict=True)}
    concepts, styles, splits = ([str(value) for value in source.column(name)] for name in ("concept", "style", "split"))
    rows = [i for i in range(len(source)) if concepts[i] in shown and styles[i] in judge.style_index]
    unseen, learned, forced = ({answer: dict.fromkeys(ANSWERS, 0) for answer in ANSWERS} for _ in range(3))
    if rows:
        seen = genders(judge, torch.stack([source[i].image for i in rows]), [shown[concepts[i]][0] for i in rows])
        for i, answer, gender in zip(rows, seen.free, seen.forced, strict=True):
            truth, known = shown[concepts[i]][1], splits[i] == "train"
            (learned if known else unseen)[truth][answer] += 1
            forced[truth][gender] += not known
    return JudgeError(unseen, learned, forced)
