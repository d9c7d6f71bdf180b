"""The distances against independent arithmetic: scipy's matrix root, kernel sums and balls written out, known intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from sfumato.core.errors import NonFiniteError, UsageError
from sfumato.evaluate.metrics import (
    Estimate,
    bootstrap,
    cmmd,
    finite_rows,
    frechet,
    jackknife,
    kernel_distance,
    manifolds,
    mmd2,
    student,
    wilson,
)


def features(rows: int, width: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(rows, width, generator=g) @ torch.randn(width, width, generator=g) + shift


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_frechet_equals_scipys_matrix_root(shift: float) -> None:
    a, b = features(200, 12, 0), features(150, 12, 1, shift)
    x, y = a.double().numpy(), b.double().numpy()
    cx, cy = np.cov(x, rowvar=False), np.cov(y, rowvar=False)
    root = scipy.linalg.sqrtm(cx @ cy).real
    expected = ((x.mean(0) - y.mean(0)) ** 2).sum() + np.trace(cx + cy - 2 * root)
    # torch-fidelity computes this same formula: 343.0221551286228 and ours 343.0221551286240 on one pair of sets.
    assert frechet(a, b).value == pytest.approx(expected, rel=1e-4)


def test_frechet_of_equal_sets_is_zero_and_it_is_symmetric() -> None:
    a, b = features(100, 6, 0), features(100, 6, 1)
    assert frechet(a, a).value == pytest.approx(0.0, abs=1e-9)
    assert frechet(a, b).value == pytest.approx(frechet(b, a).value)


def test_frechet_is_refused_with_the_reason_below_full_rank() -> None:
    found = frechet(features(12, 12, 0), features(100, 12, 1))
    assert found.value is None and found.reason == "not estimable: 12 pictures, 13 needed for 12 features"
    scarce = frechet(features(13, 12, 0), features(100, 12, 1))
    assert scarce.value is not None and scarce.spread is None and scarce.reason.startswith("no spread")


def brute_force(x: torch.Tensor, y: torch.Tensor) -> float:
    def kernel(u: torch.Tensor, v: torch.Tensor) -> float:
        return (float(u @ v) / len(u) + 1) ** 3

    n, m = len(x), len(y)
    xx = sum(kernel(x[i], x[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    yy = sum(kernel(y[i], y[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    return xx + yy - 2 * sum(kernel(u, v) for u in x for v in y) / (n * m)


def test_the_kernel_distance_is_the_sum_written_out() -> None:
    x, y = features(11, 5, 0).double(), features(9, 5, 1, 0.3).double()
    assert float(mmd2(x, y)) == pytest.approx(brute_force(x, y), rel=1e-9)
    # Too few for subsets: the plain estimate, without the false certainty of subsets that are all alike.
    assert kernel_distance(x, y) == Estimate(float(mmd2(x, y)), None, "no spread: 9 pictures, 20 needed")
    more = kernel_distance(features(40, 5, 0), features(40, 5, 1))
    assert more.spread is not None and more.spread > 0


def test_the_kernel_distance_is_unbiased() -> None:
    found = kernel_distance(features(400, 8, 2)[:200], features(400, 8, 2)[200:], subsets=40, size=60)
    assert found.value is not None and found.spread is not None
    assert abs(found.value) < 2 * found.spread
    far = kernel_distance(features(200, 8, 2), features(200, 8, 2, 2.0))
    assert far.value is not None and far.value > 5 * found.spread
    assert kernel_distance(features(1, 8, 0), features(9, 8, 1)).value is None


def test_intervals() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    low, high = wilson(8, 10)
    assert (round(low, 4), round(high, 4)) == (0.4902, 0.9433)
    assert wilson(10, 10)[1] == 1.0 and wilson(10, 10)[0] < 0.75
    values = torch.randn(400, generator=torch.Generator().manual_seed(0))
    low, high = bootstrap(values)
    assert low < float(values.mean()) < high and high - low == pytest.approx(4 * float(values.std()) / math.sqrt(400), rel=0.15)
    assert bootstrap(values) == (low, high)


def test_the_interval_of_a_few_values_holds_the_mean_as_often_as_it_says() -> None:
    for count in (3, 5):
        drawn = torch.randn(2000, count, generator=torch.Generator().manual_seed(count))
        found = [student(row) for row in drawn]
        assert 0.935 < sum(low < 0 < high for low, high in found) / 2000 < 0.965
    assert all(map(math.isnan, student(torch.tensor([1.0])))) and student(torch.tensor([2.0, 2.0])) == (2.0, 2.0)


def test_bad_features_are_refused() -> None:
    with pytest.raises(UsageError, match="two tables"):
        frechet(torch.ones(4, 3), torch.ones(4, 2))
    with pytest.raises(NonFiniteError, match="second set"):
        kernel_distance(torch.ones(4, 3), torch.full((4, 3), math.nan))
    bad = torch.ones(9, 3)
    bad[4, 1] = math.inf
    with pytest.raises(NonFiniteError, match=r"first set .* 1 of 9 rows: \[4\]"):
        manifolds(bad, torch.ones(9, 3))
    kept, left = finite_rows(bad)
    assert len(kept) == 8 and left == [4] and finite_rows(kept)[1] == []


def test_cmmd_is_its_formula() -> None:
    a, b = features(60, 7, 0), features(45, 7, 1, 0.4)
    x, y = (t.double().numpy() / np.linalg.norm(t.double().numpy(), axis=1, keepdims=True) for t in (a, b))

    def kernel(u: np.ndarray, v: np.ndarray) -> float:
        return float(np.exp(-((u[:, None] - v[None]) ** 2).sum(-1) / 200).mean())

    found = cmmd(a, b)
    assert found.value == pytest.approx(1000 * (kernel(x, x) + kernel(y, y) - 2 * kernel(x, y)), rel=1e-6)
    assert found.spread is not None and 0 < found.spread < found.value
    assert cmmd(3 * a, b).value == pytest.approx(found.value) and cmmd(a, a).value == pytest.approx(0, abs=1e-9)
    assert cmmd(a[:0], b).reason.startswith("not estimable")


def test_manifolds_are_counted_balls() -> None:
    a, b = features(40, 3, 0).double().numpy(), features(30, 3, 1, 0.3).double().numpy()

    def distances(x: np.ndarray, y: np.ndarray) -> np.ndarray:
        return np.sqrt(((x[:, None] - y[None]) ** 2).sum(-1))

    def radius(x: np.ndarray, k: int) -> np.ndarray:
        return np.sort(distances(x, x), 1)[:, k]

    found, across = manifolds(torch.tensor(a), torch.tensor(b)), distances(a, b)
    assert found.precision.value == pytest.approx((across <= radius(b, 3)).any(1).mean())
    assert found.recall.value == pytest.approx((radius(a, 3) >= across.T).any(1).mean())
    assert found.density.value == pytest.approx((across <= radius(b, 5)).sum() / (5 * 40))
    assert found.coverage.value == pytest.approx((across <= radius(b, 5)).any(0).mean())
    assert all(e.spread is not None for e in (found.precision, found.recall, found.density, found.coverage))


def test_manifolds_tell_fidelity_from_variety() -> None:
    real = torch.randn(200, 4, generator=torch.Generator().manual_seed(0))
    collapsed = manifolds(0.1 * features(200, 4, 1) / 3, real)
    assert collapsed.precision.value == 1.0 and collapsed.recall.value is not None and collapsed.recall.value < 0.2
    assert manifolds(real, real).coverage.value == 1.0
    few = manifolds(real[:4], real)
    assert few.precision.value is not None and few.density.reason == "not estimable: 4 pictures, 6 needed for 5 neighbours"


def test_the_jackknife_gives_the_error_of_a_mean() -> None:
    a = torch.randn(1000, 1, generator=torch.Generator().manual_seed(3))
    spreads = [jackknife(lambda x: float(x.mean()), a, seed=s).spread for s in range(40)]
    assert sum(s for s in spreads if s) / 40 == pytest.approx(float(a.std()) / math.sqrt(1000), rel=0.1)
    # What both sets share leaves together: the spread of a paired difference is small.
    paired = jackknife(lambda x, y: float(x.mean() - y.mean()), a, a + 1)
    assert paired.value == pytest.approx(-1.0, abs=1e-6) and paired.spread == pytest.approx(0.0, abs=1e-6)
    assert jackknife(lambda x: float(x.mean()), a[:19]).spread is None
