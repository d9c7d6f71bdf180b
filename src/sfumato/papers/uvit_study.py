"""U-ViTs and PixArts (arXiv 2412.12391) of two widths, trained with equal FLOPs, and U-ViTs on as many pictures beside them.

A U-ViT's every token passes every product, the words too, so for the same FLOPs it sees fewer pictures; the paper compares after as many.
"""

from __future__ import annotations

from dataclasses import replace

from ..backbones.pixart import PixArtConfig
from ..backbones.uvit import UViTConfig
from .arms import Arm, Trial
from .claims import Budget, Finding, Outcome, Verdict, reached, shown
from .study import Cell, Metric, Results, joined
from .trial import as_costly, concluded, run_study
from .world import World, open_world

UVIT, PIXART, AS_MANY = "U-ViT", "PixArt", "U-ViT on equal pictures"
WIDTHS, SIZE = (64, 128), 64
TRIAL = Trial(images=16_000, batch=32, ema=0.98, pictures=160, steps=(8,))


def measure(budget: Budget) -> Outcome:
    """Both families at two sizes."""
    trial, world = divisible(TRIAL.scaled(budget.scale)), open_world(budget, SIZE)
    results = list[Results]()
    for width in WIDTHS:
        equal = arms(width, trial, world)
        results.append(run_study(f"uvit-scaling-{width}", equal, trial, world, budget, "flops"))
        more = {f"{AS_MANY} {width}": replace(equal[f"{UVIT} {width}"], images=0)}
        results.append(run_study(f"uvit-scaling-{width}-pictures", more, trial, world, budget))
    return concluded(joined(results), trial, budget, verdict)


def divisible(trial: Trial) -> Trial:
    """With steps enough, of smaller batches in a dry run, for FLOPs to be equal to a percent."""
    images = max(trial.images, 128)
    return replace(trial, images=images, batch=min(trial.batch, images // 128))


def arms(width: int, trial: Trial, world: World) -> dict[str, Arm]:
    """Both families at a width. The U-ViT tells its time by an MLP, as PixArt does; the released one takes the bare sinusoid."""
    cross = Arm(PixArtConfig(depth=8, width=width, heads=width // 32, patch=1, variance=False))
    joint = Arm(UViTConfig(depth=8, width=width, heads=width // 32, patch=1, time_mlp=True))
    return {f"{PIXART} {width}": cross, f"{UVIT} {width}": as_costly(joint, cross, trial, world)}


def verdict(results: Results) -> tuple[Verdict, str, tuple[Finding, ...]]:
    """Reproduced: U-ViT's loss at equal FLOPs is lower at both widths and falls more with the width, clear of chance. Partly: it is
    lower at the larger, or falls more. Losses after equal pictures and what the judge says are shown beside.
    """
    less = [_less(results, UVIT, width, "loss") for width in WIDTHS]
    steeper = _falls(results).apart(
        f"fall of the loss from width {WIDTHS[0]} to {WIDTHS[1]}, {UVIT} minus {PIXART}", UVIT, PIXART, "fall", "above"
    )
    beside = [_less(results, AS_MANY, width, "loss") for width in WIDTHS]
    kinds = (f"{kind}@{TRIAL.steps[0]}" for kind in ("style", "alignment"))
    beside += [_less(results, UVIT, width, key) for key in kinds for width in WIDTHS]
    judged = (*less, steeper)
    told = "; ".join(f"width {w} {_told(f)}, on equal pictures {_told(g)}" for w, f, g in zip(WIDTHS, less, beside, strict=False))
    shown_beside = (replace(finding, expected=None, passed=None) for finding in beside)
    found = reached(*(bool(f.passed) for f in judged)) if less[-1].passed or steeper.passed else "not reproduced"
    return found, f"loss, {UVIT} minus {PIXART}: {told}", (*judged, *shown_beside)


def _less(results: Results, joint: str, width: int, key: str) -> Finding:
    title = next(metric.title for metric in results.metrics if metric.key == key)
    return results.apart(f"{title} at width {width}, {joint} minus {PIXART}", f"{joint} {width}", f"{PIXART} {width}", key)


def _falls(results: Results) -> Results:
    """How much lower the loss of each family is at the larger width, seed by seed."""
    cells: dict[str, list[Cell]] = {}
    for family in (UVIT, PIXART):
        small, large = (results.values(f"{family} {width}", "loss") for width in WIDTHS)
        assert small is not None and large is not None
        cells[family] = [Cell({"fall": float(fall)}, 0) for fall in small - large]
    return Results((Metric("fall", "fall of the loss", "higher"),), cells, {})


def _told(finding: Finding) -> str:
    return shown(finding.found, finding.interval, digits=2) if isinstance(finding.found, float) else str(finding.found)
