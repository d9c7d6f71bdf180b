"""Content and style words: the exact checks hold and can fail, the rule can say no, and real drawings are watched from end to end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sfumato.core.errors import DataError
from sfumato.evaluate.attribution import Attribution
from sfumato.papers import cow_of_rembrandt as cow
from sfumato.papers.claims import reproduce
from sfumato.sampling.policies import attention_maps

FIXTURE = Path(__file__).resolve().parents[1] / "data" / "fixture"
FOR = Attribution((1.5, 0.9), 0.1, dict.fromkeys(cow.HIGH, 0.2), dict.fromkeys(cow.HIGH, 0.1))


def test_the_exact_checks_hold(tmp_path: Path) -> None:
    report = reproduce(cow.CLAIM.slug, "smoke", tmp_path)
    assert report.ok, [f for f in report.findings if f.passed is False]
    assert report.verdict == "not yet" and report.summary == "20/20 exact checks pass"


def test_a_recorder_that_forgets_the_picture_fails_them(monkeypatch: pytest.MonkeyPatch) -> None:
    own = attention_maps.probabilities
    monkeypatch.setattr(attention_maps, "probabilities", lambda *a: own(*a) / own(*a).sum(-1, keepdim=True))
    failed = [f.name for f in cow.recorder() if not f.passed]
    assert failed == ["joint attention: text mass and picture mass, largest distance from 1"]


@pytest.mark.parametrize(
    ("changed", "verdict"),
    [
        ({}, "reproduced"),
        ({"on_object": -0.1}, "partly"),
        ({"control": dict.fromkeys(cow.HIGH, -0.1)}, "partly"),
        ({"gaps": {cow.HIGH[0]: 0.2, cow.HIGH[1]: -0.2}}, "partly"),
        ({"gaps": dict.fromkeys(cow.HIGH, -0.2)}, "not reproduced"),
        ({"density": (0.9, 1.5)}, "not reproduced"),
        ({"density": (1.0, 1.0)}, "not reproduced"),
    ],
)
def test_the_rule(changed: dict[str, object], verdict: str) -> None:
    found = replace(FOR, **changed)  # type: ignore[arg-type]
    assert cow.verdict([(found, FOR)] * 3)[0] == verdict


def test_a_difference_within_chance_is_none() -> None:
    mixed = [(replace(FOR, density=(1 + gain, 1.0)), FOR) for gain in (1.0, -0.9, 0.8, -0.7)]
    assert cow.verdict(mixed)[0] == "not reproduced"


def test_real_drawings_are_watched(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cow, "DRAWINGS", 3)
    monkeypatch.setattr(cow, "NOISES", 2)
    report = reproduce(cow.CLAIM.slug, "cpu", tmp_path / "claims", data=FIXTURE, model=str(model), work=tmp_path)
    assert report.verdict in ("reproduced", "partly", "not reproduced") and report.seeds == (0, 1)
    assert report.summary.startswith("3 drawings") and len(report.findings) == 10
    assert all(isinstance(f.found, float) and torch.tensor(f.found).isfinite() for f in report.findings)
    assert [(tmp_path / "claims" / p).stat().st_size > 2000 for p in report.pictures] == [True]


def test_without_drawings_the_way_to_them_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="sfumato data emoji"):
        reproduce(cow.CLAIM.slug, "cpu", tmp_path, data=tmp_path / "none")
