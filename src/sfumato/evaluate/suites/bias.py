"""Bias: which gender a model draws when the prompt names none (DALL-Eval, arXiv 2202.04053, section 4, on EmojiWorld's people)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

from ...core.errors import UsageError
from ..judge import Judge
from ..metrics import Bias as Measured
from ..metrics import Score, bias, fair_range
from ..report import percent, plain
from ..selection import Drawings
from .neutral import ANSWERS, GENDERS, Confusion, JudgeError, Neutral, genders, judge_error, select_neutral
from .outcome import Extra, Outcome, Row, SuiteReport, common
from .sitting import Sitting

EACH = 12


@dataclass(frozen=True, kw_only=True)
class BiasReport(SuiteReport):
    """`free`: pictures in which the judge sees neither gender are dropped; None when it sees none in any. `forced`: it must name one.

    `free_even`, `forced_even`: the range of the MAD of 95 of 100 even models at the same numbers of pictures. `each` pictures a prompt were
    asked for; `recognised`: pictures whose likeliest concept of all is one of the person's own three.
    """

    each: int
    free: Measured | None
    free_even: tuple[float, float]
    forced: Measured
    forced_even: tuple[float, float]
    recognised: Score
    error: JudgeError

    own_columns: ClassVar[Row] = ("judge may say neither", "man or woman forced")

    def rows(self) -> list[Row]:
        def row(title: str, cell: Callable[[Measured, tuple[float, float]], str]) -> Row:
            return title, "no gender seen" if self.free is None else cell(self.free, self.free_even), cell(self.forced, self.forced_even)

        return [
            row("MAD (0 even, 0.5 one gender)", lambda found, even: plain(found.mad)),
            row("... of an even model", lambda found, even: f"{found.floor:.3f}, 95% in [{even[0]:.3f}, {even[1]:.3f}]"),
            row("... excess over that", lambda found, even: f"{found.excess:+.3f}"),
            *(row(f"share drawn as {gender}", lambda found, even, k=k: f"{found.shares[k]:.1%}") for k, gender in enumerate(GENDERS)),  # type: ignore[misc]
            row("gender seen in", self._seen),
            ("recognised as that person", percent(self.recognised), ""),
        ]

    def _seen(self, found: Measured, even: tuple[float, float]) -> str:
        pictures = sum(prompt.count for prompt in found.prompts.values())
        return f"{pictures} of {self.count} pictures, {len(found.prompts)} of {len(set(self.prompts))} prompts"

    def kind_title(self) -> str:
        return f"gender in {self.count} pictures of {len(set(self.prompts))} neutral prompts"

    def legend(self) -> str:
        return (
            f"MAD: mean over prompts of how far the shares of {' and '.join(GENDERS)} lie from one half, 95% bootstrap interval over "
            f"prompts. At few pictures an even model is not even: only a MAD outside of its range says something. {self._own()}"
        )

    def _own(self) -> str:
        count = sum(sum(answers.values()) for answers in self.error.unseen.values())
        right = sum(answers[shown] for shown, answers in self.error.unseen.items())
        return f"The judge itself is right on {right} of {count} real drawings of these people that it never saw (all answers: the page)."

    def extras(self) -> list[Extra]:
        tables = [Extra("Shares by prompt", ("prompt", *GENDERS, "pictures", "MAD", "expected of an even model"), self._by_prompt())]
        told = {"it never saw": self.error.unseen, "it never saw, forced": self.error.forced, "it learned from": self.error.learned}
        for title, counts in told.items():
            headings = ("shows", *(f"judged {a}" for a in ANSWERS))
            tables.append(Extra(f"The judge on real drawings {title}", headings, _confusion(counts)))
        return tables

    def _by_prompt(self) -> list[Row]:
        found = {} if self.free is None else self.free.prompts
        return [(n, *(f"{s:.0%}" for s in p.shares), str(p.count), f"{p.mad:.3f}", f"{p.floor:.3f}") for n, p in found.items()]


def _confusion(counts: Confusion) -> list[Row]:
    return [(shown, *(str(counts[shown][answer]) for answer in ANSWERS)) for shown in ANSWERS]


@dataclass(frozen=True)
class Bias:
    """The suite, ready for any model: `each` pictures of each neutral prompt, and the judge's own error."""

    asked: Sequence[Neutral]
    each: int
    judge: Judge
    error: JudgeError

    @classmethod
    def prepare(cls, source: Drawings, judge: Judge, count: int, seed: int, each: int = EACH) -> Bias:
        """`count` pictures or a few fewer, `each` of a prompt. Raises `UsageError`, `DataError` when the drawings have no such people."""
        if each < 1 or count < each:
            raise UsageError(f"{count} pictures, {each} of each neutral prompt", "at least 1 of each, and enough for one prompt")
        return cls(select_neutral(source, judge, count // each, seed), each, judge, judge_error(source, judge))

    @property
    def name(self) -> str:
        return "bias"

    @property
    def pictures(self) -> int:
        return len(self.asked) * self.each

    def examine(self, sitting: Sitting) -> Outcome:
        """Draw and judge; report.json and report.md are written into `sitting.out`."""
        asked = [one for one in self.asked for _ in range(self.each)]
        prompts = [one.prompt for one in asked]
        drawn = sitting.draw(prompts, self.judge.config.size, suite="bias", each=self.each)
        kept = [asked[i] for i in drawn.places]
        seen = genders(self.judge, drawn.images, [one.person for one in kept])
        named = _by_prompt(kept, [None if answer == "neither" else answer for answer in seen.free])
        free = bias(named, GENDERS) if any(answer for answers in named.values() for answer in answers) else None
        forced = bias(_by_prompt(kept, seen.forced), GENDERS)
        report = BiasReport(
            **common(sitting, drawn, prompts, self.judge.card),
            each=self.each,
            free=free,
            free_even=_even(free) if free else (0.0, 0.5),
            forced=forced,
            forced_even=_even(forced),
            recognised=Score.rate(seen.known),
            error=self.error,
        )
        report.save(sitting.out)
        numbers = {one.prompt: k for k, one in enumerate(self.asked)}
        values = {
            title: {numbers[prompt]: found.mad - found.floor for prompt, found in side.prompts.items()}
            for title, side in (("excess of MAD", report.free), ("excess of MAD, forced", report.forced))
            if side is not None
        }
        told = tuple(
            f"{answer}{'' if known else ', hardly that person'}" for answer, known in zip(seen.free, seen.known.tolist(), strict=True)
        )
        return Outcome(report, drawn.places, drawn.images, told, values, lower=tuple(values), faulty=False)


def _by_prompt(kept: Sequence[Neutral], answers: Sequence[str | None]) -> Mapping[str, list[str | None]]:
    found: dict[str, list[str | None]] = {}
    for one, answer in zip(kept, answers, strict=True):
        found.setdefault(one.prompt, []).append(answer)
    return found


def _even(found: Measured) -> tuple[float, float]:
    return fair_range(len(GENDERS), [prompt.count for prompt in found.prompts.values()])
