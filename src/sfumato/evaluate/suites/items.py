"""The prompts of the skills suite: made from EmojiWorld's scenes, with what each asks for and a picture that is right."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ...core.errors import DataError, UsageError
from ...data.scenes import TASKS, Cast, Figure, Posed, Rendered, facts_of, pose, render, split_of_scenes
from ..judge import Judge
from ..metrics import Asked, Detection, Facts, judge_facts
from ..metrics.tasks import RelationName
from ..witness import truth

Pairs = Literal["train", "test"]
# The relations that boxes show; a scene of a task has no other, as its groups do not overlap.
IN_THE_PLANE: Mapping[str, RelationName] = {"left of": "left of", "right of": "right of", "above": "above", "below": "below"}


@dataclass(frozen=True)
class Item:
    """A prompt of a task, what it asks for, and a scene that is right, drawn: `picture` (3, H, W) uint8."""

    posed: Posed
    facts: Facts
    rendered: Rendered

    @property
    def picture(self) -> Tensor:
        return torch.from_numpy(self.rendered.picture).permute(2, 0, 1)


def skills_items(cast: Cast, judge: Judge, pairs: Pairs, count: int, seed: int) -> list[Item]:
    """`count` prompts, the tasks in turn; only concepts and styles that the judge knows.

    "train": training may have seen each drawing and this very scene. "test": the first thing is a drawing of the test split, so whatever
    scene the prompt describes was kept from training (`split_of_scenes`). Raises `UsageError` for a count that leaves a task without a
    prompt, `DataError` when the cast holds too little.
    """
    if count < len(TASKS):
        raise UsageError(f"{count} prompts for {len(TASKS)} tasks", f"at least {len(TASKS)}, one a task")

    def known(figure: Figure) -> bool:
        return figure.concept in judge.concept_index and figure.style in judge.style_index

    def of(split: str) -> set[str]:
        figures = (cast.by_concept[thing].values() for thing in cast.things)
        return {f.drawing for drawn in figures for f in drawn if known(f) and f.split == split}

    first, second = of(pairs), of("train")
    if not first or len(second) < 2:
        raise DataError(
            f"{len(first)} drawings of the {pairs} split whose concept and style the judge knows, {len(second)} of the train split",
            f"styles: {', '.join(judge.styles)}",
        )
    items = []
    for index in range(count):
        made: list[Item] = []

        def fits(posed: Posed, made: list[Item] = made) -> bool:
            if split_of_scenes([posed.scene]) != pairs:
                return False
            made.append(Item(posed, asked_of(posed), render(posed.scene, cast, judge.config.size)))
            # A scene between two directions would be called wrong whoever drew it; no prompt is built on such a one.
            return judge_facts(*seen_truly(made[-1])).right

        task = TASKS[index % len(TASKS)]
        pose(cast, task, seed, index // len(TASKS), lambda f: f.drawing in first, lambda f: f.drawing in second, fits)
        items.append(made[-1])
    return items


def seen_truly(item: Item) -> tuple[list[Detection], Facts, str]:
    """What `judge_facts` takes, as a faultless witness would tell it of the true scene."""
    sign = item.posed.scene.sign
    return truth(item.posed.scene, item.rendered), item.facts, sign.word if sign else ""


def asked_of(posed: Posed) -> Facts:
    """What a task asks of a picture. The style is not asked: drawings are judged for it."""
    facts = facts_of(posed.scene)
    counted = posed.task == "count"
    things = {g.group: Asked(g.concept, g.count if counted else None, g.colour) for g in facts.groups}
    if posed.task == "position":
        stated = facts.relations[0]
        return Facts((things[stated.object], things[stated.subject]), IN_THE_PLANE[stated.kind])
    return Facts(tuple(things.values()), words=facts.word or None)
