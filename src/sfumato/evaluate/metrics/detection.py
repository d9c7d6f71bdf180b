"""How good a detector is: average precision of named boxes at an overlap of one half (PASCAL VOC's rule, area under the whole curve)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.rng import generator
from .estimates import Score
from .tasks import Detection


@dataclass(frozen=True)
class Matched:
    """One concept: `truths` things in all, `scores` and `right` of its detections, each with the number of its picture."""

    truths: tuple[int, ...]
    scores: Tensor
    right: Tensor
    place: Tensor


def overlap(a: Detection, b: Detection) -> float:
    """Intersection over union of two boxes."""
    width = min(a.box[2], b.box[2]) - max(a.box[0], b.box[0])
    height = min(a.box[3], b.box[3]) - max(a.box[1], b.box[1])
    shared = max(0.0, width) * max(0.0, height)
    areas = [max(0.0, d.box[2] - d.box[0]) * max(0.0, d.box[3] - d.box[1]) for d in (a, b)]
    return shared / (sum(areas) - shared) if shared else 0.0


def matches(found: Sequence[Detection], truth: Sequence[Detection], least: float = 0.5) -> list[bool]:
    """Whether each detection of one picture is right: the surest first takes the thing of its name that it overlaps most, by `least` or
    more; a thing is taken once."""
    free, right = list(truth), [False] * len(found)
    for k in sorted(range(len(found)), key=lambda k: -found[k].score):
        named = [(overlap(found[k], thing), n) for n, thing in enumerate(free) if thing.concept == found[k].concept]
        best = max(named, default=(0.0, -1))
        if best[0] >= least:
            right[k] = True
            del free[best[1]]
    return right


def by_concept(found: Sequence[Sequence[Detection]], truth: Sequence[Sequence[Detection]]) -> dict[str, Matched]:
    """The detections and things of all pictures, sorted by name; names that no thing has are left out."""
    rows: dict[str, list[tuple[float, bool, int]]] = {}
    things: dict[str, list[int]] = {}
    for place, (seen, there) in enumerate(zip(found, truth, strict=True)):
        for thing in there:
            things.setdefault(thing.concept, []).append(place)
        for detection, right in zip(seen, matches(seen, there), strict=True):
            rows.setdefault(detection.concept, []).append((detection.score, right, place))
    sorted_rows = {name: list(zip(*rows.get(name, []), strict=True)) or [(), (), ()] for name in things}
    return {
        name: Matched(tuple(things[name]), torch.tensor(scores), torch.tensor(right, dtype=torch.bool), torch.tensor(places))
        for name, (scores, right, places) in sorted_rows.items()
    }


def average_precision(scores: Tensor, right: Tensor, truths: float, weight: Tensor | None = None) -> float:
    """Area under precision over recall, precision made monotone from the right; in [0, 1].

    scores, right (N,): of one concept's detections; `truths` things in all. `weight` (N,): how often each counts (a bootstrap's).
    """
    if not len(scores):
        return 0.0
    order = scores.argsort(descending=True, stable=True)
    weight = torch.ones(len(scores), dtype=torch.float64) if weight is None else weight.double()
    hits = (right[order] * weight[order]).cumsum(0).double()
    precision = hits / weight[order].cumsum(0).clamp(min=1e-12)
    ceiling = precision.flip(0).cummax(0).values.flip(0)
    recall = torch.cat([torch.zeros(1, dtype=torch.float64), hits / truths])
    return float((recall.diff() * ceiling).sum())


def mean_average_precision(found: Sequence[Sequence[Detection]], truth: Sequence[Sequence[Detection]], rounds: int = 200) -> Score:
    """Mean over concepts that some picture shows, with a 95% bootstrap interval over pictures. One list of each a picture.

    `count`: the concepts. (nan where no picture shows anything.)
    """
    sorted_things = list(by_concept(found, truth).values())

    def mean(times: Tensor) -> float:
        values = []
        for one in sorted_things:
            truths = float(times[list(one.truths)].sum())
            if truths > 0:
                values.append(average_precision(one.scores, one.right, truths, times[one.place] if len(one.place) else None))
        return sum(values) / len(values) if values else float("nan")

    pictures = len(found)
    value = mean(torch.ones(pictures, dtype=torch.float64))
    draws = generator((0, "detections", pictures))
    resampled = [mean(torch.randint(pictures, (pictures,), generator=draws).bincount(minlength=pictures).double()) for _ in range(rounds)]
    low, high = torch.tensor(resampled, dtype=torch.float64).nanquantile(torch.tensor([0.025, 0.975], dtype=torch.float64)).tolist()
    return Score(value, low, high, len(sorted_things))
