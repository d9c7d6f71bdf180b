"""Distances between sets of pictures in a feature space, and rates with their uncertainty. Numbers in, numbers out; fp64 throughout."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from ..core.errors import NonFiniteError, UsageError
from ..core.rng import generator


@dataclass(frozen=True)
class Estimate:
    """A value with its uncertainty (`spread`: standard deviation, None where none is known), or the reason there is none."""

    value: float | None
    spread: float | None = None
    reason: str = ""


def wilson(right: int, count: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a rate (Wilson 1927; 95% at z = 1.96): sound near 0 and 1, and (0, 1) where nothing was counted."""
    if not count:
        return 0.0, 1.0
    rate = right / count
    middle = rate + z * z / (2 * count)
    half = z * math.sqrt(rate * (1 - rate) / count + z * z / (4 * count * count))
    return max(0.0, (middle - half) / (1 + z * z / count)), min(1.0, (middle + half) / (1 + z * z / count))


def bootstrap(values: Tensor, seed: int = 0, rounds: int = 1000) -> tuple[float, float]:
    """95% percentile bootstrap interval of the mean of values (N,); (nan, nan) where there are none."""
    if not len(values):
        return math.nan, math.nan
    picks = torch.randint(len(values), (rounds, len(values)), generator=generator((seed, "bootstrap", 0)))
    low, high = values.double()[picks].mean(1).quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return low, high


def frechet(a: Tensor, b: Tensor) -> Estimate:
    """Fréchet distance between Gaussians fitted to features a (N, D) and b (M, D) (Heusel et al., arXiv 1706.08500, eq. 6).

    |mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)); the trace of the root is the sum of the roots of the eigenvalues of the symmetric
    C_a^(1/2) C_b C_a^(1/2), which are those of C_a C_b. With fewer than D + 1 rows a covariance has no full rank and the number would
    tell the sample size rather than the pictures: no value, but the reason. Raises `UsageError`, `NonFiniteError`.
    """
    a, b = _features(a, b)
    needed, fewest = a.shape[1] + 1, min(len(a), len(b))
    if fewest < needed:
        return Estimate(None, reason=f"not estimable: {fewest} pictures, {needed} needed for {a.shape[1]} features")
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(cov_a)
    root_a = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    product = root_a @ cov_b @ root_a
    root_trace = torch.linalg.eigvalsh((product + product.T) / 2).clamp_min(0).sqrt().sum()
    distance = (a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * root_trace
    return Estimate(max(0.0, float(distance)))


def kernel_distance(a: Tensor, b: Tensor, subsets: int = 50, size: int = 100, seed: int = 0) -> Estimate:
    """Kernel distance (Binkowski et al., arXiv 1801.01401): the unbiased squared MMD under k(x, y) = (x.y / D + 1)^3.

    Mean over `subsets` random subsets of `size` rows from each side (fewer where there are fewer), and its standard deviation. The
    estimate is unbiased at any size, so small negative values are right. Raises `UsageError`, `NonFiniteError`.
    """
    a, b = _features(a, b)
    size = min(size, len(a), len(b))
    if size < 2:
        return Estimate(None, reason=f"not estimable: {min(len(a), len(b))} pictures, 2 needed")
    values: list[Tensor] = []
    for number in range(subsets):
        rng = generator((seed, "kid", number))
        x, y = (side[torch.randperm(len(side), generator=rng)[:size]] for side in (a, b))
        values.append(mmd2(x, y))
    stacked = torch.stack(values)
    return Estimate(float(stacked.mean()), float(stacked.std(correction=0)))


def mmd2(x: Tensor, y: Tensor) -> Tensor:
    """Unbiased squared maximum mean discrepancy of x (N, D) and y (M, D) under the cubic kernel; a scalar."""
    n, m = len(x), len(y)
    xx, yy, xy = (_cubic(*pair) for pair in ((x, x), (y, y), (x, y)))
    return (xx.sum() - xx.trace()) / (n * (n - 1)) + (yy.sum() - yy.trace()) / (m * (m - 1)) - 2 * xy.mean()


def _cubic(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1.0) ** 3


def alignment(images: Tensor, captions: Tensor) -> Tensor:
    """(B,) cosine of each picture's embedding (B, E) to its caption's (B, E). Raises `UsageError`, `NonFiniteError`."""
    images, captions = _features(images, captions)
    if len(images) != len(captions):
        raise UsageError(f"{len(images)} pictures and {len(captions)} captions", "one caption for each picture")
    return torch.nn.functional.cosine_similarity(images, captions, dim=1)


def _features(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both as fp64 on the CPU, checked: two tables of equal width, finite throughout."""
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise UsageError(f"features of shapes {tuple(a.shape)} and {tuple(b.shape)}", "two tables (N, D) and (M, D) are needed")
    for name, side in (("first", a), ("second", b)):
        if not side.isfinite().all():
            raise NonFiniteError(f"the {name} set of features holds NaN or infinity ({side.dtype})")
    return a.double().cpu(), b.double().cpu()
