"""Scaling laws: power laws through the best of many runs (Li et al., arXiv 2404.02883; Kaplan et al., arXiv 2001.08361)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

import torch

from ..core.errors import UsageError
from ..core.rng import generator

Point = tuple[float, float]


@dataclass(frozen=True)
class PowerLaw:
    """score = factor x^exponent. `r2`: of the logarithms. `interval`: 95% of the exponent, by a bootstrap over the points."""

    factor: float
    exponent: float
    r2: float
    interval: tuple[float, float]

    def __call__(self, x: float) -> float:
        return float(self.factor * x**self.exponent)


def frontier(points: Iterable[Point]) -> list[Point]:
    """The points (x, score) that no other reaches with less x: x and score rise."""
    best: list[Point] = []
    for x, score in sorted(points, key=lambda p: (p[0], -p[1])):
        if not best or score > best[-1][1]:
            best.append((x, score))
    return best


def power_law(points: Sequence[Point], seed: int = 0, rounds: int = 1000) -> PowerLaw:
    """Least squares of log score on log x. Raises `UsageError` for fewer than two different x, or numbers that are not positive."""
    if len({x for x, _ in points}) < 2 or min(min(p) for p in points) <= 0:
        raise UsageError(f"a power law through {len(points)} points", "at least two different x, and positive numbers")
    logs = torch.tensor(points, dtype=torch.float64).log()
    (slope, offset), picks = _line(logs), torch.randint(len(logs), (rounds, len(logs)), generator=generator((seed, "power law", 0)))
    slopes = torch.stack([_line(logs[rows])[0] for rows in picks if len(logs[rows, 0].unique()) > 1])
    low, high = slopes.quantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    x, y = logs.unbind(1)
    left, spread = (y - offset - slope * x).square().sum(), (y - y.mean()).square().sum()
    return PowerLaw(float(offset.exp()), float(slope), float(1 - left / spread) if spread > 0 else 1.0, (low, high))


def _line(logs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    x, y = logs.unbind(1)
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    return slope, y.mean() - slope * x.mean()


def image_nouns(captions: Iterable[Sequence[str]], nouns: Collection[str]) -> int:
    """Pairs of an image and a noun that its captions hold, summed over images: the measure of data in the law of arXiv 2404.02883."""
    return sum(len({word for caption in own for word in caption.lower().split()} & set(nouns)) for own in captions)
