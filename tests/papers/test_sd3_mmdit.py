"""SD3's claim: the exact checks hold and can fail, and the whole comparison runs, at microscopic size, from drawings to record."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sfumato.backbones.mmdit import MMDiTConfig
from sfumato.core.errors import DataError
from sfumato.objectives.times import LogitNormal
from sfumato.papers import sd3_mmdit, trial
from sfumato.papers.claims import Budget, reproduce
from sfumato.papers.study import Cell, Metric, Results
from sfumato.papers.trial import Trial
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
    monkeypatch.setitem(sd3_mmdit.TRIALS, "cpu", MICRO)
    monkeypatch.setitem(sd3_mmdit.SHAPES, "cpu", SHAPE)
    monkeypatch.setattr(sd3_mmdit, "open_world", lambda budget: world)
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
    cells = sorted(path.parent.name.rsplit("-", 1)[0] for path in (tmp_path / "work" / "sd3-mmdit").glob("*/result.json"))
    assert cells == ["logit-normal-0", "logit-normal-1", "uniform-0", "uniform-1"] and not list(tmp_path.rglob("train"))

    def never(*arguments: object) -> Cell:
        raise AssertionError("a finished cell was run again")

    monkeypatch.setattr(trial, "run_cell", never)
    again = reproduce("sd3-mmdit", "cpu", tmp_path / "claims", work=tmp_path / "work")
    assert again.findings == report.findings and again.summary == report.summary


def test_without_drawings_the_way_to_them_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SFUMATO_DATA", str(tmp_path / "none"))
    with pytest.raises(DataError, match=r"no drawings in .*none\n.*sfumato data emoji --out .*none"):
        open_world(Budget("cpu", work=tmp_path))


@pytest.mark.parametrize(
    ("at_5", "at_50", "verdict"),
    [((1, 1, 1), 1, "reproduced"), ((1, -1, 1), 1, "partly"), ((1, 1, 1), -1, "partly"), ((-1, 1, -1), -1, "not reproduced")],
)
def test_the_rule(at_5: tuple[int, ...], at_50: int, verdict: str) -> None:
    """Positive = the new arm is better. At 50 steps there are two metrics, so that they outweigh the one at 5."""
    metrics = (Metric("frechet@5", ""), Metric("frechet@50", ""), Metric("concept@50", "", "higher"))
    new = [Cell({"frechet@5": 10.0 - gain, "frechet@50": 10.0 - at_50, "concept@50": 0.5 + 0.1 * at_50}, 1) for gain in at_5]
    old = [Cell({"frechet@5": 10.0, "frechet@50": 10.0, "concept@50": 0.5}, 1) for _ in at_5]
    assert sd3_mmdit.verdict(Results(metrics, {"logit-normal": new, "uniform": old}, {}))[0] == verdict


def test_too_few_pictures_reach_no_verdict() -> None:
    cells = [Cell({"frechet@5": None}, 1)]
    reached, summary, findings = sd3_mmdit.verdict(Results((Metric("frechet@5", ""),), {"logit-normal": cells, "uniform": cells}, {}))
    assert reached == "not yet" and "too few" in summary and not findings


def test_a_trial_can_be_shrunk() -> None:
    full = sd3_mmdit.TRIALS["cpu"]
    assert full.scaled(1.0) is full and (full.scaled(0.01).images, full.scaled(0.01).pictures) == (448, 3)
