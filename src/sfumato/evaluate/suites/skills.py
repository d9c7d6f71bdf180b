"""Skills: single and two objects, counting, colour, position, binding of colours, text (GenEval, arXiv 2310.11513), asked on EmojiWorld.

Every prompt comes from a scene that it describes, so each rate stands between two others made by the same witness and the same rule: the
true scenes, where only the witness can err, and the pictures judged by the facts of another prompt (DALL-Eval, arXiv 2202.04053).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from ...data.scenes import TASKS, Cast
from ..judge import Judge
from ..metrics import Answer, judge_facts
from ..report import own_rate
from ..witness import Testimony, Witness, hear
from .bounded import BoundedReport, by_task, scored
from .items import Item, Pairs, skills_items
from .outcome import Outcome, Row, common
from .sitting import Sitting


@dataclass(frozen=True, kw_only=True)
class SkillsReport(BoundedReport):
    """`answers` in the order of the pictures."""

    pairs: str
    answers: tuple[Answer, ...]

    shared_columns: ClassVar[Row] = ("true scenes",)

    def kind_title(self) -> str:
        drawings = {"train": "of drawings seen in training", "test": "with a thing never seen in its style"}[self.pairs]
        return f"{self.count} skills prompts {drawings}"

    def legend(self) -> str:
        own = self.judge.get("scenes", {})
        told = f"boxes and concepts mAP50 {own_rate(own.get('map50'))}, words {own_rate(own.get('words'))}"
        return (
            "Right = all that the prompt asks for is there (the style is not asked), 95% intervals. True scenes: the same prompts drawn by "
            "the scene composer, an upper bound; shuffled: judged by another prompt of the task, chance. "
            f"The judge's own on scenes it never saw: {told}"
        )


@dataclass(frozen=True)
class Skills:
    """The suite, ready for any model: the prompts and what the witness says of the true scenes."""

    items: Sequence[Item]
    true: Sequence[Answer]
    judge: Judge
    witness: Witness
    pairs: Pairs

    @classmethod
    def prepare(cls, cast: Cast, judge: Judge, witness: Witness, pairs: Pairs, count: int, seed: int) -> Skills:
        """Raises what `skills_items` raises."""
        items = skills_items(cast, judge, pairs, count, seed)
        seen = hear(witness, torch.stack([item.picture for item in items]), _reading(items))
        return cls(items, seen.answers([item.facts for item in items]), judge, witness, pairs)

    @property
    def name(self) -> str:
        return f"skills-{self.pairs}"

    @property
    def pictures(self) -> int:
        return len(self.items)

    def examine(self, sitting: Sitting) -> Outcome:
        """Draw and judge; report.json and report.md are written into `sitting.out`."""
        prompts = [item.posed.prompt for item in self.items]
        drawn = sitting.draw(prompts, self.judge.config.size, suite="skills", pairs=self.pairs)
        items = [self.items[i] for i in drawn.places]
        seen = hear(self.witness, drawn.images, _reading(items))
        answers = seen.answers([item.facts for item in items])
        true = [self.true[i] for i in drawn.places]
        floor = shuffled(items, seen)
        verdicts = {"right": told(answers), "true": told(true), "floor": told(floor)}
        names = [item.posed.task for item in items]
        overall, tasks = scored(verdicts, names, TASKS)
        report = SkillsReport(
            **common(sitting, drawn, prompts, self.judge.card),
            pairs=self.pairs,
            overall=overall,
            tasks=tasks,
            task=tuple(names),
            answers=tuple(answers),
        )
        report.save(sitting.out)
        right = {place: float(answer.right) for place, answer in zip(drawn.places, answers, strict=True)}
        faults = tuple("" if answer.right else answer.reason for answer in answers)
        pictures = torch.stack([item.picture for item in items])
        values = by_task(right, names, TASKS, report.whole)
        return Outcome(report, drawn.places, drawn.images, faults, values, reference=pictures, reference_name="true scene")


def _reading(items: Sequence[Item]) -> list[bool]:
    return [item.facts.words is not None for item in items]


def shuffled(items: Sequence[Item], seen: Testimony) -> list[Answer | None]:
    """Each picture judged by the facts of the next prompt of its task; None where there is none that asks for something else."""
    found: list[Answer | None] = []
    for i, item in enumerate(items):
        others = (items[(i + k) % len(items)] for k in range(1, len(items)))
        other = next((o for o in others if o.posed.task == item.posed.task and o.facts != item.facts), None)
        found.append(None if other is None else judge_facts(seen.found[i], other.facts, seen.read[i]))
    return found


def told(answers: Sequence[Answer | None]) -> list[bool | None]:
    return [None if answer is None else answer.right for answer in answers]
