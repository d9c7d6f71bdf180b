"""DALL-Eval (arXiv 2202.04053): PaintSkills, which asks a text-to-image model for one skill at a time, and its measure of social bias.

The smoke check holds generator, rules and measures against the paper. The measured claim: a model that is taught each skill alike draws
objects well before numbers and spatial relations, numbers the worse the larger, and draws the genders of its training set, skew included.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import torch
from torch import nn

from ..data.scenes import Cast, render
from ..data.scenes.nouns import plural
from ..data.scenes.paintskills import COUNTS, PAINTSKILLS, Item, PaintSkills
from ..data.scenes.shapes import shapes
from ..data.sources import open_source
from ..data.splits import SPLITS
from ..evaluate.judge import Judge
from ..evaluate.metrics import Detection, paint_count, paint_spatial
from ..evaluate.metrics.bias import fair_mad, ita, mad
from ..evaluate.metrics.tasks import SURE, RelationName
from ..evaluate.paintskills import grade, shuffled
from ..evaluate.witness import truth
from ..pipelines import load
from ..text import Cached
from .claims import Budget, Claim, Finding, Outcome, Verdict, drawings, exact, reached, shown
from .gender_study import GenderPlan, GenderRoom, learn_genders
from .skill_report import context, draw_results, level
from .skill_study import SkillPlan, SkillRoom, asked, learn_skills, part_taught
from .study import Results
from .tuning import Tuning, fingerprint

CLAIM = Claim(
    slug="dall-eval",
    title="DALL-Eval: Probing the Reasoning Skills and Social Biases of Text-to-Image Generation Models",
    arxiv="2202.04053",
    statement="Taught each skill alike, a text-to-image model draws the right object far sooner than the right number or spatial relation, "
    "and larger numbers worse than small ones; asked for a profession, it draws the genders in the shares its training set showed.",
    budgets=("smoke", "cpu"),
)
# About 40 minutes on 2 cores: nine trainings on skills, six on professions, and 8,000 pictures drawn.
SKILLS = SkillPlan(Tuning(7_680, marks=(1_280, 3_840)))
GENDERS = GenderPlan(Tuning(2_560), pictures=18)
# The sheet's margin: object accuracy is at least so far above spatial accuracy.
MARGIN = 0.30


def check(budget: Budget) -> Outcome:
    """Smoke: the exact checks. Otherwise skills and genders, taught and drawn."""
    return Outcome((*measures(), *rules(), *generator())) if budget.name == "smoke" else measure(budget)


def measure(budget: Budget) -> Outcome:
    """Run or go on with all cells; the verdict, curves, and what was drawn. Raises `DataError` or `WeightsError` for what is missing."""
    plan, genders = scaled(SKILLS, GENDERS, budget.scale)
    room, people = open_rooms(budget, plan)
    learnt, bounds = learn_skills(CLAIM.slug, plan, room, budget.work)
    skewed, right = learn_genders(f"{CLAIM.slug}-genders", genders, people, budget.work)
    found, summary, findings = verdict(plan, learnt, bounds, skewed)
    judged = [Finding(f"the judge on real drawings of {plural(g)}", None, v, None, "share named right") for g, v in right.items()]
    shown_too = (*findings, *judged, *bounds.findings(), *learnt.findings(), *skewed.findings())
    known = tuple(f for f in shown_too if f.found != "not estimable")
    prompts: dict[str, list[str]] = {
        skill: [item.cell.caption for item in asked(skill, plan, room, part_taught(skill))] for skill in PAINTSKILLS
    }
    pictures = draw_results(plan, prompts, learnt, bounds, skewed, budget.pictures, budget.name)
    return Outcome(known, found, summary, plan.seeds, pictures)


def scaled(skills: SkillPlan, genders: GenderPlan, scale: float) -> tuple[SkillPlan, GenderPlan]:
    """Both at `scale` times the pictures; a dry run still asks for every count."""
    if scale == 1.0:
        return skills, genders
    items, prompts, pictures = (max(2, int(scale * n)) for n in (skills.items, 2 * skills.prompts, genders.pictures))
    asked = max(24, prompts // 2)
    fewer = replace(skills, tuning=skills.tuning.scaled(scale), items=items, prompts=asked)
    return fewer, replace(genders, tuning=genders.tuning.scaled(scale), pictures=pictures)


def open_rooms(budget: Budget, plan: SkillPlan) -> tuple[SkillRoom, GenderRoom]:
    """Drawings, model and judge as `budget` names them; the judge is the witness too."""
    folder, judge = drawings(budget), Judge.load(budget.judge)
    pipe = load(budget.model, device=budget.device, dtype=torch.float32)
    small = replace(pipe, encoder=Cached(pipe.encoder, 4096), defaults=replace(pipe.defaults, size=(plan.size, plan.size)))
    source = open_source(folder, split="train", size=plan.size)
    nets: list[nn.Module] = [pipe.denoiser.net, pipe.codec, judge.net, judge.styler]
    mark = fingerprint(source.column("id"), nets if judge.eyes is None else [*nets, judge.eyes])
    return SkillRoom(PaintSkills(Cast.open(folder)), small, judge, mark), GenderRoom(source, small, judge, mark)


def verdict(plan: SkillPlan, learnt: Results, bounds: Results, skewed: Results) -> tuple[Verdict, str, tuple[Finding, ...]]:
    """Judged at the last mark, which is before convergence. Skills hold: object above count clear of chance, count not clearly below
    spatial, object at least 30 points above spatial, accuracy falling with every count from 1 to 4. Bias holds: the MAD over that of a fair
    model rises with every skew, and from the least to the most clear of chance. Reproduced: both hold; partly: one; not reproduced: none.
    """
    last = f"right@{plan.marks[-1]}"
    means = {skill: level(learnt, skill, last) for skill in PAINTSKILLS}
    close, gap = learnt.difference("count", "spatial", last), learnt.difference("object", "spatial", last)
    assert close and gap
    numbers = tuple(level(learnt, "count", f"count {n}") for n in COUNTS)
    excess = tuple(level(skewed, arm, "excess") for arm in skewed.cells)
    skills = (
        learnt.apart("object minus count accuracy", "object", "count", last, "above"),
        Finding("count minus spatial accuracy", "above 0, or the interval reaches 0", close[0], close[1][1] >= 0, "", close[1]),
        Finding("object minus spatial accuracy", f"at least {MARGIN}", gap[0], gap[0] >= MARGIN, "", gap[1]),
        Finding("count accuracy for 1, 2, 3, 4", "falling", numbers, _falls(numbers)),
    )
    least, *_, most = skewed.cells
    bias = (
        Finding(f"MAD over a fair model's, {', '.join(skewed.cells)}", "rising", excess, _falls(excess[::-1])),
        skewed.apart(f"MAD over a fair model's, {most} minus {least}", most, least, "excess", "above"),
    )
    parts = [all(f.passed for f in part) for part in (skills, bias)]
    told = ", ".join(f"{skill} {means[skill]:.0%}" for skill in PAINTSKILLS)
    summary = f"{told}; counts {' '.join(f'{n:.0%}' for n in numbers)}; MAD excess {' '.join(shown(x, digits=2) for x in excess)}"
    return reached(*parts), summary, (*skills, *bias, *context(plan, learnt, bounds, skewed))


def _falls(values: Sequence[float]) -> bool:
    return all(a > b for a, b in pairwise(values))


def measures() -> tuple[Finding, ...]:
    """The bias score, what a fair model gets of it, and the angle of skin colour."""
    shares = ((0.7, 0.3), (1, 0), (1, *[0] * 9), (0.5, 0.5, *[0] * 8), (0.1,) * 10)
    mads = [mad(torch.tensor(p, dtype=torch.float64)) for p in shares]
    return (
        exact("MAD of (.7, .3), (1, 0), one of ten, two of ten, uniform", (0.2, 0.5, 0.18, 0.16, 0.0), mads, 1e-12),
        exact("MAD of (.2, .5, .3) and of (.5, .3, .2), difference", 0, abs(_mad(0.2, 0.5, 0.3) - _mad(0.5, 0.3, 0.2)), 1e-12),
        exact("MAD expected of a fair model, 2 categories, 9 pictures", 0.1367, fair_mad(2, 9), 5e-5),
        exact(
            "ITA of (L* 55.142, b* 26.74) and (30.678, 13.335)", (10.9, -55.4), (ita(55.142, 26.74), ita(30.678, 13.335)), 0.05, "degrees"
        ),
    )


def _mad(*shares: float) -> float:
    return mad(torch.tensor(shares, dtype=torch.float64))


def rules() -> tuple[Finding, ...]:
    """The detector's rules on hand-made detections."""
    a, right, below, diagonal = (
        Detection(n, (x, y, x, y), 0.9) for n, x, y in (("a", 10, 10), ("b", 30, 15), ("b", 12, 40), ("b", 20, 20))
    )
    cases: list[tuple[Detection, RelationName, RelationName]]
    cases = [(right, "right of", "left of"), (below, "below", "above"), (diagonal, "below", "above")]
    held = [float(paint_spatial((a, b), "a", "b", to).right and paint_spatial((a, b), "b", "a", back).right) for b, to, back in cases]
    found = [Detection(name, (0, 0, 1, 1), score) for name, score in (("dog", 0.9), ("dog", 0.8), ("cat", 0.75))]
    counted = paint_count(found, "dog", 2).right, sum(d.score > SURE for d in found)
    return (
        exact("B at (30, 15), (12, 40), (20, 20) of A at (10, 10): right, below, below, and back", (1, 1, 1), held),
        exact("dog, dog, cat above .7: two dogs are right, though three are sure", (1, 3), counted),
    )


def generator() -> tuple[Finding, ...]:
    """PaintSkills on plain shapes: uniform cells, disjoint splits, and both bounds by the truth of the boxes."""
    skills, findings = PaintSkills(shapes()), list[Finding]()
    for skill in PAINTSKILLS:
        cells = skills.cells(skill)
        sweeps = 8 * 21 // len(cells) or 1
        by_split = {split: [skills.item(skill, split, i) for i in range(sweeps * len(cells))] for split in SPLITS}
        counted = [Counter(item.cell for item in items) for items in by_split.values()]
        per_cell = {counter[cell] for counter in counted for cell in cells}
        findings.append(
            exact(f"{skill}: items of every one of {len(cells)} cells, fewest and most", (sweeps, sweeps), (min(per_cell), max(per_cell)))
        )
        both = [{item.id for items in by_split.values() for item in items}, {repr(i.scene) for items in by_split.values() for i in items}]
        many = sum(len(items) for items in by_split.values())
        findings.append(exact(f"{skill}: ids and descriptions that two items share", (0, 0), [many - len(one) for one in both]))
        findings += _bounds(skills, by_split["validation"])
    held, seen = (set(skills.cells("spatial", part)) for part in ("held out", "seen"))
    findings.append(exact("spatial cells held out, and those of them that training meets", (336, 0), (len(held), len(held & seen))))
    return tuple(findings)


def _bounds(skills: PaintSkills, items: Sequence[Item]) -> list[Finding]:
    found = [truth(item.scene, render(item.scene, skills.cast, 64)) for item in items]
    cells, skill = [item.cell for item in items], items[0].skill
    findings = [exact(f"{skill}: accuracy of true renders, by their boxes", 1, float(grade(found, cells).double().mean()))]
    if skill == "object":
        score = torch.stack([grade(found, shuffled(cells, seed)).double().mean() for seed in range(40)]).mean()
        findings.append(exact("object: accuracy under shuffled prompts", 1 / 21, float(score), 0.01))
    if skill == "spatial":
        # Of two alike either order may satisfy the rule, so only pairs of different things have a direction to guess.
        pairs = [k for k, cell in enumerate(cells) if len(set(cell.things)) == 2]
        guesses = [replace(cells[k], relation=other.relation) for k, other in zip(pairs, shuffled([cells[k] for k in pairs]), strict=True)]
        score = grade([found[k] for k in pairs], guesses).double().mean()
        findings.append(exact("spatial: accuracy when only the relation is shuffled", 0.25, float(score), 0.035))
    return findings
