"""Fidelity and variety apart: precision, recall, density and coverage, from balls around pictures in a feature space.

A ball around a row reaches to its k-th nearest neighbour in its own set; the union of the balls stands for the set's manifold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from .estimates import Estimate, jackknife, tables

CHUNK = 1024


@dataclass(frozen=True)
class Manifolds:
    """`precision`: share of pictures within the real manifold; `recall`: of real ones within that of the pictures.

    `density`: how many real balls hold a picture, over k (unbounded; 1 between equal distributions); `coverage`: share of real balls
    that hold a picture.
    """

    precision: Estimate
    recall: Estimate
    density: Estimate
    coverage: Estimate


def manifolds(a: Tensor, b: Tensor, k: int = 3, k_density: int = 5) -> Manifolds:
    """Of pictures a (N, D) and real ones b (M, D): precision and recall with `k` neighbours (Kynkäänniemi et al., arXiv 1904.06991,
    eq. 1 and 2), density and coverage with `k_density` (Naeem et al., arXiv 2002.09797, eq. 3 and 6).

    Spreads are the jackknife's. Without k + 1 rows on each side: no value, but the reason. Raises `UsageError`, `NonFiniteError`.
    """
    a, b = tables(a, b)

    def estimate(neighbours: int, statistic: Callable[[Tensor, Tensor, int], float]) -> Estimate:
        fewest = min(len(a), len(b))
        if fewest <= neighbours:
            return Estimate(None, reason=f"not estimable: {fewest} pictures, {neighbours + 1} needed for {neighbours} neighbours")
        return jackknife(lambda x, y: statistic(x, y, neighbours), a, b)

    return Manifolds(
        precision=estimate(k, precision),
        recall=estimate(k, lambda x, y, n: precision(y, x, n)),
        density=estimate(k_density, density),
        coverage=estimate(k_density, coverage),
    )


def precision(a: Tensor, b: Tensor, k: int) -> float:
    """Share of rows of a (N, D) that lie in a ball of b (M, D)."""
    radii = _radii(b, k)
    return float(torch.cat([(torch.cdist(rows, b) <= radii).any(1) for rows in a.split(CHUNK)]).double().mean())


def density(a: Tensor, b: Tensor, k: int) -> float:
    """Balls of b that hold a row of a, over k, meaned over the rows of a."""
    radii = _radii(b, k)
    return float(torch.cat([(torch.cdist(rows, b) <= radii).sum(1) for rows in a.split(CHUNK)]).double().mean()) / k


def coverage(a: Tensor, b: Tensor, k: int) -> float:
    """Share of the balls of b that hold a row of a."""
    nearest = torch.cat([torch.cdist(rows, a).amin(1) for rows in b.split(CHUNK)])
    return float((nearest <= _radii(b, k)).double().mean())


def _radii(x: Tensor, k: int) -> Tensor:
    """(N,) distance of each row to its k-th nearest other row. A row finds itself first."""
    return torch.cat([torch.cdist(rows, x).kthvalue(min(k + 1, len(x)), dim=1).values for rows in x.split(CHUNK)])
