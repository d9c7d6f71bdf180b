"""Distances between sets of pictures in a feature space. Numbers in, numbers out; fp64 throughout.

Every one takes features a (N, D) of the pictures in question and b (M, D) of those they should resemble.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ...core.rng import generator
from .estimates import Estimate, jackknife, tables


def frechet(a: Tensor, b: Tensor) -> Estimate:
    """Fréchet distance between Gaussians fitted to features a (N, D) and b (M, D) (Heusel et al., arXiv 1706.08500, eq. 6).

    With fewer than D + 1 rows a covariance has no full rank and the number would tell the sample size rather than the pictures: no
    value, but the reason. The spread is the jackknife's, where leaving a tenth out still leaves enough. Raises `UsageError`,
    `NonFiniteError`.
    """
    a, b = tables(a, b)
    needed, fewest = a.shape[1] + 1, min(len(a), len(b))
    if fewest < needed:
        return Estimate(None, reason=f"not estimable: {fewest} pictures, {needed} needed for {a.shape[1]} features")
    if fewest * 9 // 10 < needed:
        return Estimate(gaussian_distance(a, b), reason=f"no spread: nine tenths of {fewest} pictures are fewer than {needed}")
    return jackknife(gaussian_distance, a, b)


def gaussian_distance(a: Tensor, b: Tensor) -> float:
    """|mu_a - mu_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2)) of fp64 tables.

    The trace of the root is the sum of the roots of the eigenvalues of the symmetric C_a^(1/2) C_b C_a^(1/2), which are those of C_a C_b.
    """
    cov_a, cov_b = torch.cov(a.T), torch.cov(b.T)
    values, vectors = torch.linalg.eigh(cov_a)
    root_a = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    product = root_a @ cov_b @ root_a
    root_trace = torch.linalg.eigvalsh((product + product.T) / 2).clamp_min(0).sqrt().sum()
    distance = (a.mean(0) - b.mean(0)).square().sum() + cov_a.trace() + cov_b.trace() - 2 * root_trace
    return max(0.0, float(distance))


def kernel_distance(a: Tensor, b: Tensor, subsets: int = 50, size: int = 100, seed: int = 0) -> Estimate:
    """Kernel distance (Binkowski et al., arXiv 1801.01401): the unbiased squared MMD under k(x, y) = (x.y / D + 1)^3.

    Mean over `subsets` random subsets of `size` rows from each side and its standard deviation, as published. With fewer than twice
    `size` rows such subsets would be nearly one and the same: then the estimate from all rows, with the jackknife's spread. It is
    unbiased at any size, so small negative values are right. Raises `UsageError`, `NonFiniteError`.
    """
    a, b = tables(a, b)
    fewest = min(len(a), len(b))
    if fewest < 2:
        return Estimate(None, reason=f"not estimable: {fewest} pictures, 2 needed")
    if fewest < 2 * size:
        return jackknife(lambda x, y: float(mmd2(x, y)), a, b)
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


def cmmd(a: Tensor, b: Tensor, sigma: float = 10.0) -> Estimate:
    """CMMD (Jayasumana et al., arXiv 2401.09603, eq. 4): 1000 times the squared MMD of unit-length embeddings under a Gaussian kernel.

    k(x, y) = exp(-|x - y|^2 / (2 sigma^2)), means over all pairs, a row with itself included as in the published code: never negative,
    and above 0 by about 1000 (1 - mean k) (1/N + 1/M) between equal distributions. Rows are brought to unit length here. Spread: the
    jackknife's. Raises `UsageError`, `NonFiniteError`.
    """
    a, b = tables(a, b)
    if not min(len(a), len(b)):
        return Estimate(None, reason="not estimable: 0 pictures, 1 needed")
    return jackknife(lambda x, y: gaussian_kernel_distance(x, y, sigma), a, b)


def gaussian_kernel_distance(a: Tensor, b: Tensor, sigma: float = 10.0) -> float:
    """1000 times the squared MMD of fp64 tables a (N, D), b (M, D), brought to unit length, under a Gaussian kernel."""
    a, b = (torch.nn.functional.normalize(side, dim=1) for side in (a, b))

    def mean_kernel(x: Tensor, y: Tensor) -> Tensor:
        sums = [torch.exp(-torch.cdist(rows, y).square() / (2 * sigma**2)).sum() for rows in x.split(1024)]
        return torch.stack(sums).sum() / (len(x) * len(y))

    return 1000.0 * float(mean_kernel(a, a) + mean_kernel(b, b) - 2 * mean_kernel(a, b))
