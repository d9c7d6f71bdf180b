"""SD3's claim: the exact checks hold and can fail, and the whole comparison runs, at microscopic size, from drawings to record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from sfumato.backbones.mmdit import MMDiTConfig
from sfumato.core.attention import Heads, attend
from sfumato.core.call import Call, Footprint, Site
from sfumato.core.errors import DataError
from sfumato.objectives.times import LogitNormal
from sfumato.papers import sd3_mmdit, sd3_study, trial
from sfumato.papers.arms import Trial
from sfumato.papers.claims import Budget, reproduce
from sfumato.papers.norm_study import Logits
from sfumato.papers.study import Cell, Metric, Results
from sfumato.papers.world import World, open_world

MICRO, SHAPE = Trial(images=16, batch=8, seeds=(0, 1), pictures=6, steps=(5, 10)), MMDiTConfig(depth=1, width=16, heads=2)


def test_the_exact_checks_hold(tmp_path: Path) -> None:
    report = reproduce("sd3-mmdit", "smoke", tmp_path)
    assert report.ok, [f for f in report.findings if f.passed is False]
    assert report.verdict == "not yet" and report.summary == "25/25 exact checks pass" and all(f.passed for f in report.findings)


def test_a_broken_law_fails_the_smoke_check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sd3_mmdit, "network", lambda: ())
    monkeypatch.setattr(LogitNormal, "sample", lambda self, u: u)
    report = reproduce("sd3-mmdit", "smoke", tmp_path)
    assert [f.name for f in report.findings if f.passed is False] == ["logit-normal samples in (0.25, 0.75)"]
    assert not report.ok and report.summary == "11/12 exact checks pass"


def test_a_wrong_shift_fails_the_smoke_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sd3_mmdit, "shift", lambda t, alpha: alpha * t)
    assert [f.passed for f in sd3_mmdit.times()[:3]] == [False, True, True]


def test_the_comparison_runs_from_drawings_to_record(world: World, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sd3_study.PLANS, "cpu", sd3_study.Plan(SHAPE, MICRO, MICRO, 8))
    monkeypatch.setattr(sd3_study, "open_world", lambda budget: world)
    report = reproduce("sd3-mmdit", "cpu", tmp_path / "claims", work=tmp_path / "work")
    assert report.verdict in ("reproduced", "partly", "not reproduced") and report.seeds == (0, 1)
    record = json.loads((tmp_path / "claims" / "sd3-mmdit.json").read_text())["budgets"]["cpu"]
    found = {f["name"]: f for f in record["findings"]}
    assert found["Fréchet distance at 5 steps, logit-normal minus uniform"]["interval"] is not None
    for arm in ("logit-normal", "uniform"):
        assert found[f"validation loss at t = 0.5: {arm}"]["found"] > 0
        assert 0 <= found[f"concept named right, 10 steps: {arm}"]["found"] <= 1
    assert record["pictures"] == [f"sd3-mmdit/cpu-{name}" for name in ("curves.svg", "logit-normal-5-steps.png", "uniform-5-steps.png")]
    assert all((tmp_path / "claims" / picture).stat().st_size > 500 for picture in record["pictures"])
    for arm in ("QK-norm", "no QK-norm"):
        early, late, growth = (
            found[f"largest logit of the last blocks, {when}: {arm}"]["found"] for when in ("early", "late", "late over early")
        )
        assert early != late and growth > 0
    cells = sorted(path.parent.name.rsplit("-", 1)[0] for path in (tmp_path / "work").glob("sd3-mmdit*/*/result.json"))
    assert cells == sorted(f"{arm}-{seed}" for arm in ("logit-normal", "uniform", "QK-norm", "no QK-norm") for seed in (0, 1))
    assert not list(tmp_path.rglob("train"))

    def never(*arguments: object) -> Cell:
        raise AssertionError("a finished cell was run again")

    monkeypatch.setattr(trial, "run_cell", never)
    again = reproduce("sd3-mmdit", "cpu", tmp_path / "claims", work=tmp_path / "work")
    assert again.findings == report.findings and again.summary == report.summary


def test_without_drawings_the_way_to_them_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFUMATO_DATA", str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"no drawings in .*none\n.*sfumato data emoji --out .*none"):
        open_world(Budget("cpu", work=tmp_path))


GROWTH = (Metric("growth", ""),)
GREW = Results(GROWTH, {"QK-norm": [Cell({"growth": 1.1}, 1)] * 3, "no QK-norm": [Cell({"growth": 2.0}, 1)] * 3}, {})


@pytest.mark.parametrize(
    ("at_5", "at_50", "verdict"),
    [((1, 1, 1), 1, "reproduced"), ((1, -1, 1), 1, "partly"), ((1, 1, 1), -1, "partly"), ((-1, 1, -1), -1, "partly")],
)
def test_the_rule_of_times(at_5: tuple[int, ...], at_50: int, verdict: str) -> None:
    """Positive = the new arm is better. At 50 steps there are two metrics, so that they outweigh the one at 5."""
    metrics = (Metric("frechet@5", ""), Metric("frechet@50", ""), Metric("concept@50", "", "higher"))
    new = [Cell({"frechet@5": 10.0 - gain, "frechet@50": 10.0 - at_50, "concept@50": 0.5 + 0.1 * at_50}, 1) for gain in at_5]
    old = [Cell({"frechet@5": 10.0, "frechet@50": 10.0, "concept@50": 0.5}, 1) for _ in at_5]
    reached, _, findings = sd3_study.verdict(Results(metrics, {"logit-normal": new, "uniform": old}, {}), GREW)
    assert reached == verdict and [f.passed for f in findings[:2]] == [at_50 > 0, min(at_5) > 0]


@pytest.mark.parametrize(
    ("normed", "bare", "passed"),
    [
        ((1.1, 1.2, 1.0), (2.0, 1.9, 2.2), (True, True)),
        ((1.1, 1.2, 1.0), (0.9, 1.2, 1.0), (False, False)),
        ((2.2, 2.1, 2.3), (2.0, 1.9, 2.2), (True, False)),
        ((1.1, 1.2, 1.0), (2.0, None, 2.2), (True, True)),
        ((1.1, None, 1.0), (2.0, 1.9, 2.2), (True, False)),
        ((1.1, None, 1.0), (2.0, None, 2.2), (False, False)),
    ],
)
def test_the_rule_of_norms(normed: tuple[float | None, ...], bare: tuple[float | None, ...], passed: tuple[bool, bool]) -> None:
    """None = training did not stay finite."""
    cells = {arm: [Cell({"growth": g}, 1) for g in found] for arm, found in (("QK-norm", normed), ("no QK-norm", bare))}
    assert tuple(f.passed for f in sd3_study.grown(Results(GROWTH, cells, {}))) == passed


def test_the_largest_logit_is_what_attention_computes() -> None:
    """Of two streams, one with a padded key, which would be the largest."""
    q, k = torch.zeros(1, 1, 1, 4), torch.zeros(1, 1, 2, 4)
    q[..., 0], k[0, 0, 0, 0], k[0, 0, 1, 0] = -3.0, 2.0, 9.0
    picture, text = Heads(q, q * 0, q), Heads(q[:, :, :0], k, k, keep=torch.tensor([[True, False]]))
    logits = Logits(Footprint(frozenset({"attention"}), observes=True))
    heard = logits.attention(Site(0, "attention"), {"image": picture, "text": text}, attend, Call())
    assert logits.largest().tolist() == [3.0 * 2.0 / 2.0]
    assert all(torch.equal(heard[n], x) for n, x in attend({"image": picture, "text": text}, None).items())


def test_too_few_pictures_reach_no_verdict() -> None:
    cells = [Cell({"frechet@5": None}, 1)]
    laws = Results((Metric("frechet@5", ""),), {"logit-normal": cells, "uniform": cells}, {})
    reached, summary, findings = sd3_study.verdict(laws, GREW)
    assert reached == "not yet" and "too few" in summary and not findings


def test_a_plan_can_be_shrunk() -> None:
    full = sd3_study.PLANS["cpu"]
    small = full.scaled(0.01)
    assert full.scaled(1.0) is full and (small.times.images, small.times.pictures, small.norms.images, small.early) == (448, 3, 128, 64)
