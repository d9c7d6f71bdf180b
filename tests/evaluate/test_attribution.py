"""Overlap of maps: the published checks, and what must not change it."""

from __future__ import annotations

import pytest
import torch

from sfumato.core.errors import UsageError
from sfumato.evaluate.attribution import independent_iou, inside, iou, other_pairs, overlap, spread, support

RAMP = torch.arange(10.0)[None] / 10


def test_spread_maps_know_neither_scale_nor_offset() -> None:
    maps = torch.rand(2, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(spread(3 * maps + 5), spread(maps), rtol=1e-4, atol=1e-5)
    assert spread(maps).amin() == 0 and spread(maps).amax() == 1 and not spread(torch.ones(2, 2)).any()


@pytest.mark.parametrize(("kind", "value", "both", "either"), [("absolute", 0.4, 2, 10), ("absolute", 0.5, 0, 10), ("quantile", 0.8, 0, 4)])
def test_a_ramp_against_its_mirror(kind: str, value: float, both: int, either: int) -> None:
    # Ninths and tenths of a ramp are no exact numbers: a hair below the threshold keeps equality an equality.
    masks = [support(x, (kind, value - 1e-6 if kind == "absolute" else value)) for x in (RAMP, RAMP.flip(-1))]  # type: ignore[arg-type]
    assert (int((masks[0] & masks[1]).sum()), int((masks[0] | masks[1]).sum())) == (both, either)


def test_iou_is_symmetric_and_bounded() -> None:
    a, b = RAMP > 0.3, RAMP > 0.6
    assert iou(a, a) == 1 and iou(a, ~a) == 0 and iou(a, b) == iou(b, a) == 3 / 6 and iou(a & ~a, b & ~b) == 0


@pytest.mark.parametrize("quantile", [0.1, 0.5, 0.8, 0.9])
def test_unrelated_maps(quantile: float) -> None:
    maps = torch.rand(12, 64, 64, generator=torch.Generator().manual_seed(1))
    masks = support(maps, ("quantile", quantile))
    found = [iou(masks[i], masks[i + 1]) for i in range(0, 12, 2)]
    assert sum(found) / 6 == pytest.approx(independent_iou(1 - quantile, 1 - quantile), abs=0.02)
    assert independent_iou(0.9, 0.9) == pytest.approx(0.9 / 1.1) and independent_iou(0.0, 0.5) == 0


def test_density_on_an_object() -> None:
    mask = RAMP >= 0.5
    assert inside(torch.ones(1, 10), mask) == pytest.approx(1) and inside(mask.float(), mask) == pytest.approx(2)
    assert inside((~mask).float(), mask) == 0
    with pytest.raises(UsageError, match="mask is empty"):
        inside(RAMP, mask & ~mask)


def test_pairs() -> None:
    words = ["a", "M", "of", "a2", "C", "in", "the", "S", "style"]
    for count, every, touching in ((9, 35, 14), (6, 14, 8), (5, 9, 6)):
        chosen = ["C", "S", *[w for w in words if w not in "CS"]][:count]
        assert tuple(map(len, other_pairs(chosen, "C", "S"))) == (every, touching)


def test_overlap() -> None:
    maps = {"a": RAMP, "b": RAMP.flip(-1), "c": RAMP, "d": RAMP}
    found = overlap(maps, "a", "b", ("quantile", 0.5))
    assert found.iou == 0 and found.baseline == pytest.approx(3 / 5) and found.touching == pytest.approx(2 / 4) and found.gap > 0
    assert overlap(maps, "a", "c", ("quantile", 0.5)).gap < 0
    with pytest.raises(UsageError, match="no pair but"):
        overlap({"a": RAMP, "b": RAMP}, "a", "b", ("quantile", 0.5))
