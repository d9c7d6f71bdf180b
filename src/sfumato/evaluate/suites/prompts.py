"""The user's own prompts: how well pictures fit them, and whether they show what a line states."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from ...core.errors import UsageError
from ..judge import Judge
from ..metrics import Answer, Facts, Score, alignment
from ..report import own_rate, percent, plain
from ..witness import Witness, hear
from .lines import Asking, BadLine
from .outcome import Extra, Outcome, Row, SuiteReport, common
from .sitting import Sitting

EACH = 1


@dataclass(frozen=True, kw_only=True)
class PromptsReport(SuiteReport):
    """`aligned`: mean cosine of picture and prompt in the judge's space; `others`: to the file's other prompts, None for a single
    one. `right`: of the pictures whose line states what they show, None where none does; `answers` in their order."""

    file: str
    each: int
    aligned: Score
    others: Score | None
    right: Score | None
    answers: tuple[Answer | None, ...]
    bad_lines: tuple[BadLine, ...]

    own_columns: ClassVar[Row] = ("generated", "with other prompts")

    def rows(self) -> list[Row]:
        other = "only one prompt" if self.others is None else plain(self.others)
        rows: list[Row] = [("alignment (cosine)", plain(self.aligned), other)]
        return [*rows, (f"shows what is stated ({self.right.count})", percent(self.right), "")] if self.right else rows

    def kind_title(self) -> str:
        return f"{self.count} pictures of {len(set(self.prompts))} prompts in {self.file}"

    def legend(self) -> str:
        scenes = self.judge.get("scenes", {})
        told = f"; on scenes it never saw: mAP50 {own_rate(scenes.get('map50'))}, words {own_rate(scenes.get('words'))}"
        return f"95% intervals. The judge knows emoji drawings; elsewhere its cosine says little{told if self.right else ''}"

    def quality(self) -> tuple[str, Score] | None:
        return None if self.right is None else ("shows what is stated", self.right)

    def remarks(self) -> list[str]:
        lines = "; ".join(f"line {line.number}: {line.reason}" for line in self.bad_lines[:5])
        more = "; ..." if len(self.bad_lines) > 5 else ""
        many = f"{len(self.bad_lines)} lines of {self.file} are" if len(self.bad_lines) > 1 else f"1 line of {self.file} is"
        said = [f"{many} left out: {lines}{more}"] if self.bad_lines else []
        return [*super().remarks(), *said]

    def extras(self) -> list[Extra]:
        lines = [(str(line.number), line.reason) for line in self.bad_lines]
        return [Extra(f"Lines of {self.file} that are left out", ("line", "why"), lines)] if lines else []


@dataclass(frozen=True)
class Prompts:
    """The suite, ready for any model: `each` pictures of each line of `file`, seeds counted up from the line's own or the command's."""

    file: str
    asked: Sequence[Asking]
    bad: Sequence[BadLine]
    judge: Judge
    witness: Witness | None
    each: int = EACH

    def __post_init__(self) -> None:
        """Raises `UsageError` for fewer than one picture a prompt, or facts that nobody can look for."""
        if self.each < 1:
            raise UsageError(f"{self.each} pictures of each prompt", "at least 1")
        stated = next((line for line in self.asked if line.facts is not None), None)
        if stated is not None and self.witness is None:
            raise UsageError(f"line {stated.number} of {self.file} says what the picture shows", "a witness is needed")

    @property
    def name(self) -> str:
        return "prompts"

    @property
    def pictures(self) -> int:
        return len(self.asked) * self.each

    def examine(self, sitting: Sitting) -> Outcome:
        """Draw and judge; report.json and report.md are written into `sitting.out`."""
        asked = [line for line in self.asked for _ in range(self.each)]
        prompts = [line.prompt for line in asked]
        own = [sitting.seed + i if line.seed is None else line.seed + i % self.each for i, line in enumerate(asked)]
        drawn = sitting.draw(prompts, self.judge.config.size, own, suite="prompts", each=self.each)
        kept = [asked[i] for i in drawn.places]
        embedded = torch.cat([self.judge(chunk.float() / 127.5 - 1.0).embedding for chunk in drawn.images.split(256)])
        captions = self.judge.embed_captions([line.prompt for line in kept])
        aligned = alignment(embedded, captions)
        answers = self._answers(drawn.images, [line.facts for line in kept])
        right = {p: float(a.right) for p, a in zip(drawn.places, answers, strict=True) if a is not None}
        report = PromptsReport(
            **common(sitting, drawn, prompts, self.judge.card),
            file=self.file,
            each=self.each,
            aligned=Score.mean(aligned),
            others=_others(embedded, captions, [line.prompt for line in kept]),
            right=Score.rate(torch.tensor(list(right.values()))) if right else None,
            answers=tuple(answers),
            bad_lines=tuple(self.bad),
        )
        report.save(sitting.out)
        notes = tuple("" if answer is None or answer.right else answer.reason for answer in answers)
        values = {"alignment": dict(zip(drawn.places, aligned.tolist(), strict=True)), "what is stated": right}
        return Outcome(report, drawn.places, drawn.images, notes, values)

    def _answers(self, images: Tensor, facts: Sequence[Facts | None]) -> list[Answer | None]:
        """The verdict on each picture whose line states facts, None on the others."""
        stated = {i: wanted for i, wanted in enumerate(facts) if wanted is not None}
        found: list[Answer | None] = [None] * len(facts)
        if self.witness is not None and stated:
            seen = hear(self.witness, images[torch.tensor(list(stated))], [wanted.words is not None for wanted in stated.values()])
            for i, answer in zip(stated, seen.answers(list(stated.values())), strict=True):
                found[i] = answer
        return found


def _others(images: Tensor, captions: Tensor, prompts: Sequence[str]) -> Score | None:
    """Mean cosine of each picture (N, E) to the captions (N, E) of the other prompts: what alignment is without any meaning."""
    names = {name: k for k, name in enumerate(dict.fromkeys(prompts))}
    if len(names) < 2:
        return None
    own = torch.tensor([names[prompt] for prompt in prompts])
    distinct = captions[torch.tensor([prompts.index(name) for name in names])]
    cosines = torch.nn.functional.normalize(images, dim=1) @ torch.nn.functional.normalize(distinct, dim=1).T
    rest = torch.ones_like(cosines, dtype=torch.bool).scatter(1, own[:, None], False)
    return Score.mean((cosines * rest).sum(1) / rest.sum(1))
