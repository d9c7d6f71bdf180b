"""Two models on the same prompts and seeds: paired differences with intervals, and how far their pictures lie apart.

What both models share (the prompts, the noise, the real drawings) cancels in a paired difference, so its interval is narrower than those
of the two values would suggest.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor

from ..codecs.kl import psnr
from ..core.errors import UsageError
from .evaluate import Examined, named
from .features import JudgeFeatures
from .judge import Judge
from .metrics import Estimate, Score, alignment, feature_distance, jackknife, ssim
from .metrics.manifolds import coverage, density, precision
from .metrics.sets import gaussian_distance, gaussian_kernel_distance, mmd2
from .report import SET_MEASURES

if TYPE_CHECKING:
    from rich.table import Table

# How each field of `Distance` is computed from fp64 features, for the spread of a difference.
STATISTICS: Mapping[str, Callable[[Tensor, Tensor], float]] = {
    "frechet": gaussian_distance,
    "kernel": lambda a, b: float(mmd2(a, b)),
    "cmmd": gaussian_kernel_distance,
    "precision": lambda a, b: precision(a, b, 3),
    "recall": lambda a, b: precision(b, a, 3),
    "density": lambda a, b: density(a, b, 5),
    "coverage": lambda a, b: coverage(a, b, 5),
}
PSNR = "PSNR (dB)"
LOWER_IS_BETTER = ("frechet", "kernel", "cmmd")


class Side(Protocol):
    """What was seen of one model: its report, and which places of those asked for it drew whole."""

    @property
    def report(self) -> Any: ...

    @property
    def places(self) -> tuple[int, ...]: ...


@dataclass(frozen=True)
class Comparison:
    """`first` minus `second` on `count` pictures that both drew whole.

    `pictures`: means over pictures of concept top-1, style and alignment, 95% bootstrap intervals of the paired differences. `sets`: the
    measures of whole sets with the jackknife's spread. `apart`: the first's pictures to the second's of the same prompt and seed:
    PSNR in dB of those that differ (left out where all are equal), SSIM, distance in the judge's feature maps, and the share that are
    equal in every pixel. `lower`: the measures of `pictures` of which less is better.
    """

    first: str
    second: str
    count: int
    pictures: Mapping[str, Score]
    sets: Mapping[str, Estimate]
    apart: Mapping[str, Score]
    lower: tuple[str, ...] = ()

    def rows(self) -> list[tuple[str, str, str]]:
        """(measure, value with its doubt, which model it favours) as text."""
        rows = []
        for title, score in self.pictures.items():
            better = Score(-score.value, -score.high, -score.low, score.count) if title in self.lower else score
            rows.append((f"difference in {title}", f"{score.value:+.3f} [{score.low:+.3f}, {score.high:+.3f}]", self._favours(better)))
        for field, found in self.sets.items():
            rows.append((f"difference in {SET_MEASURES[field]}", *self._set_row(field, found)))
        rows += [] if PSNR in self.apart or not self.apart else [(PSNR, "identical", "")]
        rows += [(title, f"{score.value:.3f} [{score.low:.3f}, {score.high:.3f}]", "") for title, score in self.apart.items()]
        return rows

    def table(self) -> Table:
        """The rows as a rich table for the terminal."""
        from rich.table import Table

        table = Table(title=f"{self.first} minus {self.second}: {self.count} pictures of equal prompts and seeds")
        for heading, justify in (("measure", "left"), ("value", "right"), ("in favour of", "left")):
            table.add_column(heading, justify=justify)  # type: ignore[arg-type]
        for row in self.rows():
            table.add_row(*row)
        return table

    def _set_row(self, field: str, found: Estimate) -> tuple[str, str]:
        if found.value is None:
            return found.reason, ""
        if found.spread is None:
            return f"{found.value:+.4f} ({found.reason})", ""
        sign = -1 if field in LOWER_IS_BETTER else 1
        value, half = sign * found.value, 1.96 * found.spread
        return f"{found.value:+.4f} ± {found.spread:.4f}", self._favours(Score(value, value - half, value + half, self.count))

    def _favours(self, score: Score) -> str:
        return self.first if score.low > 0 else self.second if score.high < 0 else "no difference seen"


def compare(first: Examined, second: Examined, judge: Judge) -> Comparison:
    """Raises `UsageError` when the two were asked for other prompts or seeds, measured in other features, or share no whole picture."""
    a, b = first.report, second.report
    if a.pairs != b.pairs:
        raise UsageError(f"{a.model} drew {a.pairs} pairs, {b.model} {b.pairs} pairs", "ask the same")
    if a.features != b.features:
        raise UsageError(f"{a.model} is measured in {a.features}, {b.model} in {b.features}", "measure both in the same features")
    here, there = both_drew(first, second)
    values = [_values(first, judge, here), _values(second, judge, there)]
    return Comparison(
        first=a.model,
        second=b.model,
        count=len(here),
        pictures={title: Score.mean(values[0][title] - values[1][title]) for title in values[0]},
        sets=_sets(first, second, here, there),
        apart=apart(first.images[here], second.images[there], JudgeFeatures(judge)),
    )


def both_drew(first: Side, second: Side) -> tuple[Tensor, Tensor]:
    """(N,) rows of each side's pictures that the other has too, in one order. Raises `UsageError` for other prompts or seeds, or none."""
    a, b = first.report, second.report
    if a.seed != b.seed:
        raise UsageError(f"{a.model} drew with seed {a.seed}, {b.model} with seed {b.seed}", "ask the same")
    shared = sorted(set(first.places) & set(second.places))
    if not shared:
        raise UsageError(f"{a.model} and {b.model} share no whole picture", "nothing can be compared")
    here, there = (torch.tensor([side.places.index(place) for place in shared]) for side in (first, second))
    if [a.prompts[i] for i in here] != [b.prompts[i] for i in there]:
        raise UsageError(f"{a.model} and {b.model} were asked for other prompts", "evaluate both on the same data and count")
    return here, there


def _values(side: Examined, judge: Judge, rows: Tensor) -> dict[str, Tensor]:
    """(N,) of each measure that every picture has."""
    style = torch.tensor([judge.style_index[s] for s in side.selection.styles])
    values = {
        "concept top-1": named(side.verdict, judge, side.selection).double(),
        "style": (side.verdict.style.argmax(1) == style).double(),
        "alignment": alignment(side.verdict.embedding, side.captions),
    }
    return {title: value[rows] for title, value in values.items()}


def _sets(first: Examined, second: Examined, here: Tensor, there: Tensor) -> dict[str, Estimate]:
    a, b, real = first.features[here].double(), second.features[there].double(), first.real_features[here].double()
    found = {}
    for field, statistic in STATISTICS.items():
        values = [getattr(side.report.distance, field) for side in (first, second)]
        lacking = next((value for value in values if value.value is None), None)
        if lacking is not None or (field == "frechet" and len(a) * 9 // 10 <= a.shape[1]):
            wanted = f"not estimable: {len(a)} pictures for {a.shape[1]} features leave no full rank when a tenth is left out"
            found[field] = Estimate(None, reason=lacking.reason if lacking is not None else wanted)
            continue
        found[field] = jackknife(lambda x, y, r, statistic=statistic: statistic(x, r) - statistic(y, r), a, b, real)
    return found


def apart(a: Tensor, b: Tensor, features: JudgeFeatures) -> dict[str, Score]:
    """How far pictures lie from those of the same prompt and seed, (N, 3, H, W) uint8; a few at a time: feature maps are large."""
    found: dict[str, list[Tensor]] = {PSNR: [], "SSIM": [], "distance in feature maps": []}
    for x, y in zip(a.split(64), b.split(64), strict=True):
        x, y = x.float() / 127.5 - 1.0, y.float() / 127.5 - 1.0
        measured = (psnr(x, y), ssim(x, y), feature_distance(features.maps(x), features.maps(y)))
        for kept, value in zip(found.values(), measured, strict=True):
            kept.append(value)
    equal = (a == b).flatten(1).all(1)
    values = {title: torch.cat(kept) for title, kept in found.items()}
    values[PSNR] = values[PSNR][~equal]  # infinite where two are equal
    scores = {title: Score.mean(value) for title, value in values.items() if len(value)}
    return {**scores, "equal in every pixel": Score.rate(equal)}
