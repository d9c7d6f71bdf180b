"""Numbers with their doubt: rates, means and statistics of whole sets, each with an interval, a spread or the reason it has none."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.errors import NonFiniteError, UsageError
from ...core.rng import generator


@dataclass(frozen=True)
class Estimate:
    """A value with its uncertainty (`spread`: standard deviation); where either is None, the reason there is none."""

    value: float | None
    spread: float | None = None
    reason: str = ""


@dataclass(frozen=True)
class Score:
    """A mean over `count` pictures with its 95% interval (Wilson's for rates, bootstrap for means)."""

    value: float
    low: float
    high: float
    count: int

    @classmethod
    def rate(cls, hits: Tensor) -> Score:
        """From (N,) booleans."""
        right, count = int(hits.sum()), len(hits)
        return cls(right / max(1, count), *wilson(right, count), count)

    @classmethod
    def mean(cls, values: Tensor, seed: int = 0) -> Score:
        """From (N,) numbers."""
        return cls(float(values.double().mean()), *bootstrap(values, seed), len(values))


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


def student(values: Tensor) -> tuple[float, float]:
    """95% Student interval of the mean of a few values (N,), seeds or rounds; (nan, nan) for fewer than two.

    The bootstrap of three values is no more than their range, which holds the mean in three of four cases.
    """
    if len(values) < 2:
        return math.nan, math.nan
    from scipy.stats import t

    mean, half = float(values.double().mean()), float(values.double().std() / math.sqrt(len(values)) * t.ppf(0.975, len(values) - 1))
    return mean - half, mean + half


def jackknife(statistic: Callable[..., float], *sets: Tensor, groups: int = 10, seed: int = 0) -> Estimate:
    """`statistic(*sets)` of tables (N_i, D) and its standard error by the delete-a-group jackknife (Kott 2001).

    Rows are dealt into `groups`; each is left out of every set in turn: spread^2 = (G - 1) / G * sum_g (value_g - mean)^2. Sets of one
    length are dealt alike, so that rows which belong together leave together and paired sets give the spread of a paired difference.
    A spread needs two rows in every group: with fewer there is a value alone.
    """
    value = statistic(*sets)
    fewest = min(len(s) for s in sets)
    if fewest < 2 * groups:
        return Estimate(value, reason=f"no spread: {fewest} pictures, {2 * groups} needed")
    dealt = {n: torch.randperm(n, generator=generator((seed, "jackknife", n))) % groups for n in {len(s) for s in sets}}
    without = torch.tensor([statistic(*(s[dealt[len(s)] != g] for s in sets)) for g in range(groups)], dtype=torch.float64)
    return Estimate(value, float((without.var(correction=0) * (groups - 1)).sqrt()))


def finite_rows(table: Tensor) -> tuple[Tensor, list[int]]:
    """The rows of a table (N, ...) that hold no NaN or infinity, and the numbers of those that do."""
    whole = table.flatten(1).isfinite().all(1)
    return table[whole], (~whole).nonzero().flatten().tolist()


def tables(*sets: Tensor) -> tuple[Tensor, ...]:
    """Sets of features as fp64 on the CPU, checked: tables (N, D) of one width, finite throughout (`finite_rows` tells the others).

    Raises `UsageError`, and `NonFiniteError` that names the set and its first bad rows.
    """
    if any(s.ndim != 2 for s in sets) or len({s.shape[-1] for s in sets}) > 1:
        shapes = " and ".join(str(tuple(s.shape)) for s in sets)
        raise UsageError(f"features of shapes {shapes}", "two tables (N, D) and (M, D) are needed")
    for name, side in zip(("first", "second", "third"), sets, strict=False):
        _, bad = finite_rows(side)
        if bad:
            raise NonFiniteError(f"the {name} set of features holds NaN or infinity in {len(bad)} of {len(side)} rows: {bad[:8]}")
    return tuple(s.double().cpu() for s in sets)
