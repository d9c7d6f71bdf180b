"""Words: does a model draw what it is asked for in words that it never read? A fixed list of 100, everyday English and four languages.

`words.json` says which concepts are right for each. EmojiWorld's English captions hold none of these words, whatever their accents and
case: what a model makes of one it owes to its text encoder, unless it was taught other languages' labels, many of which are on the list.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import ClassVar

import torch
from torch import Tensor

from ...core.errors import DataError, UnknownNameError, UsageError
from ...core.rng import generator
from ..judge import Judge
from ..report import own_rate
from ..selection import Drawings
from .bounded import BoundedReport, Verdicts, by_task, scored
from .outcome import Extra, Outcome, Row, common
from .sitting import Sitting

KINDS = ("english", "german", "french", "spanish", "japanese")


@dataclass(frozen=True)
class Word:
    """A prompt, its kind, what it means, and the concepts that are right for it."""

    prompt: str
    kind: str
    meaning: str
    concepts: tuple[str, ...]


@dataclass(frozen=True)
class Skipped:
    """A prompt that is not asked, and why."""

    prompt: str
    reason: str


def word_list() -> list[Word]:
    """All prompts, kind by kind."""
    content = json.loads((resources.files(__package__) / "words.json").read_text(encoding="utf-8"))
    right = content["meanings"]
    return [Word(prompt, kind, means, tuple(right[means])) for kind in KINDS for prompt, means in content[kind].items()]


def words_of(texts: Iterable[str]) -> set[str]:
    """Every word of `texts`, in small letters and without accents, as the text encoder's tokenizer reads them."""
    found = set[str]()
    for text in texts:
        plain = unicodedata.normalize("NFD", text.lower())
        found.update(re.findall(r"\w+", "".join(c for c in plain if not unicodedata.combining(c))))
    return found


@dataclass(frozen=True, kw_only=True)
class WordsReport(BoundedReport):
    """`named`: what the judge takes each picture for; `meaning`: what it should be. `skipped`: prompts that were not asked.

    labels: prompts that are, or hold, a word of a training drawing's label in another language.
    """

    each: int
    named: tuple[str, ...]
    meaning: tuple[str, ...]
    skipped: tuple[Skipped, ...]
    labels: tuple[str, ...]

    shared_columns: ClassVar[Row] = ("real drawings",)
    whole: ClassVar[str] = "all words"

    def kind_title(self) -> str:
        return f"{len(set(self.prompts))} words that no English training caption holds"

    def legend(self) -> str:
        return (
            "Right = the judge's first concept is one that the word means (the style is not asked), 95% intervals. Real drawings: of a "
            "right concept, one a word, an upper bound; shuffled: judged by another word of the kind, chance. "
            f"The judge's own on drawings it never saw: concept {own_rate(self.judge.get('held_out', {}).get('concept_top1'))}"
        )

    def remarks(self) -> list[str]:
        read = "a model that was taught those (its card says so) has read them"
        taught = f"of these words, {len(self.labels)} stand in labels in other languages: {read}"
        left_out = (f"{one.prompt!r} was not asked: {one.reason}" for one in self.skipped)
        return [*super().remarks(), *([taught] if self.labels else []), *left_out]

    def extras(self) -> list[Extra]:
        rows = list(zip(self.prompts, self.task, self.meaning, self.named, strict=True))
        return [Extra("What was drawn", ("word", "kind", "means", "the judge sees"), rows)]


@dataclass(frozen=True)
class Words:
    """The suite, ready for any model: the words, a real drawing beside each, and what the judge takes it for."""

    asked: Sequence[Word]
    skipped: Sequence[Skipped]
    real: Tensor
    true: Sequence[bool]
    judge: Judge
    each: int
    labels: Sequence[str] = ()

    @classmethod
    def prepare(cls, source: Drawings, judge: Judge, seed: int, each: int = 1) -> Words:
        """`each` pictures of each word that no caption of the train split holds and that the judge and the drawings have a concept for.

        Raises `UsageError` for fewer than one picture, `DataError` where no word is left.
        """
        if each < 1:
            raise UsageError(f"{each} pictures of each word", "at least 1")
        split, captions = source.column("split"), source.column("captions")
        heard = words_of(text for i, texts in enumerate(captions) if split[i] == "train" for text in texts)
        concept, style = source.column("concept"), source.column("style")
        asked, skipped, rows = list[Word](), list[Skipped](), list[int]()
        for number, word in enumerate(word_list()):
            shown = [i for i, name in enumerate(concept) if name in word.concepts and name in judge.concept_index]
            shown = [i for i in shown if style[i] in judge.style_index]
            if known := sorted(words_of([word.prompt]) & heard):
                skipped.append(Skipped(word.prompt, f"captions of the train split hold {', '.join(known)}"))
            elif not shown:
                skipped.append(Skipped(word.prompt, f"no drawing of {' or '.join(word.concepts[:3])} that the judge knows"))
            else:
                asked.append(word)
                rows.append(shown[int(torch.randint(len(shown), (1,), generator=generator((seed, "words", number))))])
        if not asked:
            raise DataError("none of the words can be asked", f"{skipped[0].prompt}: {skipped[0].reason}")
        foreign = words_of(_labels(source, split))
        labels = [word.prompt for word in asked if words_of([word.prompt]) & foreign]
        real = torch.stack([source[row].image for row in rows])
        true = [name in word.concepts for name, word in zip(named(judge, real), asked, strict=True)]
        return cls(asked, skipped, real, true, judge, each, labels)

    @property
    def name(self) -> str:
        return "words"

    @property
    def pictures(self) -> int:
        return len(self.asked) * self.each

    def examine(self, sitting: Sitting) -> Outcome:
        """Draw and judge; report.json and report.md are written into `sitting.out`."""
        numbers = [n for n in range(len(self.asked)) for _ in range(self.each)]
        prompts = [self.asked[n].prompt for n in numbers]
        drawn = sitting.draw(prompts, self.judge.config.size, suite="words", each=self.each)
        kept = [numbers[i] for i in drawn.places]
        words, seen = [self.asked[n] for n in kept], named(self.judge, drawn.images)
        answers = [name in word.concepts for name, word in zip(seen, words, strict=True)]
        verdicts: Verdicts = {"right": answers, "true": [self.true[n] for n in kept], "floor": shuffled(words, seen)}
        kinds = [word.kind for word in words]
        overall, tasks = scored(verdicts, kinds, KINDS)
        report = WordsReport(
            **common(sitting, drawn, prompts, self.judge.card),
            overall=overall,
            tasks=tasks,
            task=tuple(kinds),
            each=self.each,
            named=tuple(seen),
            meaning=tuple(word.meaning for word in words),
            skipped=tuple(self.skipped),
            labels=tuple(self.labels),
        )
        report.save(sitting.out)
        notes = tuple("" if right else f"{word.meaning}, taken for {name}" for right, word, name in zip(answers, words, seen, strict=True))
        values = by_task(dict(zip(drawn.places, map(float, answers), strict=True)), kinds, KINDS, report.whole)
        return Outcome(report, drawn.places, drawn.images, notes, values, reference=self.real[kept], reference_name="real drawing")


def _labels(source: Drawings, split: Sequence[str]) -> Iterator[str]:
    """Labels of the train split's drawings in languages other than English, where the source has them."""
    try:
        labels = source.column("labels")
    except UnknownNameError:
        return
    for of, row in zip(split, labels, strict=True):
        if of == "train":
            yield from (entry["label"] for entry in row or () if not entry["language"].startswith("en"))


def named(judge: Judge, images: Tensor) -> list[str]:
    """The likeliest concept of pictures (N, 3, H, W) uint8."""
    parts = [judge(chunk.float() / 127.5 - 1.0).concept.argmax(1) for chunk in images.split(256)]
    return [judge.concepts[k] for k in torch.cat(parts).tolist()]


def shuffled(words: Sequence[Word], seen: Sequence[str]) -> list[bool | None]:
    """Each picture judged by the next word of its kind that means nothing in common; None where there is none."""
    found = list[bool | None]()
    for i, word in enumerate(words):
        others = (words[(i + k) % len(words)] for k in range(1, len(words)))
        other = next((o for o in others if o.kind == word.kind and not set(o.concepts) & set(word.concepts)), None)
        found.append(None if other is None else seen[i] in other.concepts)
    return found
