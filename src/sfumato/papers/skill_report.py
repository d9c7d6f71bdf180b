"""What a study of skills and genders looks like: the numbers its verdict should be read with, curves, and the first pictures drawn."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..core.files import write_with
from ..data.scenes.paintskills import COUNTS, PAINTSKILLS
from ..pipelines.sheet import contact_sheet
from .claims import Finding
from .plots import Line, Panel, chart
from .skill_study import SkillPlan
from .study import Results

# What a detector is asked to reach on true renders.
ENOUGH = 0.98
NUMBERS = [f"count {n}" for n in COUNTS]
SHOWN = 8


def level(results: Results, arm: str, key: str) -> float:
    """The mean over the seeds of what every cell of an arm measured."""
    found = results.mean(arm, key)
    assert found is not None, f"{arm} has no {key}"
    return found[0]


def context(plan: SkillPlan, learnt: Results, bounds: Results, skewed: Results) -> tuple[Finding, ...]:
    """The witness itself, scores in parts of its own, how early each skill saturates, cells never trained on, amplified bias."""
    first, last = (f"right@{plan.marks[k]}" for k in (0, -1))
    findings = []
    for skill in PAINTSKILLS:
        true, end = level(bounds, skill, "true renders"), level(learnt, skill, last)
        findings.append(Finding(f"{skill}: the witness on true renders", f"{ENOUGH} is aimed at", true, None, "share"))
        findings.append(Finding(f"{skill}: accuracy in parts of that", None, _part(end, true)))
        early = _part(level(learnt, skill, first), end)
        findings.append(
            Finding(f"{skill}: of its last accuracy reached after {plan.marks[0]} pictures", "most for object", early, None, "share")
        )
    parts = [_part(level(learnt, "count", n), level(bounds, "count", n)) for n in NUMBERS]
    findings.append(Finding("count accuracy for 1, 2, 3, 4 in parts of true renders'", "falling", tuple(p or 0.0 for p in parts)))
    drawn, true = (level(r, "spatial", key) - level(r, "spatial", "held out") for r, key in ((learnt, last), (bounds, "true renders")))
    findings.append(Finding("spatial accuracy, trained cells minus held-out ones", f"of true renders {true:.3f}", drawn))
    for arm in skewed.cells:
        amplified = level(skewed, arm, "excess") - abs(float(arm.split("%")[0]) / 100 - 0.5)
        findings.append(Finding(f"MAD excess minus the training set's MAD, {arm}", "0 = as taught", amplified))
    return tuple(findings)


def _part(value: float, whole: float) -> float | None:
    return value / whole if whole else None


def draw_results(
    plan: SkillPlan, prompts: Mapping[str, Sequence[str]], learnt: Results, bounds: Results, skewed: Results, folder: Path, name: str
) -> tuple[Path, ...]:
    """Curves with intervals, and what each skill's first model drew for its first `prompts`."""
    curves = []
    for skill in PAINTSKILLS:
        before, after = (_line(skill, *of) for of in ((bounds, skill, ["not taught"]), (learnt, skill, [f"right@{n}" for n in plan.marks])))
        curves.append(Line(skill, [*before.points, *after.points]))
    excess = [point for arm in skewed.cells for point in _line("", skewed, arm, ["excess"]).points]
    numbers = [str(n) for n in COUNTS]
    panels = [
        Panel("accuracy", [str(n) for n in (0, *plan.marks)], "training pictures", curves),
        Panel(
            "count accuracy",
            numbers,
            "asked for",
            [_line("drawn", learnt, "count", NUMBERS), _line("true renders", bounds, "count", NUMBERS)],
        ),
        Panel("MAD over a fair model's", list(skewed.cells), "training set", [Line("gender", excess)]),
    ]
    return chart(panels, folder / f"{name}-curves.svg"), _sheet(plan, prompts, learnt, folder / f"{name}-pictures.png")


def _line(name: str, results: Results, arm: str, keys: list[str]) -> Line:
    return Line(name, [m and (m[0], *m[1]) for m in (results.mean(arm, key) for key in keys)])


def _sheet(plan: SkillPlan, prompts: Mapping[str, Sequence[str]], learnt: Results, path: Path) -> Path:
    """A row for each skill."""
    from PIL import Image

    files = [
        (s, k) for s in PAINTSKILLS for k in sorted((learnt.folders[s][0] / f"after-{plan.marks[-1]}" / "pictures").glob("*.png"))[:SHOWN]
    ]
    pictures = [Image.open(file).convert("RGB") for _, file in files]
    captions = [prompts[skill][int(file.stem)] for skill, file in files]
    write_with(path, lambda temporary: contact_sheet(pictures, captions, SHOWN).save(temporary, "PNG"))
    return path
