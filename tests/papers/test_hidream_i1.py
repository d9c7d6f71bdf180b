"""HiDream-I1's exact checks hold, and can fail."""

from pathlib import Path

import pytest

from sfumato.nn.moe import MixtureOfExperts
from sfumato.papers import hidream_i1
from sfumato.papers.claims import Budget


def failed(findings: tuple) -> list[str]:
    return [f.name for f in findings if f.passed is False]


def test_the_exact_checks_pass(tmp_path: Path):
    outcome = hidream_i1.check(Budget("smoke", work=tmp_path))
    assert len(outcome.findings) == 13 and not failed(outcome.findings) and outcome.verdict == "not yet"


def test_weights_that_are_renormalised_are_noticed(monkeypatch: pytest.MonkeyPatch):
    route = MixtureOfExperts.route

    def renormalised(self, x, call=None):
        p, weights, chosen = route(self, x, call)
        return p, weights / weights.sum(-1, keepdim=True), chosen

    monkeypatch.setattr(MixtureOfExperts, "route", renormalised)
    assert failed(hidream_i1.experts()) == ["the two weights of a token sum to, at most"]
