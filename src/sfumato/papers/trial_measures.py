"""What a trial measures of each network: loss on held-out drawings, the judge's word on pictures of never-seen pairs; and their charts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from ..core.conditions import Conditions
from ..core.denoiser import Denoiser
from ..core.files import write_bytes
from ..core.program import Network
from ..core.rng import normal
from ..evaluate.evaluate import evaluate
from ..objectives.denoising import Sample
from ..training.diffusion import DiffusionTask
from .arms import Trial
from .claims import Budget
from .plots import Line, Panel, chart
from .study import Metric, Results
from .told import alike, telling
from .tuning import AsTrained
from .world import World

# Even noise levels of the validation loss; t = 1, where the target is all of the data's variance, is left out (arXiv 2403.03206).
LEVELS = tuple(k / 8 for k in range(1, 8))


def metrics(trial: Trial) -> tuple[Metric, ...]:
    """Everything a cell measures."""
    lost = (Metric(f"loss@{t:g}", f"validation loss at t = {t:g}") for t in LEVELS)
    return (Metric("loss", "validation loss, mean over t"), *lost, *judgements(trial))


def judgements(trial: Trial) -> tuple[Metric, ...]:
    """What the judge says of pictures drawn at each number of steps."""
    found = list[Metric]()
    for n in trial.steps:
        found += [Metric(f"frechet@{n}", f"Fréchet distance, {n} steps"), Metric(f"kernel@{n}", f"kernel distance, {n} steps")]
        found += [Metric(f"{kind}@{n}", f"{kind} named right, {n} steps", "higher", "share") for kind in ("concept", "style")]
        found += [Metric(f"alignment@{n}", f"picture and caption, cosine, {n} steps", "higher")]
    return tuple(found)


def flops(net: Network, world: World) -> float:
    """FLOPs of one training picture with a caption of mean length: three forward passes of two for every multiply-add."""
    words = float(world.train.table.offsets.diff().double().mean())
    shape: Any = net.config
    side = world.pipe.defaults.size[0] // world.pipe.codec.factor // getattr(shape, "patch", 1)
    tokens = {"image": side**2, "text": round(words), "time": 1}
    return 6.0 * sum(info.cost(tokens) for info in net.sites())


def judged(task: DiffusionTask, trial: Trial, world: World, folder: Path, **drawing: Any) -> dict[str, float | None]:
    """What the judge says of never-seen pairs, drawn at each number of steps; `drawing`: further options of the pipeline."""
    drawn = AsTrained(world.around(Denoiser(task.net, task.meaning)), world.judge.config.size, drawing)
    found: dict[str, float | None] = {}
    for n in trial.steps:
        options: dict[str, Any] = {"count": trial.pictures, "steps": n, "guidance": trial.guidance, "batch": 64}
        report = evaluate(drawn, world.source, world.judge, out=folder / f"{n}-steps", model=folder.name, **options)
        seen, distance = report.generated, report.distance
        found |= {f"frechet@{n}": distance.frechet.value, f"kernel@{n}": distance.kernel.value, f"alignment@{n}": seen.alignment.value}
        found |= {f"concept@{n}": seen.concept_top1.value, f"style@{n}": seen.style.value, f"recall@{n}": distance.recall.value}
    return found


@torch.no_grad()
def losses(
    task: DiffusionTask, world: World, most: int | None = None, told: Mapping[str, Sequence[float]] | None = None
) -> dict[str, float]:
    """Mean loss over held-out drawings (the first `most`) under their second caption and fixed noise, at each of `LEVELS`, and its mean.
    `told`: numbers that the network reads of a whole picture, by slot.
    """
    device, denoiser = next(task.net.parameters()).device, Denoiser(task.net, task.meaning)
    held_out, table = world.validation, world.table(world.validation, task.net)
    found: dict[str, float] = {}
    for t in LEVELS:
        errors = []
        for rows in torch.arange(len(held_out.latents))[:most].split(64):
            x0 = held_out.latents[rows].float().to(device)
            eps = torch.stack([normal(x0.shape[1:], (int(row), "validation", 0)) for row in rows]).to(device)
            sample = task.objective.at(x0, eps, torch.full((len(rows),), t, device=device))
            cond = telling(table.conditions(held_out.captions[rows, 1]), alike(len(rows), told or {})).to(device)
            errors.append(task.objective.loss(denoiser.out(sample.x_t, sample.t, cond).pred["image"], sample))
        found[f"loss@{t:g}"] = float(torch.cat(errors).mean())
    return {"loss": sum(found.values()) / len(found), **found}


def probes(task: DiffusionTask, world: World, purpose: str, pictures: int = 64) -> Iterator[tuple[Sample, Conditions]]:
    """The first held-out drawings at each of `LEVELS`, with noise named by `purpose`, and their second captions."""
    device, data = next(task.net.parameters()).device, world.validation
    x0 = data.latents[:pictures].float().to(device)
    eps = torch.stack([normal(x0.shape[1:], (row, purpose, 0)) for row in range(len(x0))]).to(device)
    cond = world.table(data, task.net).conditions(data.captions[:pictures, 1]).to(device)
    for t in LEVELS:
        yield task.objective.at(x0, eps, torch.full((len(x0),), t, device=device)), cond


def draw_results(trial: Trial, results: Results, budget: Budget) -> tuple[Path, ...]:
    """The curves with intervals, and what each arm drew at the fewest steps with the first seed."""

    def lines(keys: Sequence[str]) -> list[Line]:
        means = {arm: [results.mean(arm, key) for key in keys] for arm in results.cells}
        return [Line(arm, [m and (m[0], *m[1]) for m in found]) for arm, found in means.items()]

    titles = {
        "frechet": "Fréchet distance (lower is better)",
        "concept": "share of concepts named right",
        "style": "share of styles named right",
    }
    steps = [str(n) for n in trial.steps]
    panels = [Panel(title, steps, "Euler steps", lines([f"{kind}@{n}" for n in steps])) for kind, title in titles.items()]
    panels.append(Panel("validation loss", [f"{t:g}" for t in LEVELS], "t", lines([f"loss@{t:g}" for t in LEVELS])))
    curves = chart(panels, budget.pictures / f"{budget.name}-curves.svg")
    return curves, *grids(results, f"{trial.steps[0]}-steps", budget)


def grids(results: Results, place: str, budget: Budget) -> tuple[Path, ...]:
    """What each arm drew with the first seed, beside the real drawings; `place`: the evaluation's folder in a cell's."""
    paths = []
    for arm, folders in results.folders.items():
        paths.append(budget.pictures / f"{budget.name}-{arm.replace(' ', '-')}-{place.split('/')[-1]}.png")
        write_bytes(paths[-1], (folders[0] / place / "grid.png").read_bytes())
    return tuple(paths)
