"""The distance between pictures: a distance, with a gradient, of any size of picture; strict files; wrong input is refused."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import pad

from sfumato.core.errors import ConfigError, UsageError, WeightsError
from sfumato.perceptual import Perceptual, PerceptualConfig, PerceptualNet

TINY = PerceptualConfig(widths=(4, 6, 8))


def tiny() -> Perceptual:
    torch.manual_seed(0)
    net = PerceptualNet(TINY)
    for weight in net.weights:
        weight.data += torch.randn_like(weight)
    return Perceptual(net, {"held_out": {}})


def pictures(count: int = 3, height: int = 24, width: int = 32, seed: int = 1) -> Tensor:
    return torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def test_it_is_a_distance() -> None:
    far, a, b = tiny(), pictures(), pictures(seed=2)
    assert (far(a, a) < 1e-9).all() and (far(a, b) > 0).all() and far(a, b).dtype == torch.float32
    torch.testing.assert_close(far(a, b), far(b, a))
    # Of unit vectors at weighted stages: the root of it obeys the triangle's inequality.
    assert (far(a, b).sqrt() <= far(a, pictures(seed=3)).sqrt() + far(pictures(seed=3), b).sqrt()).all()
    alone = torch.cat([far(x[None], y[None]) for x, y in zip(a, b, strict=True)])
    torch.testing.assert_close(alone, far(a, b))


def test_equation_1_by_hand() -> None:
    far, a, b = tiny(), pictures(1), pictures(1, seed=2)
    expected = 0.0
    for w, x, y in zip(far.net.weights, far.net(a), far.net(b), strict=True):
        assert (x.square().sum(1) < 1 + 1e-5).all()
        expected += sum(float(torch.log1p(w[c].exp()) * (x[0, c] - y[0, c]).square().mean()) for c in range(len(w)))
    assert float(far(a, b)) == pytest.approx(expected, rel=1e-4)
    # Stage s has the sides over 2^s, of odd sides too.
    assert [tuple(x.shape[1:]) for x in far.net(pictures(1, 13, 21))] == [(4, 13, 21), (6, 6, 10), (8, 3, 5)]


def test_a_loss_moves_one_picture_to_the_other() -> None:
    far, goal = tiny(), pictures(1)
    drawn = pictures(1, seed=2).requires_grad_()
    before = float(far(drawn.detach(), goal))
    optimizer = torch.optim.Adam([drawn], 0.05)
    for _ in range(40):
        optimizer.zero_grad()
        far(drawn, goal).sum().backward()
        optimizer.step()
    assert float(far(drawn.detach(), goal)) < 0.3 * before
    assert all(not p.requires_grad and p.grad is None for p in far.net.parameters())


def test_only_its_neighbourhood_shows_in_a_place() -> None:
    net, a = tiny().net, pictures(1, 64, 64)
    b = a.clone()
    b[..., :2, :2] = 1.0
    # Two convolutions of 3 x 3 a stage: at the third, 2 cells on each side of what two poolings bring together.
    for x, y, reach in zip(net(a), net(b), (4, 5, 6), strict=True):
        assert torch.equal(x[..., reach:, :], y[..., reach:, :]) and torch.equal(x[..., reach:], y[..., reach:])
        assert not torch.equal(x, y)


def test_paper_beside_a_drawing_is_no_difference() -> None:
    far, a, b = tiny(), pictures(1, 32, 32), pictures(1, 32, 32, seed=2)
    wider = [pad(x, (0, 32, 0, 0), value=1.0) for x in (a, b)]
    # Half of the area is the same on both sides.
    assert float(far(*wider)) == pytest.approx(float(far(a, b)) / 2, rel=0.25)


@pytest.mark.parametrize(("a", "b"), [((1, 3, 16, 16), (1, 3, 16, 12)), ((1, 1, 16, 16), (1, 1, 16, 16)), ((3, 16, 16), (3, 16, 16))])
def test_other_shapes_are_refused(a: tuple[int, ...], b: tuple[int, ...]) -> None:
    with pytest.raises(UsageError, match="to compare"):
        tiny()(torch.zeros(a), torch.zeros(b))


def test_sides_that_vanish_are_refused() -> None:
    assert TINY.least == 4 and float(tiny()(pictures(1, 4, 4), pictures(1, 4, 4))) < 1e-9
    with pytest.raises(UsageError, match="sides of 4 pixels or more"):
        tiny()(pictures(1, 3, 8), pictures(1, 3, 8))
    for widths in ((), (4, 0)):
        with pytest.raises(ConfigError, match="widths"):
            PerceptualConfig(widths)


def test_files(tmp_path: Path) -> None:
    far, a, b = tiny(), pictures(), pictures(seed=2)
    far.save(tmp_path)
    again = Perceptual.load(tmp_path)
    assert again.net.config == TINY and again.card == far.card
    torch.testing.assert_close(again(a, b), far(a, b), rtol=1e-2, atol=0)  # fp16 on disk
    described = tmp_path / "perceptual.json"
    content = json.loads(described.read_text())
    for change, said in ({"config": {"widths": [4, 6]}}, "does not fit"), ({"config": {"width": 3}}, "damaged file"):
        described.write_text(json.dumps({**content, **change}))
        with pytest.raises(WeightsError, match=said):
            Perceptual.load(tmp_path)
    with pytest.raises(WeightsError, match="sfumato train perceptual"):
        Perceptual.load(tmp_path / "nowhere")


def test_the_one_that_ships() -> None:
    """A drawing that moved is far nearer than no drawing at all, which MSE hardly tells apart."""
    far = Perceptual.load()
    assert sum(p.numel() for p in far.net.parameters()) < 1_000_000
    for group in ("taught", "kept back"):
        assert far.card["held_out"][group]["perceptual"]["order"]["low"] > 0.98
    ys, xs = torch.meshgrid(torch.linspace(-1, 1, 96), torch.linspace(-1, 1, 96), indexing="ij")
    ring = (((xs.square() + ys.square()).sqrt() - 0.6).abs() < 0.06).float() + ((xs - 0.1).abs() + ys.abs() < 0.25).float()
    drawn = (1 - 2 * ring.clamp(0, 1)).expand(1, 3, 96, 96)
    moved, paper = drawn.roll(4, 3), torch.ones_like(drawn)
    assert float((paper - drawn).square().mean()) < 1.3 * float((moved - drawn).square().mean())
    assert float(far(paper, drawn)) > 3 * float(far(moved, drawn)) > 0
