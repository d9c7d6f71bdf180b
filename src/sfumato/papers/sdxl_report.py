"""What follows from networks that are told what was done to their training pictures: a verdict, its findings, and what they drew."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import torch

from ..evaluate.drawing import read_pictures
from ..evaluate.report import pair_grid
from .claims import Budget, Finding, Verdict, reached
from .plots import Line, Panel, chart
from .sdxl_study import CROPPED, CUT, DROPPED, KEPT, SIZED, ToldPlan, asked_for
from .study import Interval, Results
from .trial_measures import grids
from .world import World

Conclusion = tuple[Verdict, str, tuple[Finding, ...]]


def verdict(of_sizes: Results, of_crops: Results, steps: int) -> Conclusion:
    """Sizes hold: told of them, a network draws more detail and at a smaller Fréchet distance than one that takes small pictures for whole;
    is better than one without them in recall or alignment and worse in neither; and draws more detail the larger the size it is told.
    Crops hold: told (0, 0), it cuts at most half as many drawings as one that takes crops for whole; and the further left the crop it is
    told begins, the further right is its ink. Reproduced: both; partly: one.
    """
    size, crop = _sizes(of_sizes, steps), _crops(of_crops)
    held = [all(f.passed for f in found if f.passed is not None) for found in (size, crop)]
    told = " and ".join(f"{sum(bool(f.passed) for f in found)}/{sum(f.passed is not None for f in found)}" for found in (size, crop))
    cuts = ", ".join(f"{_number(of_crops, arm, 'cut'):.0%} {arm}" for arm in (CROPPED, CUT))
    sharp = ", ".join(f"{_number(of_sizes, arm, swept(of_sizes)[-1]):.2f} {arm}" for arm in (SIZED, KEPT, DROPPED))
    return reached(*held), f"{told} of sizes and crops hold; detail of a real drawing's: {sharp}; drawings cut: {cuts}", (*size, *crop)


def _sizes(found: Results, steps: int) -> tuple[Finding, ...]:
    full = swept(found)[-1]
    detail, distance = found.difference(SIZED, KEPT, full), found.difference(SIZED, KEPT, f"frechet@{steps}")
    gains = {kind: found.difference(SIZED, DROPPED, f"{kind}@{steps}") for kind in ("recall", "alignment")}
    better = any(gain and gain[1][0] > 0 for gain in gains.values()) and not any(gain and gain[1][1] < 0 for gain in gains.values())
    sweep = tuple(_number(found, SIZED, key) for key in swept(found))
    return (
        _compared("detail", KEPT, "above 0, interval too", detail, detail is not None and detail[1][0] > 0),
        _compared("Fréchet distance", KEPT, "below 0, interval too", distance, distance is not None and distance[1][1] < 0),
        *(_compared(kind, DROPPED, "0 or above", gain, None) for kind, gain in gains.items()),
        Finding("better in one of these, worse in neither, clear of chance", "yes", "yes" if better else "no", better),
        Finding("detail at each size told, smallest first", "rises at every step", sweep, rises(sweep)),
    )


def _crops(found: Results) -> tuple[Finding, ...]:
    told, untold = (_number(found, arm, "cut") for arm in (CROPPED, CUT))
    spread = found.mean(CROPPED, "cut")
    middles = tuple(_number(found, CROPPED, m.key) for m in found.metrics if m.key.startswith("middle@"))
    return (
        Finding(
            f"drawings cut by the border, {CROPPED}",
            f"at most half of {untold:.3f}",
            told,
            told <= untold / 2,
            "share",
            spread and spread[1],
        ),
        Finding("middle of the ink, told to begin further and further right", "falls at every step", middles, rises(middles[::-1])),
    )


def swept(found: Results) -> list[str]:
    """Keys of the detail at each told size, smallest first."""
    return [m.key for m in found.metrics if m.key.startswith("detail@")]


def rises(values: Sequence[float]) -> bool:
    return all(a < b for a, b in pairwise(values))


def _number(found: Results, arm: str, key: str) -> float:
    mean = found.mean(arm, key)
    assert mean is not None, f"{arm} measures {key} in every cell"
    return mean[0]


def _compared(what: str, other: str, expected: str, found: tuple[float, Interval] | None, passed: bool | None) -> Finding:
    name = f"{what}, {SIZED} minus {other}"
    return Finding(name, expected, "not estimable" if found is None else found[0], passed, "", found and found[1])


def draw_told(plan: ToldPlan, of_sizes: Results, of_crops: Results, world: World, budget: Budget) -> tuple[Path, ...]:
    """What each arm drew; both sweeps as lines with intervals, and as pictures of the first seed."""
    panels = [
        Panel("detail over a real drawing's", *_swept(of_sizes, "detail@", "told original size, pixels")),
        Panel("middle of the ink, part of the width", *_swept(of_crops, "middle@", "told left edge, pixels")),
    ]
    curves = chart(panels, budget.pictures / f"{budget.name}-curves.svg")
    return (
        curves,
        *grids(of_sizes, f"{plan.trial.steps[0]}-steps", budget),
        _strips(of_sizes.folders[SIZED][0], "told-*", plan, world, budget.pictures / f"{budget.name}-sizes.png"),
        _strips(of_crops.folders[CROPPED][0], "left-*", plan, world, budget.pictures / f"{budget.name}-crops.png"),
    )


def _swept(found: Results, start: str, axis: str) -> tuple[list[str], str, list[Line]]:
    keys = [m.key for m in found.metrics if m.key.startswith(start)]
    means = {arm: [found.mean(arm, key) for key in keys] for arm in found.cells}
    return [k.removeprefix(start) for k in keys], axis, [Line(arm, [m and (m[0], *m[1]) for m in row]) for arm, row in means.items()]


def _strips(folder: Path, places: str, plan: ToldPlan, world: World, path: Path) -> Path:
    """The same prompts and noise for each told number, the least on the left."""
    told = sorted(folder.glob(places), key=lambda place: int(place.name.split("-")[1]))
    drawn = [read_pictures(sorted((place / "pictures").glob("*.png")), world.pipe.defaults.size[0]) for place in told]
    pair_grid(torch.cat(drawn[:-1], 3), drawn[-1], asked_for(plan, world).prompts[: len(drawn[0])], path, 24)
    return path
