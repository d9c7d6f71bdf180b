"""The harness: what is recorded, what a verdict may say, and what is listed."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from sfumato.core.errors import DataError, UnknownNameError, UsageError
from sfumato.papers import claims
from sfumato.papers.claims import Budget, Claim, Finding, Outcome, exact, listing, markdown, reproduce

ROOT = Path(__file__).resolve().parents[2]
SHEETS = 66
BUILT = [slug for slug in claims.catalogue() if claims._module(slug)]


class Paper:
    """A paper whose check finds what it is told to."""

    def __init__(self, *findings: Finding, verdict: claims.Verdict = "reproduced") -> None:
        self.CLAIM = Claim("sd3-mmdit", "A title", "2403.03206", "A statement.")
        self.findings, self.verdict, self.budgets = findings, verdict, list[Budget]()

    def check(self, budget: Budget) -> Outcome:
        self.budgets.append(budget)
        picture = budget.pictures / f"{budget.name}.txt"
        picture.parent.mkdir(parents=True, exist_ok=True)
        picture.write_text("a picture")
        return Outcome(self.findings, self.verdict, "so it is", (0, 1), (picture,))


@pytest.fixture
def paper(monkeypatch: pytest.MonkeyPatch) -> Paper:
    fake = Paper(exact("one", 1, 1.0), Finding("shown", None, float("nan"), None, "m", (0.0, 1.0)))
    monkeypatch.setattr(claims, "_paper", lambda slug: fake)
    return fake


def test_what_is_recorded(paper: Paper, tmp_path: Path) -> None:
    report = reproduce("sd3-mmdit", "cpu", tmp_path / "claims", work=tmp_path / "work", data=tmp_path, model="m", judge=tmp_path / "j")
    assert paper.budgets == [Budget("cpu", tmp_path / "work", tmp_path / "claims" / "sd3-mmdit", tmp_path, "m", tmp_path / "j")]
    assert report.verdict == "reproduced" and report.ok
    written = json.loads((tmp_path / "claims" / "sd3-mmdit.json").read_text())
    assert set(written) == {"slug", "title", "arxiv", "statement", "budgets", "verdict"}
    record = written["budgets"]["cpu"]
    fields = {"slug", "budget", "verdict", "summary", "findings", "seeds", "pictures", "device", "versions", "seconds"}
    assert set(record) == fields and set(record["versions"]) == {"python", "sfumato", "torch", "numpy"}
    assert record["pictures"] == ["sd3-mmdit/cpu.txt"] and record["seeds"] == [0, 1] and "CPU" in record["device"]
    assert record["findings"] == [
        {"name": "one", "expected": 1, "found": 1.0, "passed": True, "unit": "", "interval": None},
        {"name": "shown", "expected": None, "found": None, "passed": None, "unit": "m", "interval": [0.0, 1.0]},
    ]


def test_budgets_stand_side_by_side(paper: Paper, tmp_path: Path) -> None:
    path = tmp_path / "sd3-mmdit.json"
    reproduce("sd3-mmdit", "cpu", tmp_path)
    paper.verdict = "not reproduced"
    reproduce("sd3-mmdit", "smoke", tmp_path)
    first = json.loads(path.read_text())
    assert list(first["budgets"]) == ["smoke", "cpu"] and first["verdict"] == "reproduced"
    paper.findings = (exact("one", 1, 2),)
    reproduce("sd3-mmdit", "smoke", tmp_path)
    second = json.loads(path.read_text())
    assert second["budgets"]["cpu"] == first["budgets"]["cpu"] and second["verdict"] == "reproduced"
    assert second["budgets"]["smoke"]["summary"] == "0/1 exact checks pass"
    assert "smoke: 0/1 exact checks pass; cpu: so it is" in markdown(tmp_path)


def test_smoke_and_dry_runs_reach_no_verdict(paper: Paper, tmp_path: Path) -> None:
    smoke = reproduce("sd3-mmdit", "smoke", tmp_path / "out")
    assert smoke.verdict == "not yet" and smoke.summary == "1/1 exact checks pass"
    assert json.loads((tmp_path / "out" / "sd3-mmdit.json").read_text())["verdict"] == "not yet"
    dry = reproduce("sd3-mmdit", "cpu", tmp_path / "out", work=tmp_path / "work", scale=0.01)
    assert dry.verdict == "not yet" and dry.summary.startswith("dry run at scale 0.01")
    assert "cpu" not in json.loads((tmp_path / "out" / "sd3-mmdit.json").read_text())["budgets"]
    assert (tmp_path / "work" / "dry" / "sd3-mmdit.json").is_file()


def test_bad_requests(paper: Paper, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="uses no data, scale"):
        reproduce("sd3-mmdit", "smoke", tmp_path, data=tmp_path, scale=0.5)
    with pytest.raises(UsageError, match="scale is 2"):
        reproduce("sd3-mmdit", "cpu", tmp_path, scale=2.0)
    with pytest.raises(UnknownNameError, match="did you mean 'gpu'"):
        reproduce("sd3-mmdit", "gpus", tmp_path)  # type: ignore[arg-type]
    (tmp_path / "sd3-mmdit.json").write_text("{")
    with pytest.raises(DataError, match="damaged record"):
        reproduce("sd3-mmdit", "smoke", tmp_path)


def test_unknown_and_unchecked_claims(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="did you mean 'sd3-mmdit'"):
        reproduce("sd3-mmdi", out=tmp_path)
    with pytest.raises(UsageError, match=r"InstaFlow \(instaflow\) has no check yet\n.*sd3-mmdit"):
        reproduce("instaflow", out=tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_gpu_budget_asks_for_a_gpu(paper: Paper, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(UsageError, match="needs a GPU"):
        reproduce("sd3-mmdit", "gpu", tmp_path)


def test_exact_findings_can_fail() -> None:
    assert exact("a", 1, 1.05, 0.1).passed and not exact("a", 1, 1.05, 0.01).passed
    assert exact("b", (1, 2), (1, 2)).passed and not exact("b", (1, 2), (1, 2, 3)).passed and not exact("c", 0, float("nan"), 1).passed


def test_the_listing_holds_all_systems(tmp_path: Path) -> None:
    lines = listing(tmp_path)
    assert len(lines) == SHEETS == len({line.slug for line in lines}) and {line.verdict for line in lines} == {"not yet"}
    assert all(re.fullmatch(r"\d{4}\.\d{5}", line.arxiv) and line.name and line.title for line in lines)
    table = markdown(tmp_path)
    assert all(f"(`{line.slug}`)" in table for line in lines) and f"{SHEETS} systems: 0 reproduced" in table
    assert {line.slug for line in lines if line.detail} == set(BUILT)


@pytest.mark.parametrize("slug", BUILT)
def test_a_papers_file_agrees_with_the_catalogue(slug: str) -> None:
    claim, entry = claims._paper(slug).CLAIM, claims.catalogue()[slug]
    assert (claim.slug, claim.title, claim.arxiv) == (slug, entry["title"], entry["arxiv"])


def test_listing_needs_no_torch() -> None:
    code = "import sys; from sfumato.papers import claims; claims.markdown(); sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_committed_table_is_up_to_date() -> None:
    """After a check is run again: make docs."""
    assert (ROOT / "docs" / "claims.md").read_text(encoding="utf-8") == markdown(ROOT / "docs" / "claims")
    for path in (ROOT / "docs" / "claims").glob("*.json"):
        record = json.loads(path.read_text(encoding="utf-8"))
        assert record["slug"] == path.stem
        for budget in record["budgets"].values():
            assert all((path.parent / picture).is_file() for picture in budget["pictures"])
