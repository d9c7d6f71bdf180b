"""Exact checks of claims about networks: they hold, and they can fail."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from sfumato.core.errors import UnknownNameError
from sfumato.nn.expert_choice import ExpertChoice
from sfumato.papers import lit, micro_budget
from sfumato.papers.claims import reproduce


@pytest.mark.parametrize(("slug", "count"), [("micro-budget", 18), ("lit", 14), ("ascan", 14)])
def test_the_exact_checks_hold(slug: str, count: int, tmp_path: Path) -> None:
    report = reproduce(slug, "smoke", tmp_path)
    assert [f for f in report.findings if f.passed is not True] == []
    assert report.verdict == "not yet" and report.summary == f"{count}/{count} exact checks pass"
    with pytest.raises(UnknownNameError, match="unknown budget"):
        reproduce(slug, "gpu", tmp_path)


def test_experts_of_other_sizes_fail_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExpertChoice, "chosen", lambda self, x: (torch.ones(2, 8, 3), torch.ones(2, 8, 3, dtype=torch.long)))
    assert [f.passed for f in micro_budget.experts()] == [False, False]


def test_a_kernel_that_never_acts_fails_the_check(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lit.LocalLinearAttention, "_local", lambda self, x, heads: torch.zeros_like(heads.v))
    assert [f.passed for f in lit.convolution()] == [True, False, True, False]
