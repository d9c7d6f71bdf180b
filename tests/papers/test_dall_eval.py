"""DALL-Eval's claim: the exact checks hold and can fail, the rule can say no, and both studies run at microscopic size."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sfumato.backbones.mmdit import tiny
from sfumato.codecs.kl import KLCodec, KLConfig, new_autoencoder
from sfumato.core.denoiser import Denoiser
from sfumato.core.errors import DataError
from sfumato.core.rng import normal
from sfumato.data.records import TableRecords
from sfumato.data.scenes import render
from sfumato.data.scenes.paintskills import PAINTSKILLS, PaintSkills
from sfumato.data.scenes.shapes import SIZE, shapes
from sfumato.data.sources import Source
from sfumato.evaluate.judge import Judge
from sfumato.evaluate.judge_net import JudgeConfig, JudgeNet, StyleNet
from sfumato.evaluate.metrics import Detection
from sfumato.evaluate.paintskills import enlarged, paint
from sfumato.evaluate.suites.neutral import people_of
from sfumato.evaluate.witness import truth
from sfumato.papers import dall_eval, gender_study, skill_study
from sfumato.papers.claims import Budget, reproduce
from sfumato.papers.gender_study import GenderPlan, GenderRoom, professions, read_genders, skewed
from sfumato.papers.skill_study import SkillPlan, SkillRoom
from sfumato.papers.study import Cell, Metric, Results
from sfumato.papers.tuning import Tuning
from sfumato.pipelines import Defaults, TextToImage
from sfumato.text.encoded import TextStates
from sfumato.training.diffusion import TEXT_SLOTS

JUDGE = JudgeConfig(size=128, working=32, widths=(8, 8, 16, 16), depths=(0, 1, 1, 1), strokes=(8, 8), embed=4, hidden=8)
MICRO = Tuning(24, marks=(8,), batch=8)
PLAN = SkillPlan(MICRO, items=24, prompts=24, steps=2, seeds=(0, 1))
PEOPLE = ("cook", "man cook", "woman cook", "pilot", "man pilot", "woman pilot", "man waving", "woman waving")


class Letters:
    """An encoder of three tokens a prompt, a function of its letters."""

    name, width, pooled_width, max_tokens = "letters", 8, 6, 3

    def to(self, *where: object) -> None:
        """It has no weights."""

    def encode(self, prompts: Sequence[str]) -> TextStates:
        rows = [normal((42,), (0, prompt, 0)) for prompt in prompts]
        tokens, pooled = (torch.stack([row[part] for row in rows]) for part in (slice(36), slice(36, 42)))
        none = ((),) * len(prompts)
        return TextStates(tokens.view(-1, 3, 12), torch.ones(len(prompts), 3, dtype=torch.bool), pooled, none, none)


class Oracle:
    """Knows the truth of the validation items: answers with that of the one a picture is nearest to."""

    def __init__(self, skills: PaintSkills, size: int) -> None:
        items = [skills.item(s, "validation", i, p) for s in PAINTSKILLS for p in ("all", "seen", "held out") for i in range(24)
                 if p == ("all" if s != "spatial" else p)]  # fmt: skip
        self.told = [truth(item.scene, render(item.scene, skills.cast, size)) for item in items]
        self.known = enlarged(paint(items, skills.cast, size)).flatten(1)

    def detect(self, images: Tensor) -> list[list[Detection]]:
        return [self.told[k] for k in torch.cdist(images.flatten(1), self.known).argmin(1).tolist()]

    def read(self, images: Tensor) -> list[str]:
        return [""] * len(images)


def people(styles: dict[str, tuple[str, ...]]) -> Source:
    """A source of grey squares, each style drawing some of `PEOPLE`."""
    from sfumato.data.render import rasterise

    rows: list[dict[str, Any]] = []
    for style, names in styles.items():
        for name in names:
            svg = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 9 9"><rect width="{len(name) % 9}" height="9" fill="#888"/></svg>'
            group = "person-gesture" if "waving" in name else "person-role"
            named = {"id": f"{style}/{name}", "concept": name, "style": style, "subgroup": group, "captions": [name]}
            rows.append({**named, "image": rasterise(svg, SIZE)})
    import pyarrow as pa

    return Source(TableRecords(pa.Table.from_pylist(rows), "people"), range(len(rows)), 64, (255, 255, 255), {})


@pytest.fixture(scope="module")
def judge() -> Judge:
    torch.manual_seed(0)
    return Judge(JudgeNet(JUDGE, len(PEOPLE), 2), StyleNet(JUDGE, 2), JUDGE, PEOPLE, ("x", "y"), {})


@pytest.fixture(scope="module")
def rooms(judge: Judge) -> tuple[SkillRoom, GenderRoom]:
    torch.manual_seed(0)
    codec = KLCodec(new_autoencoder(KLConfig(channels=(4, 4, 4, 8), latent=4, groups=4))).eval()
    pipe = TextToImage(Letters(), Denoiser(tiny()), codec, TEXT_SLOTS, Defaults(size=(64, 64)))
    skills = PaintSkills(shapes(6), classes=6)
    source = people({"x": PEOPLE, "y": PEOPLE[:5]})
    return SkillRoom(skills, pipe, Oracle(skills, 64), "here"), GenderRoom(source, pipe, judge, "here")


def test_the_exact_checks_hold(tmp_path: Path) -> None:
    report = reproduce("dall-eval", "smoke", tmp_path)
    assert report.ok, [f for f in report.findings if f.passed is False]
    assert report.verdict == "not yet" and report.summary == "18/18 exact checks pass"


def test_a_wrong_direction_fails_the_smoke_check(monkeypatch: pytest.MonkeyPatch) -> None:
    own = dall_eval.paint_spatial
    monkeypatch.setattr(
        dall_eval, "paint_spatial", lambda found, a, b, to: own(found, a, b, {"below": "above", "above": "below"}.get(to, to))
    )  # type: ignore[arg-type]
    assert [f.passed for f in dall_eval.rules()] == [False, True]


def test_a_generator_that_prefers_a_cell_fails_it(monkeypatch: pytest.MonkeyPatch) -> None:
    own = PaintSkills.item
    monkeypatch.setattr(PaintSkills, "item", lambda self, skill, split, index, part="all": own(self, skill, split, index // 2, part))
    failed = [f.name for f in dall_eval.generator() if f.passed is False]
    assert any("items of every one" in name for name in failed) and any("two items share" in name for name in failed)


def test_the_comparison_runs_from_drawings_to_record(
    rooms: tuple[SkillRoom, GenderRoom], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dall_eval, "SKILLS", PLAN)
    monkeypatch.setattr(dall_eval, "GENDERS", GenderPlan(replace(MICRO, marks=()), pictures=3, steps=2, seeds=(0,)))
    monkeypatch.setattr(dall_eval, "open_rooms", lambda budget, plan: rooms)
    report = reproduce("dall-eval", "cpu", tmp_path / "claims", work=tmp_path / "work")
    assert report.verdict in ("reproduced", "partly", "not reproduced") and report.seeds == (0, 1)
    record = json.loads((tmp_path / "claims" / "dall-eval.json").read_text())["budgets"]["cpu"]
    found = {f["name"]: f for f in record["findings"]}
    for skill in PAINTSKILLS:
        assert found[f"{skill}: the witness on true renders"]["found"] == 1.0
        assert 0 <= found[f"not taught: {skill}"]["found"] <= 1 and found[f"shuffled prompts: {skill}"]["found"] < 1
        assert 0 <= found[f"right after 8 training pictures: {skill}"]["found"] <= 1
    assert found["drawn, held out: spatial"]["interval"] is not None and "drawn, held out: object" not in found
    assert found["true renders, count 3: count"]["found"] == 1.0
    assert len(found["MAD over a fair model's, 50% men, 70% men, 90% men"]["found"]) == 3
    assert 0 <= found["the judge on real drawings of women"]["found"] <= 1
    assert record["pictures"] == ["dall-eval/cpu-curves.svg", "dall-eval/cpu-pictures.png"]
    assert all((tmp_path / "claims" / picture).stat().st_size > 500 for picture in record["pictures"])
    assert not list((tmp_path / "work").rglob("train")) and len(list((tmp_path / "work").rglob("result.json"))) == 3 + 6 + 3

    def never(*arguments: object) -> Cell:
        raise AssertionError("a finished cell was run again")

    for module, name in (
        (skill_study, "skill_cell"),
        (skill_study, "bound_cell"),
        (skill_study, "prepared"),
        (gender_study, "gender_cell"),
    ):
        monkeypatch.setattr(module, name, never)
    again = reproduce("dall-eval", "cpu", tmp_path / "claims", work=tmp_path / "work")
    assert again.findings == report.findings and again.summary == report.summary


def results(metrics: dict[str, dict[str, Sequence[float]]]) -> Results:
    """arm -> metric -> a value for each seed."""
    keys = sorted({key for arm in metrics.values() for key in arm})
    cells = {}
    for arm, found in metrics.items():
        seeds = len(next(iter(found.values())))
        cells[arm] = [Cell({key: found[key][s] if key in found else None for key in keys}, 1) for s in range(seeds)]
    return Results(tuple(Metric(key, key) for key in keys), cells, {})


LEARNT: dict[str, Sequence[float]] = {"object": (0.9, 0.88, 0.92), "count": (0.5, 0.52, 0.48), "spatial": (0.4, 0.42, 0.44)}
FALLING, RISING = (0.8, 0.6, 0.4, 0.2), (0.01, 0.2, 0.4)


@pytest.mark.parametrize(
    ("changed", "counts", "excess", "verdict"),
    [
        ({}, FALLING, RISING, "reproduced"),
        ({"spatial": (0.5, 0.55, 0.49)}, FALLING, RISING, "reproduced"),  # about equal
        ({"spatial": (0.55, 0.57, 0.53)}, FALLING, RISING, "partly"),  # clearly above count
        ({"spatial": (0.61, 0.62, 0.60), "count": (0.62, 0.63, 0.61)}, FALLING, RISING, "partly"),  # the gap is 29 points
        ({"count": (0.95, 0.5, 0.48)}, FALLING, RISING, "partly"),  # object above count by chance
        ({}, (0.8, 0.6, 0.6, 0.2), RISING, "partly"),
        ({}, FALLING, (0.01, 0.3, 0.2), "partly"),
        ({}, (0.2, 0.4, 0.6, 0.8), (0.4, 0.2, 0.0), "not reproduced"),
    ],
)
def test_the_rule(changed: dict[str, Sequence[float]], counts: Sequence[float], excess: Sequence[float], verdict: str) -> None:
    arms = {s: {"right@8": [0.1] * 3, "right@24": values, "held out": [0.3] * 3} for s, values in (LEARNT | changed).items()}
    arms["count"] |= {f"count {n}": [value] * 3 for n, value in zip((1, 2, 3, 4), counts, strict=True)}
    true = {"true renders": [0.99], "held out": [0.98], **{f"count {n}": [1.0] for n in (1, 2, 3, 4)}}
    skew = {f"{share}% men": {"excess": [value] * 3} for share, value in zip((50, 70, 90), excess, strict=True)}
    reached, summary, findings = dall_eval.verdict(PLAN, results(arms), results({s: true for s in PAINTSKILLS}), results(skew))
    assert reached == verdict, (summary, findings)
    named = {f.name: f.found for f in findings}
    assert named["MAD excess minus the training set's MAD, 90% men"] == pytest.approx(excess[2] - 0.4)


def test_a_bias_that_rises_by_chance_does_not_hold() -> None:
    arms = {s: {"right@8": [0.1] * 3, "right@24": values, "held out": [0.3] * 3} for s, values in LEARNT.items()}
    arms["count"] |= {f"count {n}": [value] * 3 for n, value in zip((1, 2, 3, 4), FALLING, strict=True)}
    true = {"true renders": [0.99], "held out": [0.98], **{f"count {n}": [1.0] for n in (1, 2, 3, 4)}}
    skew = {"50% men": {"excess": (0.1, 0.3, 0.0)}, "70% men": {"excess": [0.2] * 3}, "90% men": {"excess": (0.5, 0.2, 0.1)}}
    reached, _, findings = dall_eval.verdict(PLAN, results(arms), results({s: true for s in PAINTSKILLS}), results(skew))
    assert reached == "partly" and [f.passed for f in findings if f.name.startswith("MAD over")] == [True, False]


def test_plans_can_be_shrunk() -> None:
    skills, genders = dall_eval.SKILLS, dall_eval.GENDERS
    assert dall_eval.scaled(skills, genders, 1.0) == (skills, genders)
    small, fewer = dall_eval.scaled(skills, genders, 0.001)
    assert small.marks == (32, 64, 96) and (small.items, small.prompts) == (5, 24) and (fewer.tuning.images, fewer.pictures) == (32, 2)
    assert all(n % plan.tuning.batch == 0 for plan in (skills, small) for n in plan.marks)


def test_professions_are_drawn_as_both_in_one_style(judge: Judge) -> None:
    found = professions(people({"x": PEOPLE, "y": PEOPLE[:5]}), PEOPLE)
    assert [(one.person.neutral, len(one.rows)) for one in found] == [("cook", 2)], "the pilot is drawn as both in one style only"
    assert found[0].prompt == "a person who works as a cook"
    assert [one.person.neutral for one in professions(people({"x": PEOPLE}), PEOPLE)] == ["cook", "pilot"]
    with pytest.raises(DataError, match="no profession"):
        professions(people({"x": PEOPLE[6:]}), PEOPLE)
    with pytest.raises(DataError, match="no profession"):
        professions(people({"x": PEOPLE}), ("man cook",))


@pytest.mark.parametrize(("share", "men"), [(0.5, 5), (0.7, 7), (0.9, 9)])
def test_a_skew_is_exact_for_every_pair(share: float, men: int) -> None:
    rows = skewed(3, share)
    assert len(rows) == 30 and [int((rows == 2 * pair).sum()) for pair in range(3)] == [men] * 3
    assert [int((rows == 2 * pair + 1).sum()) for pair in range(3)] == [10 - men] * 3


def test_genders_are_read_among_two_variants(judge: Judge) -> None:
    images = torch.randint(0, 256, (5, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    logits = judge(enlarged(images)).concept
    wanted = ["man" if row[1] > row[2] else "woman" for row in logits]
    assert list(read_genders(judge, images, people_of(PEOPLE)[:1] * 5)) == wanted


def test_without_drawings_the_way_to_them_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="sfumato data emoji"):
        dall_eval.check(Budget("cpu", work=tmp_path, data=tmp_path / "none"))
