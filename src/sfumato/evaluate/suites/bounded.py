"""Rates by kind of prompt, each between two others from the same eye and rule: what is surely right, judged, and pictures judged by another
prompt (DALL-Eval, arXiv 2202.04053). The reports of `skills` and of `words`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch

from ..metrics import Score
from ..report import percent
from .outcome import Row, SuiteReport


@dataclass(frozen=True)
class TaskScore:
    """How often a picture shows what its prompt asks for: of the model's, of those that are right (`true`), and of the model's judged by
    another prompt of the task (`floor`)."""

    generated: Score
    true: Score
    floor: Score


# For each of "right", "true" and "floor": of every picture, whether it is right; None = it was not asked.
Verdicts = Mapping[str, Sequence[bool | None]]


@dataclass(frozen=True, kw_only=True)
class BoundedReport(SuiteReport):
    """`tasks` and, over all pictures, `overall`; `task` in the order of the pictures."""

    overall: TaskScore
    tasks: Mapping[str, TaskScore]
    task: tuple[str, ...]

    own_columns: ClassVar[Row] = ("generated", "shuffled prompts")
    whole: ClassVar[str] = "all tasks"

    def rows(self) -> list[Row]:
        scored = {self.whole: self.overall, **self.tasks}
        return [(f"{name} ({s.generated.count})", percent(s.generated), percent(s.floor), percent(s.true)) for name, s in scored.items()]

    def quality(self) -> tuple[str, Score]:
        return "prompts drawn right", self.overall.generated

    def radar(self) -> tuple[tuple[str, ...], Mapping[str, Sequence[Score]], Mapping[str, Sequence[Score]]]:
        scores = list(self.tasks.values())
        own = {"": [s.generated for s in scores], "shuffled prompts": [s.floor for s in scores]}
        return tuple(self.tasks), own, {self.shared_columns[0]: [s.true for s in scores]}


def scored(verdicts: Verdicts, task: Sequence[str], tasks: Sequence[str]) -> tuple[TaskScore, dict[str, TaskScore]]:
    """(over all pictures, by task); `task` names that of each picture."""

    def of(wanted: str | None) -> TaskScore:
        def rate(name: str) -> Score:
            kept = [right for right, own in zip(verdicts[name], task, strict=True) if right is not None and wanted in (None, own)]
            return Score.rate(torch.tensor(kept, dtype=torch.bool))

        return TaskScore(rate("right"), rate("true"), rate("floor"))

    return of(None), {name: of(name) for name in tasks}


def by_task(right: Mapping[int, float], task: Sequence[str], tasks: Sequence[str], whole: str) -> dict[str, Mapping[int, float]]:
    """`right` of the pictures' places, for all and for each task, as paired differences take it."""
    own = dict(zip(right, task, strict=True))
    return {whole: right} | {name: {p: value for p, value in right.items() if own[p] == name} for name in tasks}
