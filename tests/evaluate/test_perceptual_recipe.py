"""What is measured of a perceptual network is what happens, and the recipe runs from drawings to a folder."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from sfumato.core.errors import DataError
from sfumato.data.sources import open_source
from sfumato.evaluate.perceptual_recipe import STRENGTHS, PerceptualRecipe, _agreement, _order, spearman, train_perceptual
from sfumato.perceptual import Perceptual, PerceptualConfig
from sfumato.training.perceptual import PerceptualTaskConfig

FIXTURE = Path(__file__).parents[1] / "data" / "fixture"


def recipe(**changes: Any) -> PerceptualRecipe:
    small = PerceptualRecipe(PerceptualConfig((4, 4, 4)), PerceptualTaskConfig(side=32), batch=4, held_out=3)
    return replace(small, train=replace(small.train, steps=2), **changes)


def test_order_and_agreement() -> None:
    far = torch.arange(10.0).view(1, 5, 2).repeat(3, 1, 1)
    assert _order(far).value == 1 and _order(-far).value == 0
    turned = far.clone()
    turned[0, [1, 2]] = turned[0, [2, 1]]  # one of twelve neighbours is the wrong way about
    assert _order(turned).value == pytest.approx(11 / 12)
    assert _agreement(far, far.exp()).value == pytest.approx(1) and _agreement(far, -far).value == pytest.approx(-1)


def test_rank_correlation() -> None:
    a = torch.tensor([1.0, 2, 3, 4])
    assert spearman(a, a**3) == 1 and spearman(a, torch.tensor([1.0, 3, 2, 4])) == pytest.approx(0.8)
    assert spearman(a, torch.ones(4)) == 0 and len(STRENGTHS) == 5


def test_from_drawings_to_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    known = SimpleNamespace(concept_index=dict.fromkeys(open_source(FIXTURE, split=None).column("concept"), 0))
    monkeypatch.setattr("sfumato.evaluate.perceptual_recipe._told", lambda judge, images, truth: -images.var((1, 2, 3)))
    made = train_perceptual(FIXTURE, tmp_path / "out", recipe(), tmp_path / "run", known, quiet=True)  # type: ignore[arg-type]
    again = Perceptual.load(tmp_path / "out")
    assert again.card == made.card and again.card["trained_on"]["drawings"] > 1
    for group in ("taught", "kept back"):
        assert set(again.card["held_out"][group]) == {"perceptual", "mse", "1 - ssim"}
    monkeypatch.setattr("sfumato.evaluate.perceptual_recipe.may_train", lambda pictures, row: False)
    with pytest.raises(DataError, match="0 drawings to train"):
        train_perceptual(FIXTURE, tmp_path / "none", recipe(), tmp_path / "run2", known, quiet=True)  # type: ignore[arg-type]
