"""Operator shares: the exact checks hold and can fail, the rule can say no, and both networks are profiled from end to end."""

from __future__ import annotations

from pathlib import Path

import pytest

from sfumato.evaluate import profiler
from sfumato.evaluate.profiler import Kind, Length, Profile, Row, Work
from sfumato.papers import beyond_llms as paper
from sfumato.papers.claims import reproduce


def seen(lengths: tuple[int, ...] = (8,), **seconds: float) -> Profile:
    rows = [Row("network.blocks.0", kind, Work(s, 0, 0, 1)) for kind, s in seconds.items()]  # type: ignore[arg-type]
    dense: Kind = "linear"
    return Profile(
        (*rows, Row("network.blocks.0.mlp.core.image.up", dense, Work(0.0, 500, 10, 1))),
        tuple(Length("network", "blocks.0", n, n) for n in lengths),
        1.0,
    )


def test_the_exact_checks_hold(tmp_path: Path) -> None:
    report = reproduce("beyond-llms", "smoke", tmp_path)
    assert report.ok, [f for f in report.findings if f.passed is False]
    assert report.summary == "9/9 exact checks pass"


def test_forgotten_attention_fails_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(profiler, "sdpa_flop_count", lambda *shapes: 0)
    assert [f.name for f in paper.counts() if not f.passed] == ["FLOPs of the blocks' products"]


UNET = {"convolution": 3.0, "attention": 1.0, "linear": 1.0}


@pytest.mark.parametrize(
    ("unet", "transformer", "verdict"),
    [
        (seen((64, 16, 4), **UNET), seen(linear=2.0, attention=1.0), "partly"),
        (seen((64, 16, 4), convolution=1.0, attention=2.0), seen(linear=2.0, attention=1.0), "not reproduced"),
        (seen((64, 16, 4), **UNET), seen(linear=1.0, norm=2.0), "not reproduced"),
        (seen((64, 32), **UNET), seen(linear=2.0), "not reproduced"),
        (seen((64, 16), **UNET), seen((8, 9), linear=2.0), "not reproduced"),
    ],
)
def test_the_rule(unet: Profile, transformer: Profile, verdict: str) -> None:
    reached, summary, findings = paper.verdict(unet, transformer, seen(linear=1.0))
    assert reached == verdict and "can be checked here" in summary
    assert {f.name for f in findings if f.passed is None} >= set(paper.NOT_CHECKED)


def test_both_networks_are_profiled(tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paper, "SIDE", 16)
    report = reproduce("beyond-llms", "cpu", tmp_path, model=str(model), work=tmp_path / "work", scale=0.05)
    found = {f.name: f.found for f in report.findings}
    assert report.verdict == "not yet" and report.summary.startswith("dry run")
    assert found["U-Net: longest over shortest sequence"] == 64 and found["transformer: longest over shortest sequence"] == 1
    assert all((tmp_path / "work" / "dry" / p).read_text().startswith("<svg") for p in report.pictures) and len(report.pictures) == 2
