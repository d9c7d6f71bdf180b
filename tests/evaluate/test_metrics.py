"""The distances against independent arithmetic: scipy's matrix root, a kernel sum written out, known intervals."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.linalg
import torch

from sfumato.core.errors import NonFiniteError, UsageError
from sfumato.evaluate.metrics import alignment, bootstrap, frechet, kernel_distance, mmd2, wilson


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
    assert frechet(a, b).value == pytest.approx(expected, rel=1e-4)


def test_frechet_of_equal_sets_is_zero_and_it_is_symmetric() -> None:
    a, b = features(100, 6, 0), features(100, 6, 1)
    assert frechet(a, a).value == pytest.approx(0.0, abs=1e-9)
    assert frechet(a, b).value == pytest.approx(frechet(b, a).value)


def test_frechet_is_refused_with_the_reason_below_full_rank() -> None:
    found = frechet(features(12, 12, 0), features(100, 12, 1))
    assert found.value is None and found.reason == "not estimable: 12 pictures, 13 needed for 12 features"


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
    # One subset of everything is the plain estimate, with no spread.
    whole = kernel_distance(x, y[:9], subsets=1, size=100)
    assert whole.spread == 0.0


def test_the_kernel_distance_is_unbiased() -> None:
    found = kernel_distance(features(400, 8, 2)[:200], features(400, 8, 2)[200:], subsets=40, size=60)
    assert found.value is not None and found.spread is not None
    assert abs(found.value) < 2 * found.spread
    far = kernel_distance(features(200, 8, 2), features(200, 8, 2, 2.0))
    assert far.value is not None and far.value > 5 * found.spread
    assert kernel_distance(features(1, 8, 0), features(9, 8, 1)).value is None


def test_alignment_is_the_cosine() -> None:
    assert alignment(torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[2.0, 0.0], [-1.0, 1.0]])).tolist() == pytest.approx([1.0, 0.0])
    with pytest.raises(UsageError, match="one caption for each"):
        alignment(torch.ones(2, 3), torch.ones(1, 3))


def test_intervals() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
    low, high = wilson(8, 10)
    assert (round(low, 4), round(high, 4)) == (0.4902, 0.9433)
    assert wilson(10, 10)[1] == 1.0 and wilson(10, 10)[0] < 0.75
    values = torch.randn(400, generator=torch.Generator().manual_seed(0))
    low, high = bootstrap(values)
    assert low < float(values.mean()) < high and high - low == pytest.approx(4 * float(values.std()) / math.sqrt(400), rel=0.15)
    assert bootstrap(values) == (low, high)


def test_bad_features_are_refused() -> None:
    with pytest.raises(UsageError, match="two tables"):
        frechet(torch.ones(4, 3), torch.ones(4, 2))
    with pytest.raises(NonFiniteError, match="second set"):
        kernel_distance(torch.ones(4, 3), torch.full((4, 3), math.nan))
