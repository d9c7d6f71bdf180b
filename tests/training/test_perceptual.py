"""Distortions do what they say, and the task learns an order."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from tests.training.tasks import config

from sfumato.core.rng import Draws
from sfumato.core.task import Phase
from sfumato.perceptual import PerceptualConfig, PerceptualNet
from sfumato.training.batches import Columns
from sfumato.training.crops import cropped
from sfumato.training.distortions import KEPT_BACK, TAUGHT, distorted
from sfumato.training.loop import train
from sfumato.training.perceptual import PerceptualTask, PerceptualTaskConfig

ALL = {**TAUGHT, **KEPT_BACK}


def blobs(count: int = 6, side: int = 48) -> torch.Tensor:
    """Smooth drawings in ink on white paper."""
    looks = torch.rand(count, 3, 6, 6, generator=torch.Generator().manual_seed(0))
    looks[:, :, [0, -1]] = looks[..., [0, -1]] = 0.0
    return torch.nn.functional.interpolate(looks, size=(side, side), mode="bilinear")


def test_kinds_are_taught_or_kept_back() -> None:
    assert not TAUGHT.keys() & KEPT_BACK.keys() and len(KEPT_BACK) >= 3


@pytest.mark.parametrize("name", sorted(ALL))
@pytest.mark.parametrize("shape", [(48, 48), (32, 56)])
def test_a_distortion(name: str, shape: tuple[int, int]) -> None:
    """Nothing at 0; the same for the same draws and other rows beside it; further with a larger strength; something at 1 in every row."""
    ink = torch.nn.functional.interpolate(blobs(), size=shape)
    change = ALL[name]
    torch.testing.assert_close(change(ink, torch.zeros(6), Draws(0, 0)), ink, rtol=0, atol=2e-5)
    weak, strong = (change(ink, torch.full((6,), u), Draws(0, 0)) for u in (0.3, 1.0))
    assert weak.shape == ink.shape and torch.equal(weak, change(ink, torch.full((6,), 0.3), Draws(0, 0)))
    gaps = [(x - ink).square().mean((1, 2, 3)) for x in (weak, strong)]
    assert (gaps[1] > gaps[0]).all() and (gaps[1] > 1e-4).all()
    mixed = change(ink, torch.tensor([0.3, 1.0] * 3), Draws(0, 0))
    torch.testing.assert_close(mixed[0], weak[0], rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mixed[1], strong[1], rtol=1e-4, atol=1e-5)


def test_a_row_has_its_own_kind() -> None:
    ink, kinds = blobs(), torch.tensor([0, 0, 7, 7, 7, 3])
    out = distorted(ink, torch.full((6,), 0.5), Draws(0, 1), kinds)
    assert out.min() >= 0 and out.max() <= 1
    names = list(TAUGHT)
    for number in (0, 3, 7):
        rows = (kinds == number).nonzero().flatten()
        expected = TAUGHT[names[number]](ink[rows], torch.full((len(rows),), 0.5), Draws(0, 1)).clamp(0, 1)
        assert torch.equal(out[rows], expected)


def test_crops_are_pieces() -> None:
    images = torch.arange(2 * 3 * 10 * 12).view(2, 3, 10, 12)
    for step in range(5):
        for piece, whole in zip(cropped(images, 8, Draws(0, step)), images, strict=True):
            places = [whole[:, t : t + 8, c : c + 8] for t in range(3) for c in range(5)]
            assert any(torch.equal(piece, place) for place in places)


def test_the_order_is_learnt(tmp_path: Path) -> None:
    torch.manual_seed(0)
    task = PerceptualTask(PerceptualNet(PerceptualConfig((6, 8, 8))), PerceptualTaskConfig(side=32))
    data = Columns({"images": (255 * (1 - blobs(24))).byte()}, 12, 0)
    phase = Phase("perceptual", ("net",))

    def losses() -> float:
        with torch.no_grad():
            return sum(float(task.loss(phase, data.batch(i), {}, Draws(9, i)).total) for i in range(8))

    before = losses()
    train(task, {"train": data}, config(steps=40), tmp_path, quiet=True)
    assert losses() < 0.8 * before


def test_equal_distances_cost_what_a_coin_does() -> None:
    """White paper under anything that keeps it white: all three distances are equal, so each comparison costs ln 2."""
    task = PerceptualTask(PerceptualNet(PerceptualConfig((4,))), PerceptualTaskConfig(side=16, contrast=0.0))
    task.net.requires_grad_(False)
    for weight in task.net.weights:
        weight.fill_(-1e9)  # softplus: 0
    loss = task.loss(Phase("perceptual", ("net",)), {"images": torch.full((4, 3, 16, 16), 255).byte()}, {}, Draws(0, 0))
    assert float(loss.total) == pytest.approx(2 * 0.693147, abs=1e-4) and float(loss.metrics["right"]) == 0
