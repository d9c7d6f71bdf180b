"""A model taught PaintSkills, one skill at a time, and what its pictures then show, at growing numbers of training pictures.

Beside every score stand its bounds: what the witness says of true renders, of the same renders under shuffled prompts, and of what the
model drew before it was taught. Pictures smaller than what the witness looks at are enlarged, true renders like drawn ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from ..core.config import to_dict
from ..data.scenes.paintskills import COUNTS, PAINTSKILLS, Item, PaintSkills, Part, Skill
from ..evaluate.drawing import Order, Pipe, draw
from ..evaluate.paintskills import grade, look, paint, shuffled
from ..evaluate.witness import Witness
from ..pipelines import TextToImage
from .study import Cell, Metric, Results, Study
from .tuning import AsTrained, Lessons, Tuning, lessons, tune


@dataclass(frozen=True)
class SkillPlan:
    """`items`: different training pictures of a skill, as nearly as whole sweeps over its cells come. `prompts`: of the validation split,
    and as many again from spatial cells that were held out. `size` in pixels."""

    tuning: Tuning
    items: int = 5040
    prompts: int = 168
    size: int = 64
    steps: int = 10
    guidance: float = 3.0
    seeds: tuple[int, ...] = (0, 1, 2)

    @property
    def marks(self) -> tuple[int, ...]:
        """Numbers of training pictures at which is looked."""
        return (*self.tuning.marks, self.tuning.images)


@dataclass(frozen=True)
class SkillRoom:
    """What all cells share. `pipe` draws pictures of the plan's size; `mark` is a fingerprint of all that a result depends on."""

    skills: PaintSkills
    pipe: TextToImage
    witness: Witness
    mark: str


def learn_skills(name: str, plan: SkillPlan, room: SkillRoom, work: Path) -> tuple[Results, Results]:
    """(taught models, bounds) by skill. Cells that were run are read from `work`."""
    setting = {**to_dict(plan), "world": room.mark, "device": room.pipe.device.type}
    arms: dict[str, str] = {skill: part_taught(skill) for skill in PAINTSKILLS}
    bounds = Study(f"{name}-bounds", arms, plan.seeds[:1], "images", (*BOUNDS, *_extra("true renders")), setting)
    learnt = tuple(Metric(f"right@{n}", f"right after {n} training pictures", "higher", "share") for n in plan.marks)
    study = Study(name, arms, plan.seeds, "images", (*learnt, *_extra("drawn")), setting)
    taught = cache(lambda skill: prepared(skill, plan, room))
    low_high = bounds.run(lambda skill, seed, folder: bound_cell(_skill(skill), plan, room, seed, folder), work)
    return study.run(lambda skill, seed, folder: skill_cell(_skill(skill), plan, room, taught(skill), seed, folder), work), low_high


BOUNDS = tuple(Metric(key, key, "higher", "share") for key in ("true renders", "shuffled prompts", "not taught"))
EXTRA = (*(f"count {n}" for n in COUNTS), "held out")


def _extra(what: str) -> tuple[Metric, ...]:
    return tuple(Metric(key, f"{what}, {key}", "higher", "share") for key in EXTRA)


def part_taught(skill: Skill) -> Part:
    """The cells that training meets."""
    return "seen" if skill == "spatial" else "all"


def prepared(skill: Skill, plan: SkillPlan, room: SkillRoom) -> Lessons:
    """The training pictures of a skill, every cell equally often, through the model's codec."""
    part = part_taught(skill)
    cells = len(room.skills.cells(skill, part))
    items = [room.skills.item(skill, "train", i, part) for i in range(max(1, round(plan.items / cells)) * cells)]
    return lessons(paint(items, room.skills.cast, plan.size), [item.cell.caption for item in items], room.pipe)


def skill_cell(skill: Skill, plan: SkillPlan, room: SkillRoom, taught: Lessons, seed: int, folder: Path) -> Cell:
    """Teach one skill with one seed."""

    def seen(images: int, pipe: AsTrained, where: Path) -> dict[str, float | None]:
        items = asked(skill, plan, room, part_taught(skill))
        right = examine(pipe, items, plan, room, seed, where / "pictures")
        found: dict[str, float | None] = {f"right@{images}": _share(right)}
        if images < plan.tuning.images:
            return found
        found |= _by_count(skill, items, right)
        if skill == "spatial":
            apart = asked(skill, plan, room, "held out")
            found["held out"] = _share(examine(pipe, apart, plan, room, seed, where / "held-out" / "pictures"))
        return found

    found = tune(room.pipe, taught, plan.tuning, seed, folder, seen)
    return Cell(found, spent=plan.tuning.images)


def bound_cell(skill: Skill, plan: SkillPlan, room: SkillRoom, seed: int, folder: Path) -> Cell:
    """Bounds of one skill's score."""
    items = asked(skill, plan, room, part_taught(skill))
    cells = [item.cell for item in items]
    seen = look(room.witness, paint(items, room.skills.cast, plan.size))
    true = grade(seen, cells)
    found = {"true renders": _share(true), "shuffled prompts": _share(grade(seen, shuffled(cells)))}
    found["not taught"] = _share(examine(AsTrained(room.pipe), items, plan, room, seed, folder / "pictures"))
    extra = _by_count(skill, items, true)
    if skill == "spatial":
        apart = asked(skill, plan, room, "held out")
        extra["held out"] = _share(grade(look(room.witness, paint(apart, room.skills.cast, plan.size)), [i.cell for i in apart]))
    return Cell({**found, **extra}, spent=len(items))


def asked(skill: Skill, plan: SkillPlan, room: SkillRoom, part: Part) -> list[Item]:
    """The validation items that every model is asked."""
    return [room.skills.item(skill, "validation", i, part) for i in range(plan.prompts)]


def examine(pipe: Pipe, items: Sequence[Item], plan: SkillPlan, room: SkillRoom, seed: int, folder: Path) -> Tensor:
    """(N,) bool: what a model draws for items is right; a picture that holds NaN is wrong."""
    order = Order(10_000 * seed, plan.steps, plan.guidance, 64, plan.size)
    drawn = draw(pipe, [item.cell.caption for item in items], order, folder)
    right = torch.zeros(len(items), dtype=torch.bool)
    right[list(drawn.places)] = grade(look(room.witness, drawn.images), [items[k].cell for k in drawn.places])
    return right


def _by_count(skill: Skill, items: Sequence[Item], right: Tensor) -> dict[str, float | None]:
    """Every metric of `EXTRA`: accuracy by the number asked for; None for other skills, and for held-out cells, which come apart."""
    found: dict[str, float | None] = dict.fromkeys(EXTRA)
    if skill == "count":
        for n in COUNTS:
            rows = right[[item.cell.count == n for item in items]]
            found[f"count {n}"] = _share(rows) if len(rows) else None
    return found


def _share(right: Tensor) -> float:
    return float(right.double().mean())


def _skill(name: str) -> Skill:
    return {skill: skill for skill in PAINTSKILLS}[name]  # type: ignore[index]
